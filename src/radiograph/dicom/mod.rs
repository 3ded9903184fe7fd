//! DICOM files as radiographs: Part 10 files and bare data sets, CR, DX and secondary capture. Not the network side.
//!
//! The order of things: the structure is walked and bounded (`stream`); dicom-rs parses the elements that are needed,
//! none of which can hold a patient's name; the tags must name a chest radiograph (`clinical`); the stored values are
//! decoded (`pixels`) and mapped to display sense by the standard's grayscale pipeline (`display`), which is stated
//! here rather than taken from a library, since libraries differ in it.

mod attributes;
mod clinical;
mod display;
mod filing;
mod object;
mod pixels;
mod stream;
mod syntax;
pub mod voi;

pub use clinical::SOP_CLASSES;
pub use filing::Filing;
pub(crate) use filing::MAX_BYTES as MAX_FILING;
pub use object::Object;
pub(super) use stream::Start;
pub use syntax::transfer_syntaxes;

use super::{Limits, Origin, OriginKind, Pixels, Radiograph, Refusal, RefusalCode, guard};
use crate::pseudonym::Key;
use attributes::ImageAttributes;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::{TransferSyntaxIndex, TransferSyntaxRegistry, entries};
use stream::DataSet;
use syntax::Syntax;

/// The stored values of a grey DICOM image, before any transformation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bits Stored.
    pub bits_stored: u16,
    /// Whether the values are in two's complement.
    pub signed: bool,
    /// The lowest Bits Stored bits of each pixel, row by row; the others are zero.
    pub words: Vec<u16>,
}

/// An image in display sense, as it comes out of the grayscale pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayImage {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Its grey levels.
    pub pixels: Pixels,
    /// What was done, in order.
    pub applied: Vec<String>,
}

/// Opens a chest radiograph; see [`super::open_bytes`].
pub(super) fn open(
    bytes: &[u8],
    start: Start,
    content_sha256: String,
    limits: &Limits,
    key: &Key,
) -> Result<Radiograph, Refusal> {
    let (object, syntax) = parse(bytes, start, limits)?;
    clinical::check(&object)?;
    let DisplayImage { width, height, pixels, applied } = display_object(&object, syntax, limits)?;
    let pseudonym = |tag, kind| attributes::text(&object, tag).map(|uid| key.pseudonym(kind, &uid));
    let origin = Origin {
        kind: OriginKind::Dicom,
        content_sha256,
        study: pseudonym(tags::STUDY_INSTANCE_UID, "study"),
        series: pseudonym(tags::SERIES_INSTANCE_UID, "series"),
        instance: pseudonym(tags::SOP_INSTANCE_UID, "instance"),
        modality: clinical::modality(&object),
        view: clinical::view(&object),
    };
    Ok(Radiograph { width, height, pixels, origin, applied })
}

/// Decodes the grey image of any single-frame DICOM file to its stored values, whatever it shows: there is no check of
/// modality or body part. For tests and tools; the box itself opens radiographs by [`super::open_bytes`].
pub fn stored_values(bytes: &[u8], limits: &Limits) -> Result<StoredImage, Refusal> {
    let (object, syntax) = parse(bytes, sniff(bytes)?, limits)?;
    let attributes = ImageAttributes::read(&object)?;
    pixels::stored(&object, syntax, &attributes, limits)
}

/// Decodes the image of any single-frame DICOM file to display sense, whatever it shows; see [`stored_values`].
pub fn display(bytes: &[u8], limits: &Limits) -> Result<DisplayImage, Refusal> {
    let (object, syntax) = parse(bytes, sniff(bytes)?, limits)?;
    display_object(&object, syntax, limits)
}

fn sniff(bytes: &[u8]) -> Result<Start, Refusal> {
    Start::sniff(bytes).ok_or_else(|| Refusal::new(RefusalCode::UnknownFormat, "This file is no DICOM file."))
}

/// Bounds and parses a file.
fn parse(bytes: &[u8], start: Start, limits: &Limits) -> Result<(InMemDicomObject, Syntax), Refusal> {
    if bytes.len() as u64 > limits.max_file_bytes {
        return Err(Refusal::limit("max_file_bytes", "bytes"));
    }
    let data_set = DataSet::find(bytes, start, limits)?;
    let syntax = data_set.syntax;
    let parsed = guard(|| {
        // A deflated data set was inflated already and is an explicit one now.
        let explicit = entries::EXPLICIT_VR_LITTLE_ENDIAN.erased();
        let known = if data_set.inflated() { None } else { TransferSyntaxRegistry.get(syntax.uid) };
        InMemDicomObject::read_dataset_with_ts(data_set.reader(), known.unwrap_or(&explicit))
    });
    match parsed {
        Ok(Ok(object)) => Ok((object, syntax)),
        // The parser's own words may quote the file.
        Ok(Err(_)) | Err(_) => Err(damaged()),
    }
}

/// Decodes and maps to display sense.
fn display_object(object: &InMemDicomObject, syntax: Syntax, limits: &Limits) -> Result<DisplayImage, Refusal> {
    let attributes = ImageAttributes::read(object)?;
    let mut applied = vec![syntax.name.to_string()];
    let (width, height) = (attributes.columns.into(), attributes.rows.into());
    let pixels = if attributes.samples_per_pixel == 1 {
        let grayscale = display::Grayscale::read(object, &attributes)?;
        let stored = pixels::stored(object, syntax, &attributes, limits)?;
        grayscale.apply(stored.words, &mut applied)
    } else {
        applied.push("colour channels that agree, as grey".into());
        Pixels::Grey8(pixels::colour(object, syntax, &attributes, limits)?)
    };
    Ok(DisplayImage { width, height, pixels, applied })
}

fn damaged() -> Refusal {
    Refusal::new(
        RefusalCode::Damaged,
        "This DICOM file is damaged or was not copied completely. Send it again from the imaging system.",
    )
}

fn unsupported(message: &str) -> Refusal {
    Refusal::new(RefusalCode::Unsupported, message)
}

//! One radiograph: a grey image in display sense (air dark, bone bright) and where it came from.
//! Not its judgement. Nothing in here can hold a patient's name or ID.

pub mod codec;
pub mod dicom;
pub(crate) mod file;
pub mod phantom;
mod raster;

use crate::pseudonym::Key;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Grey levels, row by row. 0 is black.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pixels {
    /// 8 bits a pixel, the full range being 0..=255.
    Grey8(Vec<u8>),
    /// 16 bits a pixel, the full range being 0..=65535.
    Grey16(Vec<u16>),
}

/// One grey image in display sense and its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Radiograph {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Its grey levels.
    pub pixels: Pixels,
    /// Where it came from.
    pub origin: Origin,
    /// What was done to the stored values, in order, in the words of the DICOM standard.
    pub applied: Vec<String>,
}

/// By which kind of object an image came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OriginKind {
    /// A PNG or JPEG file.
    Raster,
    /// A DICOM instance.
    Dicom,
    /// A camera frame.
    Camera,
}

/// Where an image came from. UIDs only as keyed pseudonyms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// By which kind of object.
    pub kind: OriginKind,
    /// SHA-256 (hex) of the file's bytes as they arrived.
    pub content_sha256: String,
    /// Pseudonym of the Study Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<String>,
    /// Pseudonym of the Series Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// Pseudonym of the SOP Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// DICOM Modality (a code string of the standard's list; anything else is dropped).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modality: Option<String>,
    /// DICOM View Position, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
}

impl Origin {
    /// The origin of a picture file, which names neither study nor modality.
    pub(crate) fn of_raster(content_sha256: String) -> Self {
        let kind = OriginKind::Raster;
        Self { kind, content_sha256, study: None, series: None, instance: None, modality: None, view: None }
    }
}

/// Bounds on what one file may ask of the box. Exceeding one is a refusal that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of the file.
    pub max_file_bytes: u64,
    /// Rows × columns.
    pub max_pixels: u64,
    /// Bytes of the decoded image.
    pub max_decoded_bytes: u64,
    /// DICOM data elements, those in sequences included.
    pub max_elements: u64,
    /// Depth of nested DICOM sequences.
    pub max_nesting: u32,
    /// Seconds that decoding one file may take; 1 to 3600. Longer, and its process is ended.
    pub decode_seconds: u64,
    /// Bytes of memory (address space) that the process which decodes may take; 0: see [`Limits::decode_memory`].
    pub decode_memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: 256 << 20,
            max_pixels: 100_000_000,
            max_decoded_bytes: 512 << 20,
            max_elements: 100_000,
            max_nesting: 16,
            decode_seconds: 60,
            decode_memory_bytes: 0,
        }
    }
}

/// Why a file is not a radiograph that this box can judge: a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The file could not be read from disk.
    Unreadable,
    /// Neither DICOM nor PNG nor JPEG.
    UnknownFormat,
    /// It ends too early or contradicts itself.
    Damaged,
    /// A limit of the configuration was exceeded; the message names it.
    LimitExceeded,
    /// A picture, but not a radiograph: its colour channels disagree.
    NotARadiograph,
    /// DICOM without an image (a report, a presentation state).
    NoImage,
    /// DICOM of a modality other than CR, DX or secondary capture of one.
    WrongModality,
    /// The tags name another body part than the chest.
    WrongBodyPart,
    /// More than one frame.
    MultiFrame,
    /// A transfer syntax, photometric interpretation or bit depth that is not supported.
    Unsupported,
    /// The process that decodes crashed on it, or took more memory than it may.
    DecoderFailed,
    /// Decoding took longer than it may.
    DecoderTimeout,
    /// Judging it ends the program, twice out of twice.
    CrashedTheProgram,
}

impl std::fmt::Display for RefusalCode {
    /// The name in JSON, in the journal and in the README.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// An image that is settled as rejected: a code for machines, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why.
    pub code: RefusalCode,
    /// The same in words that a nurse can act on. Holds no patient data.
    pub message: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The refusal that names an exceeded limit: `name` as in [`Limits`], `what` in words.
    fn limit(name: &str, what: &str) -> Self {
        Self::new(
            RefusalCode::LimitExceeded,
            format!(
                "This file asks for more {what} than the box allows ({name}). Check that it is a single radiograph."
            ),
        )
    }
}

impl Limits {
    /// What is wrong with the values, in words, if anything is: under a limit of 0 every image would be refused.
    pub fn validate(&self) -> Result<(), String> {
        let limits = [
            ("max_file_bytes", self.max_file_bytes),
            ("max_pixels", self.max_pixels),
            ("max_decoded_bytes", self.max_decoded_bytes),
            ("max_elements", self.max_elements),
            ("max_nesting", self.max_nesting.into()),
        ];
        if let Some((name, _)) = limits.iter().find(|(_, limit)| *limit == 0) {
            return Err(format!("limits.{name}: write a number above 0, or leave it out for the default"));
        }
        if !(1..=3600).contains(&self.decode_seconds) {
            return Err("limits.decode_seconds: write a number of seconds from 1 to 3600".into());
        }
        if self.decode_memory_bytes != 0 && self.decode_memory_bytes < 64 << 20 {
            return Err("limits.decode_memory_bytes: write 0 for the default, or 67108864 (64 MiB) or more".into());
        }
        Ok(())
    }

    /// Bytes of address space for a process that decodes: what the configuration says, or else enough for every file that
    /// the other limits allow: the file itself, three times its decoded image (as the codec has it, as stored values, as
    /// grey levels), and 256 MiB for the program and what lies between.
    pub fn decode_memory(&self) -> u64 {
        match self.decode_memory_bytes {
            0 => self.max_decoded_bytes.saturating_mul(3).saturating_add(self.max_file_bytes).saturating_add(256 << 20),
            bytes => bytes,
        }
    }

    /// Checks a picture's claimed size before anything is allocated for it.
    fn check_image(&self, width: u32, height: u32, bytes_per_pixel: u64) -> Result<(), Refusal> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.max_pixels {
            return Err(Refusal::limit("max_pixels", "pixels"));
        }
        if pixels.saturating_mul(bytes_per_pixel) > self.max_decoded_bytes {
            return Err(Refusal::limit("max_decoded_bytes", "memory"));
        }
        Ok(())
    }
}

/// What the first bytes of a file say that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Dicom(dicom::Start),
    Png,
    Jpeg,
}

impl Format {
    /// Decides by magic bytes only; names and extensions lie.
    fn sniff(bytes: &[u8]) -> Option<Self> {
        // First: a DICOM file's preamble may hold anything, another format's magic bytes included.
        if let Some(start) = dicom::Start::sniff(bytes) {
            Some(Self::Dicom(start))
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            Some(Self::Jpeg)
        } else {
            None
        }
    }
}

/// How the name of a file should end that begins with these bytes (some hundred, or all that it has); `None` where it is
/// neither DICOM nor PNG nor JPEG.
pub fn known_ending(beginning: &[u8]) -> Option<&'static str> {
    Some(match Format::sniff(beginning)? {
        Format::Dicom(_) => "dcm",
        Format::Png => "png",
        Format::Jpeg => "jpg",
    })
}

/// Opens a radiograph from the bytes of a file, deciding by magic bytes what it is.
///
/// `key` makes the pseudonyms of DICOM UIDs. Never panics; no allocation exceeds what `limits` allow.
pub fn open_bytes(bytes: &[u8], limits: &Limits, key: &Key) -> Result<Radiograph, Refusal> {
    if bytes.len() as u64 > limits.max_file_bytes {
        return Err(Refusal::limit("max_file_bytes", "bytes"));
    }
    let content_sha256 = hex(&Sha256::digest(bytes));
    let raster = match Format::sniff(bytes) {
        Some(Format::Dicom(start)) => return dicom::open(bytes, start, content_sha256, limits, key),
        Some(Format::Png) => raster::open_png(bytes, limits)?,
        Some(Format::Jpeg) => raster::open_jpeg(bytes, limits)?,
        None if bytes.is_empty() => {
            let message = "This file is empty: it was cut off on its way. Send it again.";
            return Err(Refusal::new(RefusalCode::Damaged, message));
        }
        None => {
            return Err(Refusal::new(
                RefusalCode::UnknownFormat,
                "This file is neither DICOM nor PNG nor JPEG. Export the radiograph as DICOM or PNG.",
            ));
        }
    };
    let origin = Origin::of_raster(content_sha256);
    Ok(Radiograph {
        width: raster.width,
        height: raster.height,
        pixels: raster.pixels,
        origin,
        applied: raster.applied,
    })
}

/// Opens a radiograph from a regular file; see [`open_bytes`]. The file's size is checked before it is read.
pub fn open(path: &Path, limits: &Limits, key: &Key) -> Result<Radiograph, Refusal> {
    open_bytes(&file::read(path, limits)?, limits, key)
}

/// Opens a radiograph from an open regular file, from its beginning; see [`open`].
pub fn open_file(file: &std::fs::File, limits: &Limits, key: &Key) -> Result<Radiograph, Refusal> {
    let bytes = file::read_open(file, limits).map_err(|error| match error {
        file::NotRead::Refused(refusal) => refusal,
        file::NotRead::Failed(error) => file::unreadable(&error),
    })?;
    open_bytes(&bytes, limits, key)
}

/// A radiograph as a grey PNG of its own depth, 8 or 16 bits; `None` when its pixels do not fill its width and height.
pub fn encode_png(radiograph: &Radiograph) -> Option<Vec<u8>> {
    raster::encode_png(radiograph)
}

/// Runs third-party decoding code. A panic in it becomes `Err(Panicked)`: a box must settle a broken image and go on.
/// The state that such code leaves half-changed is its own and dropped with it.
fn guard<T>(decode: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(decode)).map_err(|_| Panicked)
}

/// A decoder panicked.
#[derive(Debug, Clone, Copy)]
struct Panicked;

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

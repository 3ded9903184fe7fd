//! The picture of a radiograph under its evidence map as a Secondary Capture. Not the drawing of it, and not where it is filed.

use super::Maker;
use super::codes;
use super::document::general;
use super::uid::Uids;
use crate::radiograph::dicom::Filing;
use crate::report::Report;
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use image::RgbImage;

/// The SOP class of pictures.
pub(super) const SOP_CLASS: &str = uids::SECONDARY_CAPTURE_IMAGE_STORAGE;

/// See the structured report's.
const SERIES_NUMBER: &str = "9302";

const DERIVATION: &str = "Scaled to 560 pixels and made square; beside it the same under the network's evidence map, with \
                          probabilities, decision and notice. Not for diagnosis.";

/// The picture, as a file. `None` where it is larger than DICOM's images are.
pub(super) fn file(
    maker: &Maker,
    filing: &Filing,
    report: &Report,
    uids: &Uids,
    picture: &RgbImage,
) -> Option<Vec<u8>> {
    let (columns, rows) = (u16::try_from(picture.width()).ok()?, u16::try_from(picture.height()).ok()?);
    let instance = uids.of("picture instance");
    let source = filing.reference().items(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, vec![codes::DERIVED_FROM.item()]);
    let object = general(maker, filing, report, SOP_CLASS, &instance)
        .texts(tags::IMAGE_TYPE, VR::CS, &["DERIVED", "SECONDARY"])
        .text(tags::MODALITY, VR::CS, "OT")
        .text(tags::CONVERSION_TYPE, VR::CS, "WSD")
        .text(tags::SERIES_INSTANCE_UID, VR::UI, &uids.of("picture series"))
        .text(tags::SERIES_NUMBER, VR::IS, SERIES_NUMBER)
        .text(tags::SERIES_DESCRIPTION, VR::LO, "Roentgen: evidence map, not a diagnosis")
        .bytes(tags::PATIENT_ORIENTATION, VR::CS, &[])
        // What is marked as another part is not judged; and without a part its side would have to be said.
        .text(tags::BODY_PART_EXAMINED, VR::CS, "CHEST")
        .text(tags::DERIVATION_DESCRIPTION, VR::ST, DERIVATION)
        .items(tags::SOURCE_IMAGE_SEQUENCE, vec![source])
        // Ours names nobody; but what a modality has burned into the radiograph is still in it.
        .text(tags::BURNED_IN_ANNOTATION, VR::CS, "YES")
        .text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB")
        .number(tags::SAMPLES_PER_PIXEL, 3)
        .number(tags::PLANAR_CONFIGURATION, 0)
        .number(tags::ROWS, rows)
        .number(tags::COLUMNS, columns)
        .number(tags::BITS_ALLOCATED, 8)
        .number(tags::BITS_STORED, 8)
        .number(tags::HIGH_BIT, 7)
        .number(tags::PIXEL_REPRESENTATION, 0)
        .bytes(tags::PIXEL_DATA, VR::OB, picture.as_raw())
        .and(filing.compression());
    Some(object.file(SOP_CLASS, &instance))
}

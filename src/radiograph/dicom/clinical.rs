//! Whether a DICOM file's tags name a frontal chest radiograph's kind: SOP class, modality, body part, intent. Not whether
//! the picture shows one; that is judged from the pixels, later.
//!
//! Tags are often missing or loosely filled, above all on secondary captures of films. So a missing tag never refuses,
//! and one that says otherwise always does:
//!
//! - SOP class: computed and digital radiography, secondary capture, or absent.
//! - Modality: `CR`, `DX`, `RG` (film), `OT` and `SC` (what converters write), or absent.
//! - Body Part Examined: a name of the chest in the languages seen in the field, or absent; where it is absent, the code
//!   of Anatomic Region Sequence.
//! - Presentation Intent `FOR PROCESSING` is a detector's raw image: its grey scale means nothing to a reader.

use super::attributes::text;
use super::unsupported;
use crate::radiograph::{Refusal, RefusalCode};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;

/// SOP classes of radiographs that are judged. Those of several frames may hold just one.
pub const SOP_CLASSES: [&str; 6] = [
    uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE,
    uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
    uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::MULTI_FRAME_GRAYSCALE_BYTE_SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::MULTI_FRAME_GRAYSCALE_WORD_SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::MULTI_FRAME_TRUE_COLOR_SECONDARY_CAPTURE_IMAGE_STORAGE,
];

/// The SOP class of a detector's raw image: refused with a reason of its own.
const RAW: &str = uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING;

/// Modalities under which radiographs come.
const MODALITIES: [&str; 5] = ["CR", "DX", "RG", "OT", "SC"];

/// The standard's defined terms of View Position for the trunk.
const VIEWS: [&str; 8] = ["AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO"];

/// What names of the chest hold, in the languages seen in the field ("PORT CHEST", "PCHEST", "2-TORAX", "PECHO"). `TRAX`
/// is Spanish and Portuguese TÓRAX without the letter that the file's character set may have spoiled.
const CHEST: [&str; 7] = ["CHEST", "THORAX", "TORAX", "TRAX", "PECHO", "LUNG", "PULMO"];

/// Codes of the chest and the lungs: SNOMED CT, and SNOMED RT as older files have it.
const CHEST_CODES: [&str; 7] = ["51185008", "43799004", "39607008", "816094009", "T-D3000", "T-D3050", "T-28000"];

/// Refuses what the tags say is no chest radiograph.
pub(super) fn check(object: &InMemDicomObject) -> Result<(), Refusal> {
    let sop_class = text(object, tags::SOP_CLASS_UID);
    let modality = text(object, tags::MODALITY).map(|modality| modality.to_ascii_uppercase());
    // What holds no image is refused as such, whatever its modality is called.
    if object.get(tags::PIXEL_DATA).is_some() {
        let wrong_class = sop_class.as_deref().is_some_and(|uid| !SOP_CLASSES.contains(&uid) && uid != RAW);
        let wrong_modality = modality.as_deref().is_some_and(|modality| !MODALITIES.contains(&modality));
        if wrong_class || wrong_modality {
            return Err(Refusal::new(
                RefusalCode::WrongModality,
                "This DICOM image is not a radiograph (it may be CT, MR or ultrasound). Send a chest radiograph.",
            ));
        }
    }
    if wrong_body_part(object) {
        return Err(Refusal::new(
            RefusalCode::WrongBodyPart,
            "This DICOM file is marked as another body part than the chest. If it is a chest radiograph, correct the \
             mark and send it again.",
        ));
    }
    let intent = text(object, tags::PRESENTATION_INTENT_TYPE);
    if intent.is_some_and(|intent| intent.eq_ignore_ascii_case("FOR PROCESSING")) || sop_class.as_deref() == Some(RAW) {
        return Err(unsupported("This is the detector's unprocessed image. Send the one that is shown to readers."));
    }
    Ok(())
}

/// Whether the tags name a body part, and another than the chest.
fn wrong_body_part(object: &InMemDicomObject) -> bool {
    if let Some(name) = text(object, tags::BODY_PART_EXAMINED) {
        let letters: String = name.chars().filter(char::is_ascii).map(|letter| letter.to_ascii_uppercase()).collect();
        // "CHESTABDOMEN" is another examination, with another field.
        return letters.contains("ABD") || !CHEST.iter().any(|chest| letters.contains(chest));
    }
    let region = object.get(tags::ANATOMIC_REGION_SEQUENCE).and_then(|element| element.items()?.first());
    let code = region.and_then(|region| text(region, tags::CODE_VALUE));
    code.is_some_and(|code| !CHEST_CODES.contains(&code.as_str()))
}

/// The modality, if it is one that radiographs come under: no free text gets through.
pub(super) fn modality(object: &InMemDicomObject) -> Option<String> {
    code(object, tags::MODALITY, &MODALITIES)
}

/// The view position, if it is a defined term.
pub(super) fn view(object: &InMemDicomObject) -> Option<String> {
    code(object, tags::VIEW_POSITION, &VIEWS)
}

fn code(object: &InMemDicomObject, tag: dicom_core::Tag, list: &[&str]) -> Option<String> {
    let value = text(object, tag)?;
    list.iter().find(|code| value.eq_ignore_ascii_case(code)).map(|code| code.to_string())
}

//! The codes of a structured report: DICOM's own and SNOMED CT's where there is one, `99ROENTGEN` where there is none. Not
//! the report.
//!
//! Those of scheme DCM and of SNOMED CT stand in DICOM PS3.16 (as in the dictionary of pydicom 3.0), but for the two diseases,
//! which are SNOMED CT's 840539006 |COVID-19| and 75570004 |Viral pneumonia|.

use crate::radiograph::dicom::Object;
use crate::report::{Label, ReasonCode};
use dicom_core::VR;
use dicom_dictionary_std::tags;

/// The designator of our own codes.
pub(super) const OWN: &str = "99ROENTGEN";

/// A code with its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) value: &'static str,
    pub(super) scheme: &'static str,
    pub(super) meaning: &'static str,
}

impl Code {
    /// As an item of a code sequence.
    pub(super) fn item(self) -> Object {
        Object::default()
            .text(tags::CODE_VALUE, VR::SH, self.value)
            .text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, self.scheme)
            .text(tags::CODE_MEANING, VR::LO, self.meaning)
    }
}

const fn dcm(value: &'static str, meaning: &'static str) -> Code {
    Code { value, scheme: "DCM", meaning }
}

const fn sct(value: &'static str, meaning: &'static str) -> Code {
    Code { value, scheme: "SCT", meaning }
}

const fn own(value: &'static str, meaning: &'static str) -> Code {
    Code { value, scheme: OWN, meaning }
}

pub(super) const REPORT: Code = dcm("126000", "Imaging Measurement Report");
pub(super) const LANGUAGE: Code = dcm("121049", "Language of Content Item and Descendants");
pub(super) const ENGLISH: Code = Code { value: "en", scheme: "RFC5646", meaning: "English" };
pub(super) const OBSERVER_TYPE: Code = dcm("121005", "Observer Type");
pub(super) const DEVICE: Code = dcm("121007", "Device");
pub(super) const OBSERVER_UID: Code = dcm("121012", "Device Observer UID");
pub(super) const OBSERVER_NAME: Code = dcm("121013", "Device Observer Name");
pub(super) const OBSERVER_MANUFACTURER: Code = dcm("121014", "Device Observer Manufacturer");
pub(super) const OBSERVER_MODEL: Code = dcm("121015", "Device Observer Model Name");
pub(super) const PROCEDURE: Code = dcm("121058", "Procedure reported");
pub(super) const RADIOGRAPHY: Code = sct("168537006", "Plain radiography");
pub(super) const MEASUREMENTS: Code = dcm("126010", "Imaging Measurements");
pub(super) const GROUP: Code = dcm("125007", "Measurement Group");
pub(super) const TRACKING: Code = dcm("112039", "Tracking Identifier");
pub(super) const TRACKING_UID: Code = dcm("112040", "Tracking Unique Identifier");
pub(super) const FINDING: Code = dcm("121071", "Finding");
pub(super) const SITE: Code = sct("363698007", "Finding Site");
pub(super) const LUNG: Code = sct("39607008", "Lung");
pub(super) const ALGORITHM: Code = dcm("111001", "Algorithm Name");
pub(super) const ALGORITHM_VERSION: Code = dcm("111003", "Algorithm Version");
pub(super) const ALGORITHM_PARAMETERS: Code = dcm("111002", "Algorithm Parameters");
pub(super) const CERTAINTY: Code = dcm("111012", "Certainty of Finding");
pub(super) const PERCENT: Code = Code { value: "%", scheme: "UCUM", meaning: "Percent" };
pub(super) const SOURCE: Code = dcm("121112", "Source of Measurement");
pub(super) const EVALUATIONS: Code = Code { value: "C0034375", scheme: "UMLS", meaning: "Qualitative Evaluations" };
pub(super) const COMMENT: Code = dcm("121106", "Comment");
pub(super) const DERIVED_FROM: Code = dcm("121322", "Source image for image processing operation");

pub(super) const DECISION: Code = own("decision", "Decision of the screening");
pub(super) const ABSTAINED: Code = own("abstained", "Abstained: not judged by this device");
pub(super) const STANDING: Code = own("standing", "Standing of this finding in the decision");
pub(super) const REPORTED: Code = own("reported", "The reported label");
pub(super) const NOT_REPORTED: Code = own("not_reported", "Not reported");
pub(super) const REASON: Code = own("reason", "Reason of the abstention");

/// What a label finds. An opacity is one of the lung: see [`SITE`].
pub(super) const fn of_label(label: Label) -> Code {
    match label {
        Label::Covid => sct("840539006", "COVID-19"),
        Label::LungOpacity => dcm("112001", "Opacity"),
        Label::Normal => sct("17621005", "Normal"),
        Label::ViralPneumonia => sct("75570004", "Viral pneumonia"),
    }
}

/// Why the box abstained: our own names, cut to the 16 letters that a code value has.
pub(super) const fn of_reason(reason: ReasonCode) -> Code {
    match reason {
        ReasonCode::TooSmall => own("too_small", "Too few pixels"),
        ReasonCode::Elongated => own("elongated", "Too long for its width"),
        ReasonCode::LowContrast => own("low_contrast", "Blank, or almost"),
        ReasonCode::UnderExposed => own("under_exposed", "Too much of it is black"),
        ReasonCode::OverExposed => own("over_exposed", "Too much of it is white"),
        ReasonCode::Noise => own("noise", "Noise, text or a fine pattern covers it"),
        ReasonCode::LateralView => own("lateral_view", "Lateral view"),
        ReasonCode::Inverted => own("inverted", "Black and white look exchanged"),
        ReasonCode::UpsideDown => own("upside_down", "Upside down"),
        ReasonCode::Rotated => own("rotated", "Turned by a quarter"),
        ReasonCode::Cropped => own("cropped", "Only a part of the chest"),
        ReasonCode::UnusualAppearance => own("unusual", "Unlike a frontal chest radiograph"),
        ReasonCode::OutOfDistribution => own("out_of_domain", "Unlike what the model has learned from"),
        ReasonCode::LowConfidence => own("low_confidence", "The most probable label is not probable enough"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_is_too_long_for_its_element() {
        let reasons = [
            ReasonCode::TooSmall,
            ReasonCode::Elongated,
            ReasonCode::LowContrast,
            ReasonCode::UnderExposed,
            ReasonCode::OverExposed,
            ReasonCode::Noise,
            ReasonCode::LateralView,
            ReasonCode::Inverted,
            ReasonCode::UpsideDown,
            ReasonCode::Rotated,
            ReasonCode::Cropped,
            ReasonCode::UnusualAppearance,
            ReasonCode::OutOfDistribution,
            ReasonCode::LowConfidence,
        ];
        let codes = reasons.map(of_reason).into_iter().chain(Label::ALL.map(of_label));
        for code in codes.chain([DECISION, ABSTAINED, STANDING, REPORTED, NOT_REPORTED, REASON, LANGUAGE, DERIVED_FROM])
        {
            assert!(code.value.len() <= 16 && code.meaning.len() <= 64, "{code:?}");
        }
    }
}

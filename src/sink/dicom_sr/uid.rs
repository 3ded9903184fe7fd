//! UIDs of the objects that go to the PACS, derived from the original's own, the model and the box: the same instance, however
//! often and on whatever way it comes to this box, gives the same objects to the PACS, which knows a repeat by that; another
//! box or model gives others. They say nothing of the original to whoever does not have it.

use crate::radiograph::dicom::Filing;
use crate::report::Report;
use sha2::{Digest, Sha256};

/// The UIDs of one report's objects.
pub(super) struct Uids(String);

impl Uids {
    /// Of what the box called `observer` (a UID) says by the report's model about this instance.
    pub(super) fn new(filing: &Filing, report: &Report, observer: &str) -> Self {
        Self(filing.digest(&format!("{observer}\n{}", report.model.sha256)))
    }

    /// The UID of one of them, by a name of ours for it.
    pub(super) fn of(&self, what: &str) -> String {
        derived(&format!("{}\n{what}", self.0))
    }
}

/// A UUID of version 8 (RFC 9562: made by a rule of its maker) from a text, as a UID under 2.25 (PS3.5 B.2).
pub(super) fn derived(text: &str) -> String {
    let digest = Sha256::digest(format!("roentgen dicom\n{text}"));
    let number = digest.iter().take(16).fold(0u128, |number, &byte| number << 8 | u128::from(byte));
    let version = number & !(0xf << 76) | 8 << 76;
    let variant = version & !(3 << 62) | 2 << 62;
    format!("2.25.{variant}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_report_has_the_same_uids_and_another_one_has_others() {
        let (one, other) = (Uids("a1".into()), Uids("a2".into()));
        assert_eq!(one.of("report series"), Uids("a1".into()).of("report series"));
        let all = [one.of("report series"), one.of("report instance"), other.of("report series")];
        assert!(all[0] != all[1] && all[0] != all[2]);
        for uid in all {
            let number: u128 = uid.strip_prefix("2.25.").unwrap().parse().unwrap();
            assert!(uid.len() <= 64 && number >> 76 & 0xf == 8 && number >> 62 & 3 == 2, "{uid}");
        }
    }
}

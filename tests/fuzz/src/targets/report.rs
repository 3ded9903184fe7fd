//! Fuzz target: the JSON of a report as the outbox holds it, on a disk that may rot. What is read must be written as it
//! was.

use roentgen::report::Report;

/// Reads the report, and writes it again.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(report) = serde_json::from_slice::<Report>(bytes) else { return };
    let written = serde_json::to_string(&report).expect("a report is plain data");
    // JSON has no infinity: a number too large for f32 is read as one and written as null. Such a report is none.
    if let Ok(again) = serde_json::from_str::<Report>(&written) {
        assert_eq!(serde_json::to_string(&again).expect("a report is plain data"), written);
    }
}

//! What telemetry says of what a status was told.

use super::*;
use crate::radiograph::RefusalCode;
use crate::status::{QueueDepth, Status};

#[test]
fn it_says_what_was_told_by_the_names_of_reports() {
    let status = Status::default();
    status.rejected(RefusalCode::UnknownFormat);
    status.rejected(RefusalCode::UnknownFormat);
    status.repeated();
    status.queue(QueueDepth { unsent: 7, bytes: Some(4096) });
    status.incoming(Some(3));
    let json = serde_json::to_value(status.telemetry(&Roots::default())).unwrap();
    assert_eq!(json["schema"], SCHEMA);
    assert_eq!(json["counts"]["rejected"], serde_json::json!({ "unknown_format": 2 }));
    assert_eq!(
        json["counts"]["reported"],
        serde_json::json!({ "covid": 0, "lung_opacity": 0, "normal": 0, "viral_pneumonia": 0 })
    );
    assert_eq!(json["counts"]["repeated"], 1);
    assert_eq!(json["queue"], serde_json::json!({ "incoming": 3, "unsent": 7, "outbox_bytes": 4096 }));
    assert_eq!(json["intake"], serde_json::json!({ "open": true }));
    assert_eq!(json["health"]["healthy"], false, "no model is loaded");
    assert!(json["memory"]["resident_bytes"].as_u64() > Some(0), "{json}");
    let read: Telemetry = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), json);
}

#[test]
fn what_was_made_for_a_pacs_and_nothing_sends_is_warned_of() {
    use crate::status::Setup;
    let folder = tempfile::tempdir().unwrap();
    let status = Status::default();
    let model = ModelIdentity { name: "tiny".into(), version: "1.0.0".into(), sha256: "ab".into() };
    status.running(Setup {
        device: "box-t".into(),
        model,
        bundle: "/".into(),
        fallback: None,
        backend: "native".into(),
        kernel: "portable".into(),
        threads: 1,
        backend_fallback: None,
        state_dir: folder.path().into(),
        incoming: "/".into(),
    });
    let waiting = folder.path().join("results/waiting");
    std::fs::create_dir_all(&waiting).unwrap();
    let is_left = || {
        let problems = status.telemetry(&Roots::default()).health.problems;
        problems.iter().any(|problem| problem.code == "results_left")
    };
    assert!(!is_left(), "nothing lies there");
    std::fs::write(waiting.join("a.dcm"), "1").unwrap();
    assert!(is_left());
    status.results(Some(Standing::default()));
    assert!(!is_left(), "it is sent");
}

//! Payloads of every kind that a box publishes, and the outside judge of whether they fit their JSON Schemas: jsonschema
//! (PyPI, in Python). Not a test.

use roentgen::radiograph::{Origin, OriginKind, RefusalCode};
use roentgen::report::{
    Clock, Decision, EvidenceMap, Finding, Label, ModelIdentity, NOTICE, Reason, ReasonCode, Report, SCHEMA, Timing,
};
use roentgen::sink::mqtt::command::Stage;
use roentgen::status::{Broker, Camera, Intake, QueueDepth, Roots, Setup, Status, Update, UpdateWaiting};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The names of an enumeration, as serde lists them where one is unknown.
pub(crate) fn variants<T: DeserializeOwned + std::fmt::Debug>() -> BTreeSet<String> {
    let said = serde_json::from_value::<T>("?".into()).expect_err("no such name").to_string();
    let names: BTreeSet<String> =
        said.split('`').skip(1).step_by(2).map(str::to_owned).filter(|name| name != "?").collect();
    assert!(names.len() > 1, "{said}");
    names
}

/// The outside judge; `None` where it cannot be had, which CI does not forgive.
pub(crate) fn python() -> Option<PathBuf> {
    let in_tree = Path::new(ROOT).join(".cache/venv/bin/python");
    let python = std::env::var_os("ROENTGEN_PYTHON").map(PathBuf::from);
    let python = python.unwrap_or_else(|| if in_tree.exists() { in_tree } else { "python3".into() });
    let works = Command::new(&python).args(judge()).arg("--check").output();
    if works.as_ref().is_ok_and(|said| said.status.success()) {
        return Some(python);
    }
    let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(!required, "{} cannot import jsonschema: {works:?}", python.display());
    eprintln!("SKIPPED: {} cannot import jsonschema; tests/run installs it", python.display());
    None
}

pub(crate) fn judge() -> [PathBuf; 2] {
    ["tests/witness/schema.py", "models/schema"].map(|path| Path::new(ROOT).join(path))
}

/// What is wrong with each payload by its schema.
pub(crate) fn judged(python: &Path, payloads: &[(String, Value)], strict: bool) -> Vec<Vec<String>> {
    let mut child =
        Command::new(python).args(judge()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python");
    let mut input = child.stdin.take().unwrap();
    let lines: String = payloads
        .iter()
        .map(|(schema, payload)| json!({ "schema": schema, "strict": strict, "payload": payload }).to_string() + "\n")
        .collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let said = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let answers: Vec<Vec<String>> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), payloads.len(), "{said}");
    answers
}

pub(crate) fn assert_fit(python: &Path, payloads: &[(String, Value)]) {
    for ((schema, payload), wrong) in payloads.iter().zip(judged(python, payloads, true)) {
        assert_eq!(wrong, Vec::<String>::new(), "{schema}: {payload}");
    }
}

pub(crate) fn report(decision: Decision) -> Report {
    let hash = "0123456789abcdef".repeat(4);
    Report {
        schema: SCHEMA.into(),
        report_id: hash[..32].into(),
        device: "box-t".into(),
        sequence: 1,
        received_at: "2026-01-01T00:00:00.5Z".into(),
        clock: Clock::Unsynchronised,
        origin: Origin {
            kind: OriginKind::Dicom,
            content_sha256: hash.clone(),
            study: Some(hash[..32].into()),
            series: Some(hash[..32].into()),
            instance: Some(hash[..32].into()),
            modality: Some("DX".into()),
            view: Some("PA".into()),
        },
        model: ModelIdentity { name: "tiny".into(), version: "1.0.0".into(), sha256: hash },
        backend: "native".into(),
        findings: Label::ALL.map(|label| Finding { label, probability: 0.25 }),
        decision,
        evidence_map: None,
        timing_ms: Timing { decode: 1.0, preprocess: 0.5, infer: 10.0, total: 11.5 },
        notice: NOTICE.into(),
    }
}

pub(crate) fn abstained(codes: &[ReasonCode]) -> Report {
    let reason = |code: &ReasonCode| Reason { code: *code, message: "why".into(), value: 0.5, limit: 0.25 };
    report(Decision::Abstained { reasons: codes.iter().map(reason).collect() })
}

pub(crate) fn codes() -> Vec<ReasonCode> {
    variants::<ReasonCode>().into_iter().map(|name| serde_json::from_value(name.into()).unwrap()).collect()
}

/// Every report that there can be, as far as its kind goes.
pub(crate) fn reports() -> Vec<(String, Value)> {
    let mut reports: Vec<Report> = Label::ALL.into_iter().map(|label| report(Decision::Reported { label })).collect();
    reports.extend(codes().into_iter().map(|code| abstained(&[code])));
    reports.push(abstained(&codes()));
    let map = EvidenceMap { rows: 7, columns: 7, logits: vec![-0.125; 196] };
    reports.push(Report { evidence_map: Some(map), ..reports[0].clone() });
    reports.iter().map(|report| ("report".into(), serde_json::to_value(report).unwrap())).collect()
}

/// Telemetry of boxes to which everything has happened that can be told to a status.
pub(crate) fn telemetry() -> Vec<(String, Value)> {
    let status = Status::default();
    let roots = Roots::default();
    let mut said = vec![status.telemetry(&roots)];
    let Report { model, .. } = report(Decision::Reported { label: Label::Normal });
    let fallback = roentgen::bundle::Fallback { wanted: "another".into(), reason: "broken".into() };
    status.running(Setup {
        device: "box-t".into(),
        model,
        bundle: "/".into(),
        fallback: Some(fallback.clone()),
        backend: "native".into(),
        kernel: "portable".into(),
        threads: 2,
        backend_fallback: Some(fallback),
        state_dir: "/".into(),
        incoming: "/".into(),
    });
    for name in variants::<RefusalCode>() {
        status.rejected(serde_json::from_value(name.into()).unwrap());
    }
    status.judged(&abstained(&codes()));
    status.judged(&report(Decision::Reported { label: Label::Covid }));
    status.repeated();
    status.published(2);
    status.dropped(3);
    status.undeliverable(1);
    status.queue(QueueDepth { unsent: 3, bytes: Some(4096) });
    status.incoming(Some(7));
    status.outbox_set_aside("it was broken");
    status.intake(Intake::Closed { reason: "no room".into() });
    status.reloaded(Err("line 3".into()));
    status.broker(Broker { connected: false, connections: 2, version: None, error: Some("refused".into()) });
    let camera =
        Camera { away: Some("camera: unplugged".into()), complaint: Some("blurred".into()), ..Camera::default() };
    status.camera(Some(camera));
    status.dicom(Some(Default::default()));
    status.results(Some(Default::default()));
    let (what, stage) = ("a.tar".into(), Stage::Checking.as_str().into());
    status.update(Update { what, stage, message: "copied".into(), at: "2026-01-01T00:00:00Z".into() });
    let waiting = UpdateWaiting { file: "b.tar".into(), name: "tiny".into(), version: "1.1.0".into() };
    status.update_waiting(Some(waiting));
    said.push(status.telemetry(&roots));
    said.iter().map(|telemetry| ("telemetry".into(), serde_json::to_value(telemetry).unwrap())).collect()
}

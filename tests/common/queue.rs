//! Reports of a real size for the tests of the outbox, and files as a killed process or a bad disk leaves them. Not a
//! test.

#![allow(dead_code, reason = "every test file uses its own part of this")]

use roentgen::bundle::sha256_hex;
use roentgen::outbox::Outbox;
use roentgen::radiograph::{Origin, OriginKind};
use roentgen::report::{
    Clock, Decision, Finding, Label, ModelIdentity, NOTICE, Reason, ReasonCode, Report, SCHEMA, Timing,
};
use std::fs;
use std::path::Path;

/// The report on the n-th image, as large as those of DICOM files are. Every third is an abstention.
pub(crate) fn report(n: u64) -> Report {
    let hash = |what: &str| sha256_hex(format!("{what} {n}").as_bytes());
    let short = |what: &str| hash(what)[..32].to_owned();
    let label = Label::ALL[n as usize % 4];
    let reason =
        Reason { code: ReasonCode::LowConfidence, message: "0.41 is below 0.5".into(), value: 0.41, limit: 0.5 };
    Report {
        schema: SCHEMA.into(),
        report_id: short("id"),
        device: "box-t".into(),
        sequence: 0,
        received_at: format!("2026-01-{:02}T{:02}:00:00.000Z", 1 + n / 24 % 28, n % 24),
        clock: Clock::Synchronised,
        origin: Origin {
            kind: OriginKind::Dicom,
            content_sha256: hash("content"),
            study: Some(short("study")),
            series: Some(short("series")),
            instance: Some(short("instance")),
            modality: Some("DX".into()),
            view: Some("PA".into()),
        },
        model: ModelIdentity { name: "cxr-vgg16".into(), version: "1.0.0".into(), sha256: hash("model") },
        backend: "native".into(),
        findings: Label::ALL.map(|of| Finding { label: of, probability: if of == label { 0.7 } else { 0.1 } }),
        decision: if n % 3 == 2 { Decision::Abstained { reasons: vec![reason] } } else { Decision::Reported { label } },
        evidence_map: None,
        timing_ms: Timing { decode: 9.125, preprocess: 2.5, infer: 10.25, total: 21.875 },
        notice: NOTICE.into(),
    }
}

/// Queues the reports on these images.
pub(crate) fn enqueue(outbox: &mut Outbox, images: impl IntoIterator<Item = u64>) {
    for n in images {
        outbox.enqueue(&report(n)).unwrap();
    }
}

/// Copies a database with its log as they are now: what a killed process leaves behind. Nothing was closed or flushed.
pub(crate) fn copy_as_killed(from: &Path, to: &Path) {
    for part in ["", "-wal"] {
        let name = |path: &Path| format!("{}{part}", path.display());
        if Path::new(&name(from)).exists() {
            fs::copy(name(from), name(to)).unwrap();
        }
    }
}

/// The sequences of the unsent reports, in their order: all of them as far as they fit into one batch (about 250).
pub(crate) fn unsent(outbox: &mut Outbox) -> Vec<u64> {
    outbox.next_batch(1 << 20).unwrap().into_iter().map(|message| message.sequence).collect()
}

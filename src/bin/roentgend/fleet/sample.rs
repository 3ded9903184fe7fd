//! What simulated boxes say: reports, status and telemetry in the real shapes, about nothing.

use chrono::{SecondsFormat, Utc};
use roentgen::radiograph::{Origin, OriginKind};
use roentgen::report::{
    Clock, Decision, Finding, Label, ModelIdentity, NOTICE, Reason, ReasonCode, Report, SCHEMA, Timing,
};
use roentgen::sink::mqtt::STATUS_SCHEMA;
use roentgen::status::{Roots, Status, Telemetry};
use serde_json::json;

/// The name of a box.
pub(super) fn device(number: u32) -> String {
    format!("simulated-{number:05}")
}

/// Numbers that look like chance and are the same each time (SplitMix64).
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// As many hexadecimal digits as a hash has.
fn hash(seed: u64) -> String {
    (0..4).map(|part| format!("{:016x}", mixed(seed.wrapping_mul(4).wrapping_add(part)))).collect()
}

/// A report, of which one in thirty is an abstention.
pub(super) fn report(number: u32, sequence: u64) -> Report {
    let seed = u64::from(number) << 32 | sequence;
    let content = hash(seed);
    let weights = Label::ALL.map(|label| 1.0 + (mixed(seed ^ (label as u64) << 8) % 1000) as f32);
    let sum: f32 = weights.iter().sum();
    let mut findings = Label::ALL.map(|label| Finding { label, probability: weights[label as usize] / sum });
    let most = (mixed(seed) % 4) as usize;
    // One of them stands out, as from a network that has learned something.
    for (at, finding) in findings.iter_mut().enumerate() {
        finding.probability = finding.probability * 0.1 + if at == most { 0.9 } else { 0.0 };
    }
    let decision = if mixed(seed ^ 7).is_multiple_of(30) {
        let message = "The most probable label is not probable enough.".to_owned();
        let reason = Reason { code: ReasonCode::LowConfidence, message, value: 0.41, limit: 0.56 };
        Decision::Abstained { reasons: vec![reason] }
    } else {
        Decision::Reported { label: Label::ALL[most] }
    };
    let pseudonym = |part: u64| Some(hash(seed ^ part << 40)[..32].to_owned());
    Report {
        schema: SCHEMA.into(),
        report_id: content[..32].to_owned(),
        device: device(number),
        sequence,
        // Finer than a box says it, so that the way of a report can be timed.
        received_at: Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true),
        clock: Clock::Synchronised,
        origin: Origin {
            kind: OriginKind::Dicom,
            content_sha256: content,
            study: pseudonym(1),
            series: pseudonym(2),
            instance: pseudonym(3),
            modality: Some("DX".into()),
            view: Some("PA".into()),
        },
        model: ModelIdentity { name: "simulated".into(), version: "0.0.0".into(), sha256: hash(0) },
        backend: "native".into(),
        findings,
        decision,
        evidence_map: None,
        timing_ms: Timing { decode: 9.1, preprocess: 2.0, infer: 10.9, total: 22.0 },
        notice: NOTICE.into(),
    }
}

/// The retained status.
pub(super) fn status(number: u32, status: &str) -> String {
    let mut said = json!({
        "schema": STATUS_SCHEMA,
        "status": status,
        "device": device(number),
        "version": env!("CARGO_PKG_VERSION"),
    });
    if status == "offline" {
        said["reason"] = "connection lost".into();
    }
    said.to_string()
}

/// Telemetry as this machine would give it.
pub(super) fn telemetry() -> Telemetry {
    Status::default().telemetry(&Roots::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_reports_are_reports_and_no_two_are_alike() {
        let mut ids: Vec<String> = Vec::new();
        let mut abstentions = 0;
        for number in 0..10 {
            for sequence in 1..=100 {
                let report = report(number, sequence);
                let sum: f32 = report.findings.iter().map(|finding| finding.probability).sum();
                assert!((sum - 1.0).abs() < 1e-4, "{sum}");
                abstentions += usize::from(matches!(report.decision, Decision::Abstained { .. }));
                ids.push(report.report_id);
            }
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 1000);
        assert!((5..100).contains(&abstentions), "{abstentions}");
    }
}

//! Evidence → Report: calibration, the gates that say when not to judge, abstention. Not the evidence itself
//! ([`crate::classifier`]) and not the report's shape ([`crate::report`]).

mod clock;
mod decide;
pub mod gates;
pub mod heatmap;
pub mod quality;
pub mod view;

use crate::bundle::{Bundle, BundleError, Calibration, Manifest, Thresholds, sha256_hex};
use crate::classifier::Evidence;
use crate::radiograph::{Origin, Radiograph};
use crate::report::{Clock, Decision, EvidenceMap, Finding, Label, ModelIdentity, NOTICE, Report, SCHEMA, Timing};
use crate::tensor::Tensor;
use chrono::{DateTime, SecondsFormat, Utc};
use gates::Gates;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// What reports carry, as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether reports carry the evidence map (some kilobytes each).
    pub evidence_map: bool,
}

/// One radiograph on its way to a decision: what came in, what the network read and what it said.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What came in, at its own size and depth.
    pub radiograph: &'a Radiograph,
    /// What the network read: 1 × 224 × 224 × 1 grey levels.
    pub image: &'a Tensor<u8>,
    /// What the network said.
    pub evidence: &'a Evidence,
}

/// Makes reports: knows the box, the model and how the model is calibrated.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessor {
    device: String,
    model: ModelIdentity,
    /// The version of the preprocessing that the model was trained with, and that this program has.
    preprocessing: String,
    calibration: Calibration,
    thresholds: Thresholds,
    /// Absent in bundles of before they were: such a box has `low_confidence` and `lateral_view` alone.
    gates: Option<Gates>,
    config: Config,
}

impl Assessor {
    /// For the box called `device` and the model of `bundle`, whose gates are loaded if it has any.
    pub fn new(bundle: &Bundle, device: &str, config: Config) -> Result<Self, BundleError> {
        let gates = Gates::load(bundle)?;
        Ok(Self { gates, ..Self::of(bundle.manifest(), bundle.sha256(), device, config) })
    }

    /// The same without gates.
    fn of(manifest: &Manifest, sha256: &str, device: &str, config: Config) -> Self {
        let model =
            ModelIdentity { name: manifest.name.clone(), version: manifest.version.clone(), sha256: sha256.to_owned() };
        Self {
            device: device.to_owned(),
            model,
            preprocessing: manifest.input.preprocessing.clone(),
            calibration: manifest.calibration.clone(),
            thresholds: manifest.thresholds.clone(),
            gates: None,
            config,
        }
    }

    /// Which model the reports are of.
    pub fn model(&self) -> &ModelIdentity {
        &self.model
    }

    /// Whether a report that another process made is one of this box and its model as they are now.
    pub fn is_own(&self, report: &Report) -> bool {
        (report.schema.as_str(), report.notice.as_str()) == (SCHEMA, NOTICE)
            && (&report.device, &report.model) == (&self.device, &self.model)
            && report.report_id == self.report_id(&report.origin)
    }

    /// The calibrated probabilities of the four labels, and what to say: the most probable one, or every reason why not,
    /// worst first.
    pub fn decide(&self, seen: &Seen) -> ([Finding; 4], Decision) {
        let temperature = self.calibration.temperature;
        let findings = findings(&seen.evidence.logits, temperature);
        let objections = decide::objections(seen, self.gates.as_ref(), temperature);
        (findings, decide::decide(&findings, &self.thresholds, objections))
    }

    /// The report on one radiograph. `sequence` is 0 for a report that never enters the outbox; `backend` is the
    /// classifier's name.
    pub fn assess(
        &self,
        seen: &Seen,
        received_at: SystemTime,
        timing_ms: Timing,
        sequence: u64,
        backend: &str,
    ) -> Report {
        let origin = &seen.radiograph.origin;
        let (findings, decision) = self.decide(seen);
        Report {
            schema: SCHEMA.into(),
            report_id: self.report_id(origin),
            device: self.device.clone(),
            sequence,
            received_at: rfc3339(received_at),
            clock: clock::state(),
            origin: origin.clone(),
            model: self.model.clone(),
            backend: backend.to_owned(),
            findings,
            decision,
            evidence_map: self.config.evidence_map.then(|| evidence_map(seen.evidence)),
            timing_ms,
            notice: NOTICE.into(),
        }
    }

    /// The id of the report on the image of `origin`: the first 32 hexadecimal digits of the SHA-256 of content hash,
    /// bundle hash and preprocessing version, a line each. The same image judged again by the same model has the same id.
    pub fn report_id(&self, origin: &Origin) -> String {
        report_id(&origin.content_sha256, &self.model.sha256, &self.preprocessing)
    }
}

/// The same of what it is made of.
pub fn report_id(content_sha256: &str, bundle_sha256: &str, preprocessing: &str) -> String {
    let parts = [content_sha256, bundle_sha256, preprocessing];
    let lines: String = parts.iter().flat_map(|part| [part, "\n"]).collect();
    let mut id = sha256_hex(lines.as_bytes());
    id.truncate(32);
    id
}

/// Temperature scaling (Guo et al. 2017): softmax(logits / temperature), in the order of [`Label::ALL`]; `temperature` is
/// above 0. Each is in 0..=1 and they sum to 1, to the rounding of f64.
pub fn softmax(logits: &[f32; 4], temperature: f64) -> [f64; 4] {
    // In f64, and with the greatest taken off, so that nothing overflows however small the temperature.
    let scaled = logits.map(|logit| f64::from(logit) / temperature);
    let greatest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights = scaled.map(|logit| (logit - greatest).exp());
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

/// The four labels with their calibrated probabilities; see [`softmax`].
pub fn findings(logits: &[f32; 4], temperature: f32) -> [Finding; 4] {
    let probabilities = softmax(logits, f64::from(temperature));
    std::array::from_fn(|i| Finding { label: Label::ALL[i], probability: probabilities[i] as f32 })
}

/// The evidence map as it travels in a report.
pub fn evidence_map(evidence: &Evidence) -> EvidenceMap {
    let [_, rows, columns, _] = evidence.map.shape();
    EvidenceMap { rows, columns, logits: evidence.map.data().to_vec() }
}

/// Whether the box's clock can be trusted now.
pub fn clock() -> Clock {
    clock::state()
}

/// The time, as long as somebody vouches for the clock.
pub fn trusted_time() -> Option<SystemTime> {
    (clock() == Clock::Synchronised).then(SystemTime::now)
}

/// RFC 3339, UTC, milliseconds. A time before 1970 or beyond what can be written stands as 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
    let time = DateTime::<Utc>::from_timestamp(seconds, since.subsec_nanos()).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests;

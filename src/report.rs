//! The report: what a box says about one radiograph, in the shape that consumers rely on (`roentgen.report/1`).
//! Not the judgement itself: [`crate::assess`] makes that; here are the nouns and their JSON.

use crate::radiograph::Origin;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The schema name every report carries. Fields are only ever added to it.
pub const SCHEMA: &str = "roentgen.report/1";

/// The sentence that stands wherever a result is shown.
pub const NOTICE: &str =
    "Screening aid, not a diagnosis. A qualified reader must judge the radiograph; do not act on this result alone.";

/// The four classes, in the order of the network's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Pneumonia of COVID-19.
    Covid,
    /// Lung opacity that is not COVID-19.
    LungOpacity,
    /// No finding among the other three.
    Normal,
    /// Viral pneumonia other than COVID-19.
    ViralPneumonia,
}

impl Label {
    /// All labels, in the order of the network's outputs.
    pub const ALL: [Label; 4] = [Label::Covid, Label::LungOpacity, Label::Normal, Label::ViralPneumonia];

    /// The name in JSON, in data-set folders and in bundles.
    pub fn name(self) -> &'static str {
        match self {
            Label::Covid => "covid",
            Label::LungOpacity => "lung_opacity",
            Label::Normal => "normal",
            Label::ViralPneumonia => "viral_pneumonia",
        }
    }

    /// The name a person reads.
    pub fn title(self) -> &'static str {
        match self {
            Label::Covid => "COVID-19",
            Label::LungOpacity => "Lung opacity",
            Label::Normal => "Normal",
            Label::ViralPneumonia => "Viral pneumonia",
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One label with its calibrated probability, in 0..=1. The four of a report sum to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which class.
    pub label: Label,
    /// Its calibrated probability.
    pub probability: f32,
}

/// Why a box would not judge. A closed list, documented in the README; worst first, as the reasons of a report stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// Too few pixels to judge by.
    TooSmall,
    /// Too long for its width, or too wide.
    Elongated,
    /// Blank, or almost.
    LowContrast,
    /// Too much of it is black.
    UnderExposed,
    /// Too much of it is white.
    OverExposed,
    /// Noise, text or a fine pattern covers it.
    Noise,
    /// Its DICOM tags call it a lateral view.
    LateralView,
    /// Black and white look exchanged.
    Inverted,
    /// It looks upside down.
    UpsideDown,
    /// It looks turned by a quarter.
    Rotated,
    /// Only a part of the chest seems to be in it.
    Cropped,
    /// It does not look like a frontal chest radiograph.
    UnusualAppearance,
    /// The network's features or logits for it are unlike those of the training images.
    OutOfDistribution,
    /// The most probable label is less probable than the bundle's threshold.
    LowConfidence,
}

impl fmt::Display for ReasonCode {
    /// The name in JSON, in the journal and in the README.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One reason for an abstention, with the figures behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The machine-readable reason.
    pub code: ReasonCode,
    /// The same in words.
    pub message: String,
    /// The measured figure.
    pub value: f32,
    /// The threshold it was held against.
    pub limit: f32,
}

/// What the box decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Decision {
    /// The label the box reports.
    Reported {
        /// The most probable one.
        label: Label,
    },
    /// The box should not judge this radiograph.
    Abstained {
        /// Why; never empty.
        reasons: Vec<Reason>,
    },
}

/// Which model judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: String,
    /// SHA-256 of the bundle's `bundle.toml`, which itself lists the hash of every other file.
    pub sha256: String,
}

/// Whether the box's clock could be trusted when the image arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// systemd-timesyncd has set the clock from a server since boot.
    Synchronised,
    /// It has not, or another time service keeps the clock and leaves no such mark: `received_at` may be wrong.
    Unsynchronised,
}

/// How long each step took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// File to radiograph.
    pub decode: f64,
    /// Radiograph to tensor.
    pub preprocess: f64,
    /// Tensor to evidence.
    pub infer: f64,
    /// All of it.
    pub total: f64,
}

/// The evidence map as it travels in a report (opt-in): `rows × columns × 4` class logits, class index fastest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvidenceMap {
    /// Rows of the map.
    pub rows: usize,
    /// Columns of the map.
    pub columns: usize,
    /// The logits, in the order of [`Label::ALL`] within a cell.
    pub logits: Vec<f32>,
}

/// What a box publishes about one radiograph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Derived from content hash, bundle hash and preprocessing version: the same image gives the same id.
    pub report_id: String,
    /// The box's name.
    pub device: String,
    /// Counts the reports of this box, from 1; 0 for reports that never enter the outbox.
    pub sequence: u64,
    /// When the image reached the box, RFC 3339, UTC.
    pub received_at: String,
    /// Whether `received_at` can be trusted.
    pub clock: Clock,
    /// Where the image came from: pseudonyms only.
    pub origin: Origin,
    /// Which model judged.
    pub model: ModelIdentity,
    /// Which classifier ran it, e.g. `onnx`.
    pub backend: String,
    /// The four labels with their probabilities, in the order of [`Label::ALL`].
    pub findings: [Finding; 4],
    /// The outcome.
    pub decision: Decision,
    /// The evidence map, where the configuration asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_map: Option<EvidenceMap>,
    /// How long it took.
    pub timing_ms: Timing,
    /// Always [`NOTICE`].
    pub notice: String,
}

/// A report on its way from the outbox to a sink: the JSON as it lies on the disk, so that nobody reads and writes it anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The report's sequence.
    pub sequence: u64,
    /// The report's id.
    pub report_id: String,
    /// The whole [`Report`].
    pub json: String,
}

impl Message {
    /// The message of one report.
    pub fn of(report: &Report) -> Result<Self, serde_json::Error> {
        let json = serde_json::to_string(report)?;
        Ok(Self { sequence: report.sequence, report_id: report.report_id.clone(), json })
    }

    /// The report, for sinks that send something else than its JSON.
    pub fn report(&self) -> Result<Report, serde_json::Error> {
        serde_json::from_str(&self.json)
    }
}

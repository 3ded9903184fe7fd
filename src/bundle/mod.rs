//! The model bundle: a directory with manifest, network, golden vectors and the model's own report.
//! Opening one checks every hash before anything is parsed. Not signatures yet, and not the classifier.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The schema name of `bundle.toml`.
pub const SCHEMA: &str = "roentgen.bundle/1";

/// `bundle.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The model's name, e.g. `cxr-vgg16`.
    pub name: String,
    /// The model's version, e.g. `1.0.0`.
    pub version: String,
    /// The class names, in the order of the evidence map's channels; must be those of [`crate::report::Label::ALL`].
    pub labels: Vec<String>,
    /// What the network reads.
    pub input: Input,
    /// What the network writes.
    pub outputs: Outputs,
    /// How logits become probabilities.
    pub calibration: Calibration,
    /// When the box abstains.
    pub thresholds: Thresholds,
    /// Where the weights come from, in words, one line a step.
    pub provenance: BTreeMap<String, String>,
    /// SHA-256 (hex) of every other file of the bundle, by its path inside the bundle with `/`.
    pub files: BTreeMap<String, String>,
}

/// The input contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// The ONNX input's name.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Version of the preprocessing it was trained with, e.g. `preprocess/1`.
    pub preprocessing: String,
}

/// The two outputs, both u8.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// The evidence map: 4 class logits a cell.
    pub evidence: Output,
    /// The last feature map.
    pub features: Output,
}

/// One quantized output: real value = scale × (q − zero_point).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The ONNX output's name.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Channels.
    pub channels: usize,
    /// Real size of one step.
    pub scale: f32,
    /// The integer that stands for 0.0.
    pub zero_point: u8,
}

/// Temperature scaling (Guo et al. 2017): probabilities = softmax(logits / temperature).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Greater than 0; fitted on the validation split.
    pub temperature: f32,
}

/// The thresholds of abstention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Below this probability of the best label the box abstains with `low_confidence`.
    pub min_probability: f32,
}

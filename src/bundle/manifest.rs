//! `bundle.toml`: the manifest's types and what it must say. Not the files it lists: see [`super::Bundle`].

use crate::network::int8::Network;
use crate::network::onnx;
use crate::network::outline::Outline;
use crate::preprocess;
use crate::quant::QuantParams;
use crate::report::Label;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The schema name of `bundle.toml`.
pub const SCHEMA: &str = "roentgen.bundle/1";

/// The schema name of the gates.
pub const GATES_SCHEMA: &str = "roentgen.gates/1";

/// The largest row, column or channel count that a manifest may name.
const MAX_EXTENT: usize = 4096;

/// The largest scale of an output: any real number it stands for is then finite.
const MAX_SCALE: f32 = 1e30;

/// `bundle.toml`.
///
/// A key that is not known here is refused, in every section: it may be a mistyped one, and what a box does not know it
/// would not apply, be it a gate or a calibration. Whatever is for people to read has its place in `provenance`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// What an image must look like to be judged; absent in bundles that were made before there were gates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<GateLimits>,
    /// Where the weights come from, in words, one line a step.
    pub provenance: BTreeMap<String, String>,
    /// SHA-256 (hex) of every other file of the bundle, by its path inside the bundle with `/`.
    pub files: BTreeMap<String, String>,
}

/// The input contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
pub struct Outputs {
    /// The evidence map: 4 class logits a cell.
    pub evidence: Output,
    /// The last feature map.
    pub features: Output,
}

/// One quantized output: real value = scale × (q − zero_point).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Greater than 0; fitted on the validation split.
    pub temperature: f32,
}

/// The thresholds of abstention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Below this probability of the best label the box abstains with `low_confidence`.
    pub min_probability: f32,
}

/// Where the gates of abstention close: numbers fitted with them by `roentgen-host`.
///
/// The distances are squared Mahalanobis distances divided by their dimensions: 1 on average over training images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateLimits {
    /// Always [`GATES_SCHEMA`].
    pub schema: String,
    /// The file of the bundle that holds what was fitted: safetensors.
    pub file: String,
    /// The share of validation images that each of the gates may turn away wrongly, 0..=1.
    pub false_abstention: f32,
    /// Least probability that the radiograph is upright, complete and not inverted, 0..=1.
    pub min_upright: f32,
    /// Greatest distance of its light and dark regions from those of training images: `unusual_appearance`.
    pub max_pixels: f32,
    /// Greatest distance of its edges from theirs: `unusual_appearance`.
    pub max_gradients: f32,
    /// Greatest distance of its pooled features from the nearest class's: `out_of_distribution`.
    pub max_features: f32,
    /// Greatest energy of its logits: `out_of_distribution`.
    pub max_energy: f32,
}

impl GateLimits {
    /// What is wrong with the values, in words, if anything is.
    fn check(&self) -> Result<(), String> {
        if self.schema != GATES_SCHEMA {
            return Err(format!("gates.schema is {:?}, this program reads {GATES_SCHEMA:?}", self.schema));
        }
        let (shares, all) = ([self.false_abstention, self.min_upright], 0.0..=1.0);
        if !shares.iter().all(|share| all.contains(share)) {
            return Err(format!("gates.false_abstention and gates.min_upright are {shares:?}; they must be 0 to 1"));
        }
        let distances = [self.max_pixels, self.max_gradients, self.max_features];
        if !distances.iter().all(|distance| distance.is_finite() && *distance > 0.0) || !self.max_energy.is_finite() {
            return Err(format!("gates.max_* are {distances:?} and {}; they must be numbers", self.max_energy));
        }
        Ok(())
    }
}

impl Manifest {
    /// A manifest for `network`, without files yet: [`super::BundleWriter`] lists them.
    pub fn for_network(name: &str, version: &str, network: &Network) -> Self {
        let head = &network.head;
        let (input, outputs) = contract(
            network.input_size,
            network.map_size(),
            [(head.out_channels, head.output), (head.in_channels, head.input)],
        );
        Self {
            schema: SCHEMA.into(),
            name: name.into(),
            version: version.into(),
            labels: Label::ALL.iter().map(|label| label.name().to_owned()).collect(),
            input,
            outputs,
            calibration: Calibration { temperature: 1.0 },
            thresholds: Thresholds { min_probability: 0.0 },
            gates: None,
            provenance: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }

    /// Whether it says what this program can act on; otherwise what is wrong, and with which field.
    pub fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA {
            return Err(format!("schema is {:?}, this program reads {SCHEMA:?}", self.schema));
        }
        if self.name.is_empty() || self.version.is_empty() {
            return Err("name and version must not be empty".into());
        }
        let labels = Label::ALL.map(Label::name);
        if self.labels != labels {
            return Err(format!("labels are {:?}, they must be {labels:?} in this order", self.labels));
        }
        if self.input.preprocessing != preprocess::VERSION {
            let (found, known) = (&self.input.preprocessing, preprocess::VERSION);
            return Err(format!("input.preprocessing is {found:?}, this program has {known:?}"));
        }
        let extents = 1..=MAX_EXTENT;
        if !extents.contains(&self.input.rows) || self.input.rows != self.input.columns {
            let (rows, columns) = (self.input.rows, self.input.columns);
            return Err(format!("input is {rows} × {columns}; it must be square, of 1 to {MAX_EXTENT} rows"));
        }
        for (name, output) in [("evidence", &self.outputs.evidence), ("features", &self.outputs.features)] {
            if [output.rows, output.columns, output.channels].iter().any(|extent| !extents.contains(extent)) {
                return Err(format!("outputs.{name} has an extent beyond 1 to {MAX_EXTENT}"));
            }
            if !(output.scale > 0.0 && output.scale <= MAX_SCALE) {
                return Err(format!("outputs.{name}.scale is {}; it must be above 0 and sane", output.scale));
            }
        }
        if self.outputs.evidence.channels != labels.len() {
            return Err(format!("outputs.evidence.channels is {}, not 4", self.outputs.evidence.channels));
        }
        let temperature = self.calibration.temperature;
        if !temperature.is_finite() || temperature <= 0.0 {
            return Err(format!("calibration.temperature is {temperature}; it must be above 0"));
        }
        let threshold = self.thresholds.min_probability;
        if !(0.0..=1.0).contains(&threshold) {
            return Err(format!("thresholds.min_probability is {threshold}; it must be 0 to 1"));
        }
        self.gates.as_ref().map_or(Ok(()), GateLimits::check)
    }

    /// Whether the network is the one that the manifest describes; otherwise what differs.
    pub fn check_network(&self, network: &Network) -> Result<(), String> {
        let said = Self { labels: Vec::new(), ..Self::for_network("", "", network) };
        self.check_contract(said.input, said.outputs)
    }

    /// The same of a network's outline.
    pub fn check_outline(&self, outline: &Outline) -> Result<(), String> {
        let head = outline.head();
        let channels = [(head.out_channels, head.output), (head.in_channels, head.input)];
        let (input, outputs) = contract(outline.input_size(), outline.map_size(), channels);
        self.check_contract(input, outputs)
    }

    fn check_contract(&self, input: Input, outputs: Outputs) -> Result<(), String> {
        match (self.input == input, self.outputs == outputs) {
            (true, true) => Ok(()),
            (false, _) => Err(format!("the manifest says {:?}, the network has {input:?}", self.input)),
            (_, false) => Err(format!("the manifest says {:?}, the network has {outputs:?}", self.outputs)),
        }
    }
}

/// What a network reads and writes, given its input's rows, its maps' rows, and of evidence and features how many channels
/// they have and how they are quantized.
fn contract(size: usize, map: usize, [evidence, features]: [(usize, QuantParams); 2]) -> (Input, Outputs) {
    let preprocessing = preprocess::VERSION.into();
    let input = Input { name: onnx::INPUT.into(), rows: size, columns: size, preprocessing };
    let output = |name: &str, (channels, QuantParams { scale, zero_point })| Output {
        name: name.into(),
        rows: map,
        columns: map,
        channels,
        scale,
        zero_point,
    };
    (input, Outputs { evidence: output(onnx::EVIDENCE, evidence), features: output(onnx::FEATURES, features) })
}

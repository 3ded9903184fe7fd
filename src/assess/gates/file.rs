//! `gates.safetensors`: the fitted numbers as a file of the bundle, in an open format. Everything in it is checked before
//! it is used. Not the limits, which a person may want to read: those stand in the manifest.
//!
//! Tensors, all f32: `pixels.*`, `gradients.*` and `features.*` with `mean` (means × dimensions), `components` (components
//! × dimensions), `variances` (components) and `residual` (1); `pose.weights` (6 × 512) and `pose.bias` (6).

use super::{Gates, Pose, PoseClassifier, Subspace};
use crate::assess::view::{GRADIENTS, PIXELS};
use crate::bundle::GateLimits;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// The largest file that is parsed, in bytes; a full-size one has about 300 kB.
const MAX_BYTES: usize = 16 << 20;

/// The names of the three subspaces in the file.
const PARTS: [&str; 3] = ["pixels", "gradients", "features"];

impl Gates {
    /// Reads the file; `channels` is how many features the network has. The error says what does not fit.
    pub fn decode(bytes: &[u8], limits: GateLimits, channels: usize) -> Result<Self, String> {
        if bytes.len() > MAX_BYTES {
            return Err(format!("longer than {MAX_BYTES} bytes"));
        }
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let [pixels, gradients, features] = PARTS.map(|name| subspace(&file, name));
        let gates = Self {
            pixels: pixels?,
            gradients: gradients?,
            features: features?,
            pose: PoseClassifier::new(numbers(&file, "pose.weights")?, numbers(&file, "pose.bias")?)
                .map_err(|reason| format!("pose: {reason}"))?,
            limits,
        };
        let expected = [PIXELS, GRADIENTS, channels];
        let found = [&gates.pixels, &gates.gradients, &gates.features].map(Subspace::dimensions);
        if found != expected {
            return Err(format!("{found:?} dimensions where {expected:?} are needed"));
        }
        Ok(gates)
    }

    /// The file's bytes. Fails only where a tensor cannot be described.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for (name, space) in PARTS.iter().zip([&self.pixels, &self.gradients, &self.features]) {
            let dimensions = space.dimensions();
            let (means, components, variances, residual) = space.parts();
            let mut add = |part: &str, shape: Vec<usize>, values: &[f32]| {
                tensors.push((format!("{name}.{part}"), shape, bytes(values)));
            };
            add("mean", vec![means.len() / dimensions, dimensions], means);
            add("components", vec![variances.len(), dimensions], components);
            add("variances", vec![variances.len()], variances);
            add("residual", vec![1], &[residual]);
        }
        let (weights, bias) = self.pose.parts();
        tensors.push(("pose.weights".into(), vec![Pose::ALL.len(), GRADIENTS], bytes(weights)));
        tensors.push(("pose.bias".into(), vec![bias.len()], bytes(bias)));
        let views: Result<Vec<_>, _> = tensors
            .iter()
            .map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), data)?)))
            .collect();
        views.and_then(|views| safetensors::serialize(views, None)).map_err(|error| error.to_string())
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn numbers(file: &SafeTensors, name: &str) -> Result<Vec<f32>, String> {
    let tensor = file.tensor(name).map_err(|error| format!("{name}: {error}"))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("{name} is {:?}, not f32", tensor.dtype()));
    }
    Ok(tensor.data().as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect())
}

fn subspace(file: &SafeTensors, name: &str) -> Result<Subspace, String> {
    let part = |part: &str| numbers(file, &format!("{name}.{part}"));
    let mean = file.tensor(&format!("{name}.mean")).map_err(|error| format!("{name}.mean: {error}"))?;
    let dimensions = mean.shape().last().copied().unwrap_or(0);
    let [residual] = part("residual")?[..] else { return Err(format!("{name}.residual is not one number")) };
    Subspace::new(dimensions, part("mean")?, part("components")?, part("variances")?, residual)
        .map_err(|reason| format!("{name}: {reason}"))
}

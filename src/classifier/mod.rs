//! What the network says about one image, and the trait of everything that can run it.
//! Not a judgement: [`crate::assess`] calibrates and gates.

pub mod onnx;

use crate::bundle::Manifest;
use crate::tensor::Tensor;

/// Runs the bundle's network.
pub trait Classifier {
    /// The backend's name as it stands in reports: `onnx`, later `native`, `tflite`, `edgetpu`.
    fn name(&self) -> &str;

    /// Runs the network on one preprocessed image of shape 1 × 224 × 224 × 1.
    fn classify(&mut self, image: &Tensor<u8>) -> Result<Evidence, ClassifyError>;
}

/// Why a classifier could not be made or could not run.
#[derive(Debug, thiserror::Error)]
pub enum ClassifyError {
    /// The backend refused the model or failed while running it.
    #[error("backend {backend}: {message}")]
    Backend {
        /// Which backend.
        backend: &'static str,
        /// What it said.
        message: String,
    },
    /// The image or an output has another shape than the bundle's contract says.
    #[error("backend {backend}: {what} has shape {found:?}, the bundle says {expected:?}")]
    Shape {
        /// Which backend.
        backend: &'static str,
        /// Which tensor.
        what: &'static str,
        /// Its shape, NHWC.
        found: [usize; 4],
        /// The contract's shape, NHWC.
        expected: [usize; 4],
    },
}

/// What the network says: the quantized outputs, and the same in real numbers.
///
/// The head is a 1 × 1 convolution on the last feature map followed by the global average, so the map is exact: its mean
/// is the logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The quantized evidence map, 1 × h × w × 4: the integers of the network, the same in every backend.
    pub map_quantized: Tensor<u8>,
    /// The quantized last feature map, 1 × h × w × 512.
    pub features_quantized: Tensor<u8>,
    /// The evidence map in real numbers, 1 × h × w × 4 class logits.
    pub map: Tensor<f32>,
    /// Its mean over h × w: one logit a class, in the order of [`crate::report::Label::ALL`].
    pub logits: [f32; 4],
    /// The last feature map averaged over h × w, in real numbers: 512 values.
    pub features: Vec<f32>,
}

impl Evidence {
    /// Derives the real numbers from the two quantized outputs of the network (NHWC), as the bundle's manifest scales them.
    pub fn from_quantized(map: Tensor<u8>, features: Tensor<u8>, manifest: &Manifest) -> Self {
        let real =
            |q: u8, output: &crate::bundle::Output| (i32::from(q) - i32::from(output.zero_point)) as f32 * output.scale;
        let scaled: Vec<f32> = map.data().iter().map(|&q| real(q, &manifest.outputs.evidence)).collect();
        let logits_mean = channel_means(&map, manifest.outputs.evidence.zero_point);
        let features_mean = channel_means(&features, manifest.outputs.features.zero_point);
        let mut logits = [0.0; 4];
        for (logit, mean) in logits.iter_mut().zip(&logits_mean) {
            *logit = (mean * f64::from(manifest.outputs.evidence.scale)) as f32;
        }
        let pooled =
            features_mean.iter().map(|mean| (mean * f64::from(manifest.outputs.features.scale)) as f32).collect();
        let real_map = Tensor::new(map.shape(), scaled).unwrap_or_else(|| Tensor::filled(map.shape(), 0.0));
        Self { map_quantized: map, features_quantized: features, map: real_map, logits, features: pooled }
    }
}

/// The mean of every channel over rows and columns, zero point taken off: summed as integers, so that it is exact.
fn channel_means(tensor: &Tensor<u8>, zero_point: u8) -> Vec<f64> {
    let [_, rows, columns, channels] = tensor.shape();
    let cells = (rows * columns).max(1);
    let mut sums = vec![0i64; channels];
    for cell in tensor.data().chunks_exact(channels.max(1)) {
        for (sum, &q) in sums.iter_mut().zip(cell) {
            *sum += i64::from(q) - i64::from(zero_point);
        }
    }
    sums.into_iter().map(|sum| sum as f64 / cells as f64).collect()
}

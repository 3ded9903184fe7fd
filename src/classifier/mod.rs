//! What the network says about one image, and the trait of everything that can run it.
//! Not a judgement: [`crate::assess`] calibrates and gates.

pub mod edgetpu;
pub mod loaded;
pub mod native;
#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg(feature = "tflite")]
pub mod tflite;

use crate::bundle::{BundleError, Fallback, Manifest, Output};
use crate::kernels::reference;
use crate::network::plan::PlanError;
use crate::quant::QuantParams;
use crate::tensor::Tensor;

/// Runs the bundle's network.
pub trait Classifier {
    /// The name of the backend that made the last evidence, as it stands in reports: `native`, `onnx`, `tflite`, `edgetpu`
    /// or `delegate`.
    fn name(&self) -> &str;

    /// Runs the network on one preprocessed image of shape 1 × 224 × 224 × 1.
    fn classify(&mut self, image: &Tensor<u8>) -> Result<Evidence, ClassifyError>;

    /// Called every turn of the line, with an image or without: looks after what may have failed or come back. Returns at
    /// once.
    fn tend(&mut self) {}

    /// What runs the network at present, where that can change by itself; `None` where it is what was loaded.
    fn running(&mut self) -> Option<Running> {
        None
    }
}

/// What runs the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The backend's name.
    pub backend: String,
    /// Whose kernels.
    pub kernel: String,
    /// In how many threads.
    pub threads: usize,
    /// Set where that is not the backend that should run it.
    pub fallback: Option<Fallback>,
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

/// Why a backend could not be made for a bundle.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bundle's network cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The backend does not run such networks.
    #[error("backend native: {0}; write backend = \"onnx\" or \"auto\" (in a build with tract)")]
    Refused(PlanError),
    /// The system gave no threads.
    #[error("backend native: cannot make threads: {0}; set engine.threads = 1, or allow this process more")]
    Threads(#[source] std::io::Error),
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] ClassifyError),
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
    /// Fails where their shapes are not the manifest's.
    pub fn from_quantized(map: Tensor<u8>, features: Tensor<u8>, manifest: &Manifest) -> Result<Self, ClassifyError> {
        check_shape("the evidence map", &map, &manifest.outputs.evidence)?;
        check_shape("the feature map", &features, &manifest.outputs.features)?;
        let params = params(&manifest.outputs.evidence);
        let scaled = map.data().iter().map(|&q| params.dequantize(q)).collect();
        let means = channel_means(&map, &manifest.outputs.evidence);
        let (Some(real_map), Ok(logits)) = (Tensor::new(map.shape(), scaled), means.try_into()) else {
            let (found, expected) = (map.shape(), [1, map.shape()[1], map.shape()[2], 4]);
            return Err(ClassifyError::Shape { what: "the evidence map", found, expected, backend: "any" });
        };
        let pooled = channel_means(&features, &manifest.outputs.features);
        Ok(Self { map_quantized: map, features_quantized: features, map: real_map, logits, features: pooled })
    }
}

fn params(output: &Output) -> QuantParams {
    QuantParams { scale: output.scale, zero_point: output.zero_point }
}

fn check_shape(what: &'static str, tensor: &Tensor<u8>, output: &Output) -> Result<(), ClassifyError> {
    let expected = [1, output.rows, output.columns, output.channels];
    if tensor.shape() == expected {
        return Ok(());
    }
    Err(ClassifyError::Shape { backend: "any", what, found: tensor.shape(), expected })
}

/// The mean of every channel over rows and columns, in real numbers: summed as integers, so that only the last step
/// rounds, and every backend that gives the same integers gives the same means.
fn channel_means(tensor: &Tensor<u8>, output: &Output) -> Vec<f32> {
    let cells = (output.rows * output.columns).max(1) as f64;
    let sums = reference::global_sums(tensor, output.zero_point);
    sums.into_iter().map(|sum| (sum as f64 / cells * f64::from(output.scale)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::int8::{Conv, Network};

    fn manifest() -> Manifest {
        let output = QuantParams { scale: 0.25, zero_point: 100 };
        let head = Conv {
            name: "head".into(),
            in_channels: 1,
            out_channels: 4,
            kernel: 1,
            weights: vec![1; 4],
            weight_scales: vec![1.0; 4],
            bias: vec![0; 4],
            input: QuantParams { scale: 2.0, zero_point: 0 },
            output,
        };
        Manifest::for_network("tiny", "1", &Network { input_size: 2, trunk: Vec::new(), head })
    }

    #[test]
    fn the_logits_are_the_mean_of_the_map() {
        let map = vec![100, 104, 96, 100, 100, 104, 96, 100, 100, 104, 96, 0, 108, 104, 97, 255];
        let map = Tensor::new([1, 2, 2, 4], map).expect("2 × 2 × 4");
        let features = Tensor::new([1, 2, 2, 1], vec![0, 1, 2, 4]).expect("2 × 2 × 1");
        let evidence = Evidence::from_quantized(map, features, &manifest()).expect("the manifest's shapes");
        assert_eq!(evidence.map.data()[..4], [0.0, 1.0, -1.0, 0.0]);
        assert_eq!(evidence.logits, [0.5, 1.0, -0.9375, 3.4375]);
        assert_eq!(evidence.features, [3.5]);
    }

    #[test]
    fn outputs_of_another_shape_are_refused() {
        let map = || Tensor::filled([1, 2, 2, 4], 0);
        let refused = |map, features| Evidence::from_quantized(map, features, &manifest()).is_err();
        assert!(!refused(map(), Tensor::filled([1, 2, 2, 1], 0)));
        assert!(refused(map(), Tensor::filled([1, 1, 4, 1], 0)));
        assert!(refused(Tensor::filled([1, 2, 2, 5], 0), Tensor::filled([1, 2, 2, 1], 0)));
    }
}

//! A backend that was loaded: which of them it is was decided when it was. Not that decision: it is made where the
//! configuration is known.

use super::native::{self, NativeClassifier};
#[cfg(feature = "onnx")]
use super::onnx::OnnxClassifier;
use super::{Classifier, ClassifyError, Evidence, LoadError};
use crate::bundle::Bundle;
use crate::tensor::Tensor;
use std::path::Path;

/// One of the backends with the bundle's network.
pub enum Loaded {
    /// This project's own engine.
    Native(Box<NativeClassifier>),
    /// tract.
    #[cfg(feature = "onnx")]
    Onnx(Box<OnnxClassifier>),
}

impl Loaded {
    /// The fastest that takes the network: the engine, and tract where the engine refuses and this build has it. Packed weights are kept
    /// in the folder `cache`.
    pub fn fastest(bundle: &Bundle, engine: &native::Config, cache: Option<&Path>) -> Result<Self, LoadError> {
        match NativeClassifier::load(bundle, engine, cache) {
            #[cfg(feature = "onnx")]
            Err(LoadError::Refused(reason)) => {
                log::warn!("backend native refuses the network: {reason}; taking onnx instead, which is slower");
                OnnxClassifier::load(bundle).map(|onnx| Self::Onnx(Box::new(onnx)))
            }
            loaded => loaded.map(|loaded| Self::Native(Box::new(loaded))),
        }
    }

    /// Runs the network on one image of shape 1 × rows × columns × 1: the quantized evidence map and features, NHWC.
    /// What [`Bundle::self_test`] wants.
    pub fn run(&mut self, image: &Tensor<u8>) -> Result<(Tensor<u8>, Tensor<u8>), ClassifyError> {
        match self {
            Self::Native(native) => native.run(image),
            #[cfg(feature = "onnx")]
            Self::Onnx(onnx) => onnx.run(image),
        }
    }

    /// Whether its weights came from a file that an earlier start had packed; if so that file is removed.
    pub fn forget_packed(&mut self) -> bool {
        match self {
            Self::Native(native) => native.forget_packed(),
            #[cfg(feature = "onnx")]
            Self::Onnx(_) => false,
        }
    }

    /// Whose kernels run it.
    pub fn kernel(&mut self) -> &'static str {
        match self {
            Self::Native(native) => native.engine().plan().options.kernels.name,
            #[cfg(feature = "onnx")]
            Self::Onnx(_) => "tract",
        }
    }

    /// In how many threads it runs.
    pub fn threads(&mut self) -> usize {
        match self {
            Self::Native(native) => native.engine().plan().options.threads,
            #[cfg(feature = "onnx")]
            Self::Onnx(_) => OnnxClassifier::THREADS,
        }
    }
}

impl Classifier for Loaded {
    fn name(&self) -> &str {
        match self {
            Self::Native(native) => native.name(),
            #[cfg(feature = "onnx")]
            Self::Onnx(onnx) => onnx.name(),
        }
    }

    fn classify(&mut self, image: &Tensor<u8>) -> Result<Evidence, ClassifyError> {
        match self {
            Self::Native(native) => native.classify(image),
            #[cfg(feature = "onnx")]
            Self::Onnx(onnx) => onnx.classify(image),
        }
    }
}

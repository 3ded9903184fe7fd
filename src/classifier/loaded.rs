//! A backend that was loaded: which of them it is was decided when it was. Not that decision: it is made where the
//! configuration is known.

#[cfg(feature = "edgetpu")]
use super::edgetpu::Guarded;
use super::native::{self, NativeClassifier};
#[cfg(feature = "onnx")]
use super::onnx::OnnxClassifier;
#[cfg(feature = "tflite")]
use super::tflite::{self, TfliteClassifier};
use super::{Classifier, ClassifyError, Evidence, LoadError, Running};
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
    /// TensorFlow Lite.
    #[cfg(feature = "tflite")]
    Tflite(Box<TfliteClassifier>),
    /// An accelerator, and one of the others beside it.
    #[cfg(feature = "edgetpu")]
    Guarded(Box<Guarded>),
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
    /// What [`Bundle::self_test`] wants. Of an accelerator the backend beside it: its own golden vectors it runs at every start.
    pub fn run(&mut self, image: &Tensor<u8>) -> Result<(Tensor<u8>, Tensor<u8>), ClassifyError> {
        match self {
            Self::Native(native) => native.run(image),
            #[cfg(feature = "onnx")]
            Self::Onnx(onnx) => onnx.run(image),
            #[cfg(feature = "tflite")]
            Self::Tflite(tflite) => tflite.run(image),
            #[cfg(feature = "edgetpu")]
            Self::Guarded(guarded) => guarded.cpu().run(image),
        }
    }

    /// How many quantization steps its golden outputs may be off: none, but for libraries that round in their own way.
    pub fn tolerance(&mut self) -> u8 {
        match self {
            #[cfg(feature = "tflite")]
            Self::Tflite(_) => TfliteClassifier::TOLERANCE,
            #[cfg(feature = "edgetpu")]
            Self::Guarded(guarded) => guarded.cpu().tolerance(),
            _ => 0,
        }
    }

    /// Whether its weights came from a file that an earlier start had packed; if so that file is removed.
    pub fn forget_packed(&mut self) -> bool {
        match self {
            Self::Native(native) => native.forget_packed(),
            #[cfg(feature = "edgetpu")]
            Self::Guarded(guarded) => guarded.cpu().forget_packed(),
            #[allow(unreachable_patterns, reason = "not every build has others")]
            _ => false,
        }
    }

    /// The backend's name: of an accelerator with a backend beside it the one that made the last evidence.
    pub fn backend(&self) -> &'static str {
        match self {
            Self::Native(_) => "native",
            #[cfg(feature = "onnx")]
            Self::Onnx(_) => "onnx",
            #[cfg(feature = "tflite")]
            Self::Tflite(_) => "tflite",
            #[cfg(feature = "edgetpu")]
            Self::Guarded(guarded) => guarded.made_by(),
        }
    }

    /// Whether it drives an accelerator.
    pub fn is_guarded(&self) -> bool {
        match self {
            #[cfg(feature = "edgetpu")]
            Self::Guarded(_) => true,
            #[allow(unreachable_patterns, reason = "not every build has others")]
            _ => false,
        }
    }

    /// Whose kernels run it.
    pub fn kernel(&mut self) -> String {
        match self {
            Self::Native(native) => native.engine().plan().options.kernels.name.into(),
            #[cfg(feature = "onnx")]
            Self::Onnx(_) => "tract".into(),
            #[cfg(feature = "tflite")]
            Self::Tflite(_) => tflite::kernel(),
            #[cfg(feature = "edgetpu")]
            Self::Guarded(guarded) => guarded.now().kernel,
        }
    }

    /// In how many threads it runs.
    pub fn threads(&mut self) -> usize {
        match self {
            Self::Native(native) => native.engine().plan().options.threads,
            #[cfg(feature = "onnx")]
            Self::Onnx(_) => OnnxClassifier::THREADS,
            #[cfg(feature = "tflite")]
            Self::Tflite(tflite) => tflite.threads(),
            #[cfg(feature = "edgetpu")]
            Self::Guarded(guarded) => guarded.now().threads,
        }
    }
}

impl Classifier for Loaded {
    fn name(&self) -> &str {
        self.backend()
    }

    fn classify(&mut self, image: &Tensor<u8>) -> Result<Evidence, ClassifyError> {
        match self {
            Self::Native(native) => native.classify(image),
            #[cfg(feature = "onnx")]
            Self::Onnx(onnx) => onnx.classify(image),
            #[cfg(feature = "tflite")]
            Self::Tflite(tflite) => tflite.classify(image),
            #[cfg(feature = "edgetpu")]
            Self::Guarded(guarded) => guarded.classify(image),
        }
    }

    fn tend(&mut self) {
        #[cfg(feature = "edgetpu")]
        if let Self::Guarded(guarded) = self {
            guarded.tend();
        }
    }

    fn running(&mut self) -> Option<Running> {
        match self {
            #[cfg(feature = "edgetpu")]
            Self::Guarded(guarded) => guarded.running(),
            #[allow(unreachable_patterns, reason = "not every build has others")]
            _ => None,
        }
    }
}

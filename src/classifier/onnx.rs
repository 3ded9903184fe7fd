//! The `onnx` backend: runs the bundle's `model.onnx` on tract, in one thread. Not the reader of the file format: the file
//! has been read and checked by [`crate::network::onnx`] before tract sees it.
//!
//! tract's `QLinearConv` gives exactly the integers of [`Network::forward`](crate::network::int8::Network::forward) and of
//! ONNX Runtime: `tests/onnx_witness.rs` compares all three.
//!
//! One thread, because tract 0.23 gains nothing from more on this network: on two cores its quantized convolutions took
//! 484 ms with two threads and 458 ms with one, the time being in passes that it does not spread.

use super::{Classifier, ClassifyError, Evidence, LoadError};
use crate::bundle::{Bundle, Manifest, Output};
use crate::tensor::Tensor;
use std::sync::Arc;
use std::time::Instant;
use tract_onnx::prelude::{
    DatumExt, Framework, InferenceModelExt, IntoRunnable, IntoTValue, TValue, Tensor as TractTensor, TractResult,
    TypedRunnableModel, tvec,
};

/// The backend's name.
const NAME: &str = "onnx";

/// The bundle's network on tract.
pub struct OnnxClassifier {
    plan: Arc<TypedRunnableModel>,
    manifest: Manifest,
}

impl OnnxClassifier {
    /// How many threads it runs in.
    pub const THREADS: usize = 1;

    /// Loads the bundle's `model.onnx`, which must be the network that the manifest describes.
    pub fn load(bundle: &Bundle) -> Result<Self, LoadError> {
        let start = Instant::now();
        // Read by our own strict reader first: what it takes is a plain chain of known layers, bounded in every extent.
        let bytes = bundle.model_onnx()?;
        bundle.parse_model(&bytes)?;
        let manifest = bundle.manifest().clone();
        let plan = plan(&bytes, manifest.input.rows).map_err(backend_error)?;
        log::info!(
            "backend {NAME}: {} {} loaded in {:.0} ms, {} thread",
            manifest.name,
            manifest.version,
            start.elapsed().as_secs_f64() * 1e3,
            Self::THREADS
        );
        Ok(Self { plan, manifest })
    }

    /// Runs the network on one image of shape 1 × rows × columns × 1: the quantized evidence map and features, NHWC.
    /// What [`Bundle::self_test`] wants.
    pub fn run(&self, image: &Tensor<u8>) -> Result<(Tensor<u8>, Tensor<u8>), ClassifyError> {
        let (rows, columns) = (self.manifest.input.rows, self.manifest.input.columns);
        let expected = [1, rows, columns, 1];
        if image.shape() != expected {
            let found = image.shape();
            return Err(ClassifyError::Shape { backend: NAME, what: "the image", found, expected });
        }
        let start = Instant::now();
        // One channel: NHWC and NCHW are the same bytes.
        let input = TractTensor::from_shape(&[1, 1, rows, columns], image.data()).map_err(backend_error)?;
        let outputs = self.plan.run(tvec!(input.into_tvalue())).map_err(backend_error)?;
        log::debug!("backend {NAME}: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
        let [evidence, features] = &outputs[..] else {
            return Err(backend_error(format!("{} outputs instead of two", outputs.len())));
        };
        let evidence = to_nhwc(evidence, "the evidence map", &self.manifest.outputs.evidence)?;
        let features = to_nhwc(features, "the feature map", &self.manifest.outputs.features)?;
        Ok((evidence, features))
    }
}

impl Classifier for OnnxClassifier {
    fn name(&self) -> &str {
        NAME
    }

    fn classify(&mut self, image: &Tensor<u8>) -> Result<Evidence, ClassifyError> {
        let (evidence, features) = self.run(image)?;
        Evidence::from_quantized(evidence, features, &self.manifest)
    }
}

/// tract's plan for the file, its input fixed to one image.
fn plan(bytes: &[u8], size: usize) -> TractResult<Arc<TypedRunnableModel>> {
    tract_onnx::onnx()
        .model_for_read(&mut &bytes[..])?
        .with_input_fact(0, u8::fact([1, 1, size, size]).into())?
        .into_optimized()?
        .into_runnable()
}

/// An output of tract (NCHW) as a tensor of the shape that the manifest says (NHWC).
fn to_nhwc(value: &TValue, what: &'static str, output: &Output) -> Result<Tensor<u8>, ClassifyError> {
    let expected = [1, output.rows, output.columns, output.channels];
    let nchw = [1, output.channels, output.rows, output.columns];
    if value.shape() != nchw {
        let mut found = [0; 4];
        found.iter_mut().zip(value.shape()).for_each(|(found, extent)| *found = *extent);
        return Err(ClassifyError::Shape { backend: NAME, what, found, expected });
    }
    let plain = value.try_as_plain_ram().map_err(backend_error)?;
    let data = plain.as_slice::<u8>().map_err(backend_error)?;
    let cells = output.rows * output.columns;
    let mut nhwc = Vec::with_capacity(data.len());
    for cell in 0..cells {
        nhwc.extend((0..output.channels).map(|channel| data[channel * cells + cell]));
    }
    Tensor::new(expected, nhwc).ok_or_else(|| backend_error(format!("{what} has the wrong length")))
}

fn backend_error(message: impl std::fmt::Display) -> ClassifyError {
    // `{:#}` writes tract's whole chain of causes on one line.
    ClassifyError::Backend { backend: NAME, message: format!("{message:#}") }
}

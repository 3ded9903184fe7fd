//! The `tflite` backend: the bundle's `model.tflite` on TensorFlow Lite with XNNPACK, on the processor. The library is
//! linked: a build with the feature `tflite` needs it and its headers (`cross/tflite`), and starts only where it is.
//! Not delegates of others: those are [`super::edgetpu`]'s.
//!
//! XNNPACK requantizes as ONNX Runtime does, so that its integers are the engine's; TFLite's own kernels, which it would
//! fall back to for layers that XNNPACK refuses, may be a step off where a sum falls between two. Hence the tolerance.
//!
//! The interpreter borrows the model, and the model its bytes: all three live on one thread, which is asked over a channel.

use super::{Classifier, ClassifyError, Evidence, LoadError};
use crate::bundle::{Bundle, Manifest, Output, TFLITE_FILE};
use crate::tensor::Tensor;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;
use tflitec::interpreter::{Interpreter, Options};
use tflitec::model::Model;
use tflitec::tensor::{DataType, Tensor as TfLiteTensor};

/// The backend's name.
const NAME: &str = "tflite";

/// Evidence map and features, or why there are none.
type Outputs = Result<(Vec<u8>, Vec<u8>), String>;

/// The bundle's network on TFLite.
pub struct TfliteClassifier {
    manifest: Manifest,
    threads: usize,
    ask: Option<SyncSender<Vec<u8>>>,
    answers: Receiver<Outputs>,
    thread: Option<JoinHandle<()>>,
}

impl TfliteClassifier {
    /// How many quantization steps golden outputs may be off.
    pub const TOLERANCE: u8 = 1;

    /// Loads the bundle's `model.tflite`, which must have the inputs and outputs that the manifest describes.
    pub fn load(bundle: &Bundle, threads: usize) -> Result<Self, LoadError> {
        let start = Instant::now();
        let manifest = bundle.manifest().clone();
        if !manifest.files.contains_key(TFLITE_FILE) {
            return Err(
                backend_error(format!("the bundle has no {TFLITE_FILE}; make it again with roentgen-host")).into()
            );
        }
        let bytes = bundle.read(TFLITE_FILE)?;
        let (ask, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let described = manifest.clone();
        let thread = std::thread::Builder::new()
            .name(NAME.into())
            .spawn(move || work(&bytes, &described, threads, &asked, &answer))
            .map_err(LoadError::Threads)?;
        let loaded = Self { manifest, threads, ask: Some(ask), answers, thread: Some(thread) };
        // The first answer is that the model is there.
        loaded.hear()?;
        log::info!(
            "backend {NAME}: {} {} loaded in {:.0} ms, {}, {threads} threads",
            loaded.manifest.name,
            loaded.manifest.version,
            start.elapsed().as_secs_f64() * 1e3,
            kernel()
        );
        Ok(loaded)
    }

    /// Runs the network on one image of shape 1 × rows × columns × 1: the quantized evidence map and features, NHWC.
    pub fn run(&mut self, image: &Tensor<u8>) -> Result<(Tensor<u8>, Tensor<u8>), ClassifyError> {
        let expected = [1, self.manifest.input.rows, self.manifest.input.columns, 1];
        if image.shape() != expected {
            let found = image.shape();
            return Err(ClassifyError::Shape { backend: NAME, what: "the image", found, expected });
        }
        let signed = image.data().iter().map(|grey| grey ^ 0x80).collect();
        if self.ask.as_ref().is_none_or(|ask| ask.send(signed).is_err()) {
            return Err(ended());
        }
        let (evidence, features) = self.hear()?;
        let tensor = |bytes: Vec<u8>, output: &Output, what| {
            let shape = [1, output.rows, output.columns, output.channels];
            let unsigned = bytes.into_iter().map(|q| q ^ 0x80).collect();
            Tensor::new(shape, unsigned).ok_or_else(|| backend_error(format!("{what} has the wrong length")))
        };
        let outputs = &self.manifest.outputs;
        Ok((
            tensor(evidence, &outputs.evidence, "the evidence map")?,
            tensor(features, &outputs.features, "the feature map")?,
        ))
    }

    /// In how many threads it runs.
    pub fn threads(&self) -> usize {
        self.threads
    }

    fn hear(&self) -> Result<(Vec<u8>, Vec<u8>), ClassifyError> {
        self.answers.recv().map_err(|_| ended())?.map_err(backend_error)
    }
}

impl Drop for TfliteClassifier {
    fn drop(&mut self) {
        // Hanging up ends the thread.
        drop(self.ask.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl Classifier for TfliteClassifier {
    fn name(&self) -> &str {
        NAME
    }

    fn classify(&mut self, image: &Tensor<u8>) -> Result<Evidence, ClassifyError> {
        let (evidence, features) = self.run(image)?;
        Evidence::from_quantized(evidence, features, &self.manifest)
    }
}

/// Whose kernels run it.
pub fn kernel() -> String {
    format!("XNNPACK, TFLite {}", tflitec::tf_lite_version())
}

/// The thread: loads, says so, and answers images until it is hung up on.
fn work(bytes: &[u8], manifest: &Manifest, threads: usize, asked: &Receiver<Vec<u8>>, answer: &SyncSender<Outputs>) {
    // Fails only where nobody listens any more.
    let failed = |reason: String| drop(answer.send(Err(reason)));
    let model = match Model::from_bytes(bytes) {
        Ok(model) => model,
        Err(error) => return failed(format!("{TFLITE_FILE}: {error}")),
    };
    let thread_count = i32::try_from(threads).unwrap_or(1);
    let options = Options { thread_count, is_xnnpack_enabled: true };
    let prepared = Interpreter::new(&model, Some(options)).map_err(|error| error.to_string()).and_then(|interpreter| {
        interpreter.allocate_tensors().map_err(|error| error.to_string())?;
        let numbers = find_tensors(&interpreter, manifest)?;
        Ok((interpreter, numbers))
    });
    let (interpreter, numbers) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => return failed(format!("{TFLITE_FILE}: {reason}")),
    };
    let mut outputs = Ok((Vec::new(), Vec::new()));
    while answer.send(outputs).is_ok() {
        let Ok(image) = asked.recv() else { return };
        outputs = infer(&interpreter, &image, numbers).map_err(|error| error.to_string());
    }
}

fn infer(interpreter: &Interpreter, image: &[u8], numbers: [usize; 2]) -> tflitec::Result<(Vec<u8>, Vec<u8>)> {
    interpreter.copy(image, 0)?;
    interpreter.invoke()?;
    let [evidence, features] =
        numbers.map(|number| interpreter.output(number).map(|tensor| tensor.data::<u8>().to_vec()));
    Ok((evidence?, features?))
}

/// The numbers of evidence map and features among the outputs; or what the model has that the bundle has not.
fn find_tensors(interpreter: &Interpreter, manifest: &Manifest) -> Result<[usize; 2], String> {
    let (inputs, outputs) = (interpreter.input_tensor_count(), interpreter.output_tensor_count());
    if (inputs, outputs) != (1, 2) {
        return Err(format!("{inputs} inputs and {outputs} outputs instead of 1 and 2"));
    }
    let input = interpreter.input(0).map_err(|error| error.to_string())?;
    if !is_int8(&input, [1, manifest.input.rows, manifest.input.columns, 1]) {
        return Err("its input is not the bundle's".into());
    }
    let is_output = |number: usize, output: &Output| {
        let Ok(tensor) = interpreter.output(number) else { return false };
        let scaled = tensor.quantization_parameters().is_some_and(|found| {
            found.zero_point == i32::from(output.zero_point) - 128
                && (found.scale - output.scale).abs() <= output.scale * 1e-6
        });
        scaled && is_int8(&tensor, [1, output.rows, output.columns, output.channels])
    };
    // Where both have one shape they come in this order, as roentgen-host writes them.
    let (evidence, features) = (&manifest.outputs.evidence, &manifest.outputs.features);
    let orders = [[0, 1], [1, 0]];
    let order = orders.into_iter().find(|[first, second]| is_output(*first, evidence) && is_output(*second, features));
    order.ok_or_else(|| "its outputs are not the bundle's".into())
}

fn is_int8(tensor: &TfLiteTensor, shape: [usize; 4]) -> bool {
    tensor.data_type() == DataType::Int8 && tensor.shape().dimensions()[..] == shape
}

fn ended() -> ClassifyError {
    backend_error("its thread ended; this is a defect of the program")
}

fn backend_error(message: impl std::fmt::Display) -> ClassifyError {
    ClassifyError::Backend { backend: NAME, message: message.to_string() }
}

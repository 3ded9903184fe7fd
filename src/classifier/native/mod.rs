//! The `native` backend: the bundle's network on this project's own integer kernels, [`crate::network::engine`]. Not the
//! engine itself: here are its configuration and what it is loaded from.

mod kept;

use super::{Classifier, ClassifyError, Evidence, LoadError};
use crate::bundle::{Bundle, BundleError, MODEL_FILE, Manifest};
use crate::kernels::{self, Kernels};
use crate::network::engine::{Engine, EngineError};
use crate::network::int8::Layer;
use crate::network::plan::{Family, Memory, Options, Plan};
use crate::network::weights::Weights;
use crate::tensor::Tensor;
use crate::workers::MAX_THREADS;
use kept::Kept;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// The backend's name.
const NAME: &str = "native";

/// The kernel's name that leaves the choice to the program.
const AUTO: &str = "auto";

/// The `[engine]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How much memory the program may take for the sake of speed.
    pub memory: Memory,
    /// How many threads infer; 0: as many as there are processors.
    pub threads: usize,
    /// Whether each thread but the first keeps to one processor.
    pub pin: bool,
    /// Whose kernels: `auto` for the fastest that this processor runs, or the name of an instruction set.
    pub kernel: String,
    /// Whether packed weights are kept in a file of `state_dir`, so that the next start need not pack them.
    pub cache: bool,
    /// Whether only direct convolutions may be used. For measurements: no key of the file.
    #[serde(skip)]
    pub direct_only: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { memory: Memory::default(), threads: 0, pin: false, kernel: AUTO.into(), cache: true, direct_only: false }
    }
}

impl Config {
    /// Checks what the types cannot; the message names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.threads > MAX_THREADS {
            return Err(format!("engine.threads = {}: at most {MAX_THREADS}; 0 is one a processor", self.threads));
        }
        self.kernels().map(|_| ())
    }

    /// The kernels that it names.
    fn kernels(&self) -> Result<&'static Kernels, String> {
        let found = if self.kernel == AUTO { kernels::available().next() } else { kernels::named(&self.kernel) };
        found.ok_or_else(|| {
            let names: Vec<&str> = kernels::available().map(|kernels| kernels.name).collect();
            format!("engine.kernel = {:?}: this processor runs {AUTO}, {}", self.kernel, names.join(", "))
        })
    }

    /// How many threads it stands for on this machine.
    pub fn thread_count(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, |count| count.get());
        if self.threads == 0 { processors().min(MAX_THREADS) } else { self.threads }
    }
}

/// The bundle's network on the engine.
pub struct NativeClassifier {
    engine: Engine,
    manifest: Manifest,
    /// The file that the weights were read from, if they were.
    kept: Option<Kept>,
}

impl NativeClassifier {
    /// Loads the bundle's `model.onnx`, which must be the network that the manifest describes, and packs its weights; or maps
    /// those that were packed from it before, by this program for these kernels, and kept in the folder `cache`.
    pub fn load(bundle: &Bundle, config: &Config, cache: Option<&Path>) -> Result<Self, LoadError> {
        let start = Instant::now();
        config.validate().map_err(backend_error)?;
        let family = if config.direct_only { Family::Direct } else { Family::Any };
        let kernels = config.kernels().map_err(backend_error)?;
        let options = Options { memory: config.memory, family, ..Options::new(kernels, config.thread_count()) };
        let kept = cache.filter(|_| config.cache).and_then(|folder| Kept::of(folder, bundle, &options));
        let found = kept.as_ref().and_then(|kept| kept.load(&options));
        let from_cache = found.is_some();
        let (plan, weights) = match found {
            Some(found) => found,
            None => packed(bundle, options, kept.as_ref())?,
        };
        let engine = Engine::with(plan, weights, config.pin)?;
        let manifest = bundle.manifest().clone();
        log::info!(
            "backend {NAME}: {} {} loaded in {:.0} ms{}, kernel {}, {} threads, {:.0} MB",
            manifest.name,
            manifest.version,
            start.elapsed().as_secs_f64() * 1e3,
            if from_cache { " from packed weights" } else { "" },
            kernels.name,
            options.threads,
            engine.plan().bytes() as f64 / 1e6
        );
        Ok(Self { engine, manifest, kept: kept.filter(|_| from_cache) })
    }

    /// Runs the network on one image of shape 1 × rows × columns × 1: the quantized evidence map and features, NHWC.
    pub fn run(&mut self, image: &Tensor<u8>) -> Result<(Tensor<u8>, Tensor<u8>), ClassifyError> {
        let expected = [1, self.manifest.input.rows, self.manifest.input.columns, 1];
        if image.shape() != expected {
            let found = image.shape();
            return Err(ClassifyError::Shape { backend: NAME, what: "the image", found, expected });
        }
        self.engine.infer(image.data()).map_err(backend_error)?;
        Ok((self.engine.evidence(), self.engine.features()))
    }

    /// Whether its weights came from a file that an earlier start had packed. If so the file is removed: whoever finds the
    /// results wrong loads the bundle again, and then blames it or not.
    pub fn forget_packed(&mut self) -> bool {
        self.kept.take().is_some_and(|kept| kept.remove())
    }

    /// The engine, to be measured.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

/// Plans and packs the bundle's network, a layer at a time, and keeps what was packed where it should be.
fn packed(bundle: &Bundle, options: Options, kept: Option<&Kept>) -> Result<(Plan, Weights), LoadError> {
    let (mut model, outline) = bundle.outline()?;
    let plan = Plan::new(&outline, options).map_err(LoadError::Refused)?;
    let convolutions = (0..model.depth()).filter_map(|position| match model.take(position) {
        Ok(Layer::Conv(conv)) => Some(Ok(conv)),
        Ok(Layer::MaxPool2) => None,
        Err(error) => Some(Err(error)),
    });
    let refused = |error| BundleError::Network { path: bundle.dir().join(MODEL_FILE), reason: format!("{error}") };
    let weights = Weights::pack(&plan, convolutions).map_err(refused)?;
    if let Some(kept) = kept {
        kept.save(&outline, &weights, &plan);
    }
    Ok((plan, weights))
}

impl Classifier for NativeClassifier {
    fn name(&self) -> &str {
        NAME
    }

    fn classify(&mut self, image: &Tensor<u8>) -> Result<Evidence, ClassifyError> {
        let (evidence, features) = self.run(image)?;
        Evidence::from_quantized(evidence, features, &self.manifest)
    }
}

impl From<EngineError> for LoadError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Plan(reason) => Self::Refused(reason),
            EngineError::Threads(error) => Self::Threads(error),
            other => Self::Backend(backend_error(other)),
        }
    }
}

fn backend_error(message: impl std::fmt::Display) -> ClassifyError {
    ClassifyError::Backend { backend: NAME, message: message.to_string() }
}

//! The `native` backend: the bundle's network on this project's own integer kernels, [`crate::network::engine`]. Not the
//! engine itself: here are its configuration and what it is loaded from.

use super::{Classifier, ClassifyError, Evidence, LoadError};
use crate::bundle::{Bundle, BundleError, MODEL_FILE, Manifest};
use crate::kernels::{self, Kernels};
use crate::network::cache::{self, CacheError};
use crate::network::engine::{Engine, EngineError};
use crate::network::int8::Layer;
use crate::network::outline::Outline;
use crate::network::plan::{Family, Memory, Options, Plan};
use crate::network::weights::{self, Weights};
use crate::tensor::Tensor;
use crate::workers::MAX_THREADS;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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
        let cached = cache.filter(|_| config.cache).and_then(|folder| Cached::of(folder, bundle, &options));
        let found = cached.as_ref().and_then(|cached| cached.load(&options));
        let from_cache = found.is_some();
        let (plan, weights) = match found {
            Some(found) => found,
            None => packed(bundle, options, cached.as_ref())?,
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
        Ok(Self { engine, manifest })
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

    /// The engine, to be measured.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

/// Plans and packs the bundle's network, a layer at a time, and keeps what was packed where it should be.
fn packed(bundle: &Bundle, options: Options, cached: Option<&Cached>) -> Result<(Plan, Weights), LoadError> {
    let (mut model, outline) = bundle.outline()?;
    let plan = Plan::new(&outline, options).map_err(LoadError::Refused)?;
    let convolutions = (0..model.depth()).filter_map(|position| match model.take(position) {
        Ok(Layer::Conv(conv)) => Some(Ok(conv)),
        Ok(Layer::MaxPool2) => None,
        Err(error) => Some(Err(error)),
    });
    let refused = |error| BundleError::Network { path: bundle.dir().join(MODEL_FILE), reason: format!("{error}") };
    let weights = Weights::pack(&plan, convolutions).map_err(refused)?;
    if let Some(cached) = cached {
        cached.save(&outline, &weights);
    }
    Ok((plan, weights))
}

/// Where weights are kept that were packed from a bundle's network for some options by this program.
struct Cached {
    folder: PathBuf,
    path: PathBuf,
    key: [u8; 32],
}

/// How the files of packed weights begin.
const PREFIX: &str = "weights-";
/// And end.
const SUFFIX: &str = ".packed";
/// How many of them are kept: of the active bundle, of the good one before, of one that is tried out.
const KEPT: usize = 3;

impl Cached {
    /// `None` where this program cannot be told from another, so that nothing that it kept could be trusted.
    fn of(folder: &Path, bundle: &Bundle, options: &Options) -> Option<Self> {
        // The order of packed weights is the kernels' own affair: whatever another build packed is not for this one.
        let program = fs::metadata("/proc/self/exe").ok()?;
        let program = format!("{} {} {} {}", program.len(), program.ino(), program.mtime(), program.mtime_nsec());
        let Options { kernels, memory, threads, fuse_pool, family } = options;
        let options = format!("{} {memory:?} {threads} {fuse_pool} {family:?}", kernels.name);
        let model = bundle.manifest().files.get(MODEL_FILE)?.to_ascii_lowercase();
        let version = weights::VERSION.to_le_bytes();
        let key = cache::key(&[model.as_bytes(), &version, program.as_bytes(), options.as_bytes()]);
        let name: String = key[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self { folder: folder.to_owned(), path: folder.join(format!("{PREFIX}{name}{SUFFIX}")), key })
    }

    /// The plan and weights that were kept, if they are there and whole.
    fn load(&self, options: &Options) -> Option<(Plan, Weights)> {
        let packed = match cache::load(&self.path, &self.key, options.threads) {
            Err(error) if error.is_absent() => return None,
            Err(error) => {
                log::warn!("packed weights: {error}; packing them again");
                return None;
            }
            Ok(packed) => packed,
        };
        let outline: Outline = serde_json::from_slice(packed.note()).ok()?;
        let plan = Plan::new(&outline, *options).ok()?;
        (packed.len() >= plan.weight_bytes).then(|| (plan, Weights::mapped(packed)))
    }

    /// Keeps them. Where that fails it is said, and the next start packs again.
    fn save(&self, outline: &Outline, weights: &Weights) {
        let save = || -> Result<(), CacheError> {
            let io = |what| move |error| CacheError::Io { what, path: self.folder.clone(), error };
            fs::create_dir_all(&self.folder).map_err(io("making the folder"))?;
            let note = serde_json::to_vec(outline).map_err(|error| io("describing it")(error.into()))?;
            cache::save(&self.path, &self.key, &note, weights.as_bytes())?;
            self.remove_old().map_err(io("removing old files"))
        };
        if let Err(error) = save() {
            log::warn!("packed weights are not kept: {error}");
        }
    }

    /// Removes all but the newest.
    fn remove_old(&self) -> std::io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort();
        let old = files.len().saturating_sub(KEPT);
        files[..old].iter().filter(|(_, path)| *path != self.path).try_for_each(|(_, path)| fs::remove_file(path))
    }
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
            other => Self::Backend(backend_error(other)),
        }
    }
}

fn backend_error(message: impl std::fmt::Display) -> ClassifyError {
    ClassifyError::Backend { backend: NAME, message: message.to_string() }
}

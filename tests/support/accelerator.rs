//! An accelerator's bench: TFLite's own library, a delegate without a device that is compiled here (tests/delegate/stub.c), and
//! a bundle for it. Not a test.

#![allow(dead_code, reason = "every test file uses its own part of this")]

#[path = "../../src/bin/roentgen_host/tflite.rs"]
pub(crate) mod tflite;

use crate::support::tiny_bundle;
use roentgen::bundle::{Bundle, BundleWriter, EDGETPU_FILE, TFLITE_FILE};
use roentgen::classifier::Classifier;
use roentgen::classifier::edgetpu::{Config, Guarded, Settings};
use roentgen::classifier::loaded::Loaded;
use roentgen::classifier::native::{self, NativeClassifier};
use roentgen::process::Program;
use roentgen::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an inference may take here, and what the bar gives beside it.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(1000);
pub(crate) const BAR: Duration = Duration::from_secs(1);

/// TFLite's library; `None` where it is missing, which CI does not forgive.
fn tflite_library() -> Option<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/tflite").join(target).join("libtensorflowlite_c.so");
    if path.is_file() {
        return Some(path.canonicalize().unwrap());
    }
    let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(!required, "{} is missing: run cross/tflite", path.display());
    eprintln!("SKIPPED: TensorFlow Lite's library is missing; run cross/tflite to get it");
    None
}

/// A folder with the stub and a bundle for it.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) library: PathBuf,
    pub(crate) bundle: Bundle,
}

impl Bench {
    pub(crate) fn new() -> Option<Self> {
        let library = tflite_library()?;
        let folder = tempfile::tempdir().unwrap();
        let bundle = Bundle::open(&tiny_bundle(folder.path())).unwrap();
        let network = bundle.network().unwrap();
        let writer = BundleWriter::of(&bundle).unwrap().file(TFLITE_FILE, tflite::write(&network));
        let writer = writer.file(EDGETPU_FILE, tflite::write_behind(&network, "edgetpu-custom-op"));
        let bundle = writer.write(&folder.path().join("tiny")).unwrap();
        let bench = Self { folder, library, bundle };
        let built = Command::new("cc")
            .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(bench.stub())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/delegate/stub.c"))
            .arg(&bench.library)
            .output()
            .expect("a C compiler");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Some(bench)
    }

    /// The stub, by a name like that of Coral's library.
    pub(crate) fn stub(&self) -> PathBuf {
        self.folder.path().join("libedgetpu_stub.so")
    }

    pub(crate) fn config(&self, options: &[(&str, &str)]) -> Config {
        Config {
            delegate: self.stub(),
            library: self.library.clone(),
            timeout_ms: TIMEOUT.as_millis() as u64,
            start_seconds: 30,
            retry_seconds: 1,
            // TFLite's own kernels may be a step off in each of the two layers.
            tolerance: 2,
            options: options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect::<BTreeMap<_, _>>(),
        }
    }

    pub(crate) fn native(&self) -> NativeClassifier {
        NativeClassifier::load(&self.bundle, &native::Config::default(), None).unwrap()
    }

    pub(crate) fn settings(&self, config: Config, bundle: Bundle) -> Settings {
        let program = Program::new(Path::new(env!("CARGO_BIN_EXE_roentgend")), ["accelerator-worker"]);
        Settings { program, bundle: Arc::new(bundle), config, threads: 1 }
    }

    pub(crate) fn start(&self, config: Config) -> Guarded {
        self.start_bundle(config, self.bundle.clone())
    }

    pub(crate) fn start_bundle(&self, config: Config, bundle: Bundle) -> Guarded {
        Guarded::start(self.settings(config, bundle), Loaded::Native(Box::new(self.native())), &mut || ())
    }

    /// Judges an image; the processor must have done it, as it would alone, and for this reason.
    pub(crate) fn must_fall_back(&self, guarded: &mut Guarded, reason: &str) -> Duration {
        let image = image();
        let start = Instant::now();
        let evidence = guarded.classify(&image).unwrap();
        let took = start.elapsed();
        assert_eq!((guarded.name(), &evidence), ("native", &self.native().classify(&image).unwrap()), "{reason}");
        let running = guarded.running().unwrap();
        assert_eq!(running.backend, "native");
        let fallback = running.fallback.expect("it says that it is not what should judge");
        assert_eq!(fallback.wanted, "edgetpu");
        assert!(fallback.reason.contains(reason), "{reason:?} is not in {:?}", fallback.reason);
        took
    }
}

/// An image that is no golden one.
pub(crate) fn image() -> Tensor<u8> {
    let bytes = (0..224 * 224).map(|i| (i * 7 / 5 % 256) as u8).collect();
    Tensor::new([1, 224, 224, 1], bytes).unwrap()
}

//! Finding and loading the model bundle for the subcommands.

use anyhow::{Context, bail};
use roentgen::bundle::{Bundle, SelfTest};
use roentgen::classifier::onnx::OnnxClassifier;
use roentgen::config::Backend;
use std::path::{Path, PathBuf};

/// Where a checkout has the bundle, relative to its root.
const IN_CHECKOUT: &str = "models/cxr-vgg16";

/// Where a package installs it.
const INSTALLED: &str = "/usr/share/roentgen/models/cxr-vgg16";

/// How far the backend may be off the golden vectors, in quantization steps: not at all.
const TOLERANCE: u8 = 0;

/// No bundle was given, and there is none where one is looked for.
#[derive(Debug, thiserror::Error)]
#[error("no model bundle found; give one with --bundle DIR. Looked in {}", .0.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
pub(crate) struct NoBundle(Vec<PathBuf>);

/// The bundle that was asked for, or the first of: this folder's checkout, the one the program was built in or stands
/// in, the installed one.
pub(crate) fn find(asked: Option<&Path>) -> Result<PathBuf, NoBundle> {
    if let Some(asked) = asked {
        return Ok(asked.to_owned());
    }
    let mut places = vec![PathBuf::from(IN_CHECKOUT)];
    // target/release/roentgend stands two folders below its checkout.
    if let Ok(program) = std::env::current_exe() {
        places.extend(program.ancestors().skip(1).take(3).map(|folder| folder.join(IN_CHECKOUT)));
    }
    places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join(IN_CHECKOUT));
    places.push(INSTALLED.into());
    match places.iter().find(|place| place.join("bundle.toml").is_file()) {
        Some(place) => Ok(place.clone()),
        None => Err(NoBundle(places)),
    }
}

/// Opens the bundle and loads it into the backend.
pub(crate) fn load(directory: &Path, backend: Backend) -> anyhow::Result<(Bundle, OnnxClassifier)> {
    if !backend.is_built() {
        bail!("this backend is not in this build: write auto or onnx");
    }
    let bundle = Bundle::open(directory)?;
    let classifier = OnnxClassifier::load(&bundle)?;
    Ok((bundle, classifier))
}

/// Runs the bundle's golden vectors through the backend.
pub(crate) fn self_test(bundle: &Bundle, classifier: &OnnxClassifier) -> anyhow::Result<SelfTest> {
    bundle
        .self_test(TOLERANCE, |image| classifier.run(image).map_err(|error| error.to_string()))
        .context("the model's self-test failed on this box")
}

//! Finding and loading the model bundle for the subcommands: one that was named by hand, or the one that the daemon runs.

use crate::backends::{self, Memory};
use crate::logging;
use anyhow::Context;
use roentgen::assess::gates::Gates;
use roentgen::bundle::{self, Bundle, Fallback, SelfTest, Signer, Store, Trust};
use roentgen::classifier::loaded::Loaded;
use roentgen::config::{Backend, Config};
use std::path::{Path, PathBuf};

/// Where a checkout has the bundle, relative to its root.
const IN_CHECKOUT: &str = "models/cxr-vgg16";

/// Where a package installs it.
const INSTALLED: &str = "/usr/share/roentgen/models/cxr-vgg16";

/// The folder of `state_dir` in which packed weights are kept.
const PACKED: &str = "packed";

/// No bundle was given, and there is none where one is looked for.
#[derive(Debug, thiserror::Error)]
#[error("no model bundle found; give one with --bundle DIR. Looked in {}", .0.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
pub(crate) struct NoBundle(Vec<PathBuf>);

/// What is to run the model, and how.
#[derive(Clone)]
pub(crate) struct Choice<'a> {
    /// The configuration, of which backend, engine and accelerator count here.
    pub(crate) config: &'a Config,
    /// The folder in which packed weights are kept, if they are to be.
    pub(crate) cache: Option<PathBuf>,
    /// What was measured before.
    pub(crate) memory: Memory,
    /// Whether the accelerator may be started: it serves one process at a time.
    pub(crate) accelerator: Use,
}

/// What may be done with the accelerator.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Nothing: the daemon may have it.
    Never,
    /// Whatever the configuration says.
    Now,
    /// The same, once the one is gone that has it: this very process.
    Later,
}

impl Use {
    /// What a daemon may do that runs this and wants another one in its place.
    pub(crate) fn beside(running: &Loaded) -> Self {
        if running.is_guarded() { Self::Later } else { Self::Now }
    }
}

impl<'a> Choice<'a> {
    /// What the configuration says, for a command that runs once. It keeps nothing in `state_dir`, where a file of another
    /// user than the daemon's would be in the daemon's way.
    pub(crate) fn of(config: &'a Config) -> Self {
        let memory = Memory::Recall(config.state_dir.join(backends::FILE));
        Self { config, cache: None, memory, accelerator: Use::Never }
    }

    /// The same, with the accelerator: the daemon, if one runs, has it already, and then it is refused.
    pub(crate) fn with_accelerator(config: &'a Config) -> Self {
        Self { accelerator: Use::Now, ..Self::of(config) }
    }

    /// The same for the daemon.
    pub(crate) fn of_daemon(config: &'a Config) -> Self {
        let memory = Memory::Keep(config.state_dir.join(backends::FILE));
        Self { config, cache: Some(config.state_dir.join(PACKED)), memory, accelerator: Use::Now }
    }

    /// For a command that has no configuration: nothing was measured before.
    pub(crate) fn plain(config: &'a Config) -> Self {
        Self { config, cache: None, memory: Memory::None, accelerator: Use::Now }
    }
}

/// The bundle that was asked for, or the first of: this folder's checkout, the one the program was built in or stands
/// in, the installed one.
fn find(asked: Option<&Path>) -> Result<PathBuf, NoBundle> {
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

/// Opens a bundle and loads it into the backend. Not for the daemon.
pub(crate) fn load(
    asked: Option<&Path>,
    trusted: &bundle::Config,
    choice: Choice<'_>,
) -> anyhow::Result<(Bundle, Loaded)> {
    let bundle = open(asked, trusted)?;
    warn_of_no_gates(&bundle);
    let classifier = classifier(&bundle, &choice, &mut || ())?;
    Ok((bundle, classifier))
}

/// Opens a bundle. One that was named by hand (`asked`) may be made by anyone, with a warning; one that was found here
/// ([`find`]) must be signed by a key of `trusted`: whoever can write into the folder where a command is typed does not
/// decide what it answers.
pub(crate) fn open(asked: Option<&Path>, trusted: &bundle::Config) -> anyhow::Result<Bundle> {
    let directory = find(asked)?;
    let trust = trusted.trust()?;
    let bundle = if asked.is_some() {
        Bundle::open_trusted(&directory, &trust.or_anyone())?
    } else {
        let opened = Bundle::open_trusted(&directory, &trust);
        opened.with_context(|| {
            format!("found the bundle {0}; to try it out name it: --bundle {0}", directory.display())
        })?
    };
    if !matches!(bundle.signer(), Signer::Trusted { .. }) {
        log::warn!("{}: {}; for trying out only", directory.display(), bundle.signer());
    }
    Ok(bundle)
}

/// What is said wherever a bundle without gates is looked at or used.
pub(crate) const NO_GATES: &str = "it has no gates of abstention, so that a box judges whatever it is given, chest \
                                   radiograph or not; have it made again with a roentgen-host that fits them";

/// Says so where the bundle has none.
pub(crate) fn warn_of_no_gates(bundle: &Bundle) {
    if bundle.manifest().gates.is_none() {
        log::warn!("{}: {NO_GATES}", bundle.dir().display());
    }
}

/// Loads an opened bundle into the backend. Its gates are read too: a bundle in which they are unsound cannot be used.
fn classifier(bundle: &Bundle, choice: &Choice<'_>, beat: &mut dyn FnMut()) -> anyhow::Result<Loaded> {
    Gates::load(bundle)?;
    match choice.config.backend {
        Backend::Auto => backends::fastest(bundle, choice, beat),
        Backend::Edgetpu => backends::accelerated(bundle, choice, beat),
        backend => backends::load(bundle, backend, choice.config, choice.cache.as_deref()),
    }
}

/// Loads a bundle into the backend and runs its golden vectors: whether this box can use it.
pub(crate) fn try_out(bundle: &Bundle, choice: Choice<'_>) -> anyhow::Result<SelfTest> {
    self_test(bundle, &mut classifier(bundle, &choice, &mut || ())?, &mut || ())
}

/// What the daemon of a configuration runs.
pub(crate) struct Active {
    pub(crate) bundle: Bundle,
    pub(crate) classifier: Loaded,
    pub(crate) self_test: SelfTest,
    /// Set where it is not the bundle that it should be.
    pub(crate) fallback: Option<Fallback>,
}

/// The active installed bundle; where that cannot be used, the good one before; then, or where none is installed, the
/// configured one. Each is asked for a trusted signature, its hashes and its self-test. `beat` is called between the steps
/// that take time: loading, each golden vector, and another bundle.
pub(crate) fn load_active(config: &Config, choice: &Choice<'_>, mut beat: impl FnMut()) -> anyhow::Result<Active> {
    let trust = config.bundles.trust()?;
    let mut failed: Vec<(Fallback, anyhow::Error)> = Vec::new();
    let mut note = |wanted: String, error: anyhow::Error| {
        let reason = logging::chain(&error);
        log::error!("bundle {wanted}: {reason}");
        failed.push((Fallback { wanted, reason }, error));
    };
    let installed = Store::new(&config.state_dir).candidates().unwrap_or_else(|error| {
        note("installed".into(), error.into());
        Vec::new()
    });
    for directory in installed.iter().chain([&config.bundle]) {
        beat();
        match load_trusted(directory, &trust, choice, &mut beat) {
            Ok((bundle, classifier, self_test)) => {
                let fallback = failed.into_iter().next().map(|(fallback, _)| fallback);
                if fallback.is_some() {
                    log::warn!("falling back to the bundle {}", directory.display());
                }
                return Ok(Active { bundle, classifier, self_test, fallback });
            }
            Err(error) => note(wanted(directory, &installed), error),
        }
    }
    // The configured bundle is always tried, so that there is at least one.
    let (_, first) = failed.into_iter().next().context("no bundle was tried")?;
    Err(first)
}

/// How a bundle is called in messages: by its folder where it is installed, else by its path.
fn wanted(directory: &Path, installed: &[PathBuf]) -> String {
    let folder = directory.file_name().filter(|_| installed.iter().any(|path| path == directory));
    folder.map_or_else(|| directory.display().to_string(), |folder| folder.to_string_lossy().into_owned())
}

fn load_trusted(
    directory: &Path,
    trust: &Trust,
    choice: &Choice<'_>,
    beat: &mut dyn FnMut(),
) -> anyhow::Result<(Bundle, Loaded, SelfTest)> {
    let bundle = Bundle::open_trusted(directory, trust)?;
    if *bundle.signer() == Signer::Nobody {
        log::warn!("{}: not signed, which bundles.allow_unsigned permits", directory.display());
    }
    warn_of_no_gates(&bundle);
    let mut loaded = classifier(&bundle, choice, beat)?;
    let tested = match self_test(&bundle, &mut loaded, beat) {
        // What an earlier start kept may be wrong where the bundle is not.
        Err(error) if loaded.forget_packed() => {
            log::warn!("with packed weights of an earlier start: {}; packing them again", logging::chain(&error));
            beat();
            loaded = classifier(&bundle, choice, beat)?;
            self_test(&bundle, &mut loaded, beat)?
        }
        tested => tested?,
    };
    log::info!("self-test: {} golden vectors, largest difference {}", tested.vectors, tested.largest_difference);
    Ok((bundle, loaded, tested))
}

/// Runs the bundle's golden vectors through the backend, of which a bundle may have any number; `beat` comes before each.
fn self_test(bundle: &Bundle, classifier: &mut Loaded, beat: &mut dyn FnMut()) -> anyhow::Result<SelfTest> {
    let tolerance = classifier.tolerance();
    bundle
        .self_test(tolerance, |image| {
            beat();
            classifier.run(image).map_err(|error| error.to_string())
        })
        .context("the model's self-test failed on this box")
}

//! `roentgend bundle`: checks, installs and lists model bundles, and goes back to the one before. The running daemon goes
//! on with the bundle that it has until it is told to reload; it calls this itself for what lies in `bundles/incoming`.

use crate::gently;
use crate::logging;
use crate::model::{self, Choice};
use roentgen::bundle::{self, Bundle, BundleError, Install, Installed, Signer, State, Step, Store, StoreError, Trust};
use roentgen::config::Config;
use roentgen::source::process;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to type for a change to take effect.
const RESTART: &str = "The daemon takes it when it is told to: systemctl reload roentgend";

/// What to do with bundles.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Checks signature, hashes and golden vectors of a bundle, and changes nothing.
    Verify(Verify),
    /// Installs a bundle and makes it the active one, once it passed every check on this box.
    Install(InstallArguments),
    /// Makes the good bundle before the active one: the previous installed one, else the configured one.
    Rollback(RollbackArguments),
    /// Makes an installed bundle the active one: the one before, or one that was rolled back.
    Activate(ActivateArguments),
    /// Lists the installed bundles and the configured one; the daemon starts with the one marked *.
    List(Common),
}

/// Arguments of `verify`.
#[derive(clap::Args)]
pub(crate) struct Verify {
    /// The bundle: its directory, or a .tar of one.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Take trusted keys and backend from the daemon's configuration; without it the default one's.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Trust this minisign public key (RW…, or a .pub file), and not those of the configuration; may be repeated.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `install`.
#[derive(clap::Args)]
pub(crate) struct InstallArguments {
    /// The bundle: its directory, or a .tar of one.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Whether its version may be lower than one that this box has used.
    #[arg(long)]
    allow_downgrade: bool,
    /// Install it only if this is the SHA-256 of its bundle.toml, which names the whole bundle.
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// Give way to a daemon at work, and say every step and how it ended as a line of JSON: for the daemon.
    #[arg(long, hide = true)]
    steps: bool,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `rollback`.
#[derive(clap::Args)]
pub(crate) struct RollbackArguments {
    /// As of `install`.
    #[arg(long, hide = true)]
    steps: bool,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `activate`.
#[derive(clap::Args)]
pub(crate) struct ActivateArguments {
    /// Its version, as `list` shows it.
    #[arg(value_name = "VERSION")]
    version: String,
    /// As of `install`.
    #[arg(long, hide = true)]
    steps: bool,
    #[command(flatten)]
    common: Common,
}

/// What all that change or list have in common.
#[derive(clap::Args)]
pub(crate) struct Common {
    /// The daemon's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Runs one of them.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Verify(arguments) => verify(arguments),
        Command::Install(arguments) => step_by_step(arguments.steps, || install(arguments)),
        Command::Rollback(arguments) => step_by_step(arguments.steps, || rollback(&arguments.common, arguments.steps)),
        Command::Activate(arguments) => step_by_step(arguments.steps, || activate(arguments)),
        Command::List(arguments) => list(arguments),
    }
}

/// Does something for the daemon, where it asks, which then hears how it failed.
fn step_by_step(steps: bool, work: impl FnOnce() -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    if steps {
        process::subordinate()?;
        gently::give_way();
    }
    let done = work();
    if let (true, Err(error)) = (steps, &done) {
        let lasting = crate::exit_code(error) == crate::BAD_CONFIGURATION;
        say!("{}", json!({ "failed": logging::chain(error), "lasting": lasting }));
    }
    done
}

/// A step of an installation in words.
fn in_words(step: Step) -> &'static str {
    match step {
        Step::Accepted => "a trusted key signed it, and its version may be installed",
        Step::Copied => "copied",
        Step::Tested => "its hashes and its self-test on this box are right",
        Step::Placed => "in its place",
        Step::Switched => "the active one",
        Step::Pruned => "older ones are removed",
    }
}

fn verify(arguments: &Verify) -> anyhow::Result<ExitCode> {
    let mut config = match &arguments.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    if !arguments.keys.is_empty() {
        config.bundles = bundle::Config { trusted_keys: arguments.keys.clone(), allow_unsigned: false };
    }
    let trust = config.bundles.trust()?;
    // Removed at the end.
    let unpacked = tempfile::tempdir()?;
    let directory = if arguments.bundle.is_file() {
        bundle::unpack(&arguments.bundle, unpacked.path())?
    } else {
        arguments.bundle.clone()
    };
    let bundle = Bundle::open_trusted(&directory, &trust)?;
    let tested = model::try_out(&bundle, Choice::of(&config))?;
    model::warn_of_no_gates(&bundle);
    if arguments.json {
        let mut line = described(&bundle, &arguments.bundle);
        line["golden_vectors"] = tested.vectors.into();
        line["largest_difference"] = tested.largest_difference.into();
        say!("{line}");
    } else {
        say!("{}; {}", title(&bundle), bundle.signer());
        if let Signer::Trusted { comment, .. } = bundle.signer() {
            // Quoted: whoever signs may write what a terminal would obey.
            say!("the signature says {comment:?}");
        }
        say!("{} files as listed", bundle.manifest().files.len());
        say!("self-test: {} golden vectors, largest difference {}", tested.vectors, tested.largest_difference);
    }
    Ok(ExitCode::SUCCESS)
}

fn install(arguments: &InstallArguments) -> anyhow::Result<ExitCode> {
    let Place { config, trust, store } = Place::new(&arguments.common)?;
    warn_of_other_user(&config.state_dir);
    let what = Install {
        source: &arguments.bundle,
        trust: &trust,
        packaged: &config.bundle,
        allow_downgrade: arguments.allow_downgrade,
    };
    let watch = |step: Step| {
        log::debug!("install: {step:?}");
        if arguments.steps {
            say!("{}", json!({ "step": in_words(step) }));
        }
    };
    let tester = only(arguments.sha256.as_deref(), tester(&config));
    let Installed { bundle, self_test, previous, left } = store.install(&what, tester, watch)?;
    if *bundle.signer() == Signer::Nobody {
        log::warn!("it is not signed, which bundles.allow_unsigned permits");
    }
    model::warn_of_no_gates(&bundle);
    for reason in left {
        log::warn!("it is installed, but an older one is still there: {reason}");
    }
    if arguments.common.json || arguments.steps {
        let mut line = described(&bundle, bundle.dir());
        line["previous"] = previous.into();
        say!("{line}");
    } else {
        say!("installed {} as {}; {}", title(&bundle), bundle.dir().display(), bundle.signer());
        say!("self-test: {} golden vectors, largest difference {}", self_test.vectors, self_test.largest_difference);
        let previous = previous.unwrap_or_else(|| config.bundle.display().to_string());
        say!("`roentgend bundle rollback` would go back to {previous}");
        say!("{RESTART}");
    }
    Ok(ExitCode::SUCCESS)
}

fn rollback(arguments: &Common, steps: bool) -> anyhow::Result<ExitCode> {
    let Place { config, trust, store } = Place::new(arguments)?;
    warn_of_other_user(&config.state_dir);
    let done = store.rollback(&config.bundle, &trust, tester(&config))?;
    for reason in &done.skipped {
        log::warn!("skipped {reason}");
    }
    if arguments.json || steps {
        let mut line = described(&done.to, done.to.dir());
        line["from"] = done.from.into();
        say!("{line}");
    } else {
        say!("went back from {} to {} in {}", done.from, title(&done.to), done.to.dir().display());
        say!("{RESTART}");
    }
    Ok(ExitCode::SUCCESS)
}

fn activate(arguments: &ActivateArguments) -> anyhow::Result<ExitCode> {
    let Place { config, trust, store } = Place::new(&arguments.common)?;
    warn_of_other_user(&config.state_dir);
    let bundle = store.activate(&arguments.version, &trust, tester(&config))?;
    if arguments.common.json || arguments.steps {
        say!("{}", described(&bundle, bundle.dir()));
    } else {
        say!("{} in {} is the active one", title(&bundle), bundle.dir().display());
        say!("{RESTART}");
    }
    Ok(ExitCode::SUCCESS)
}

fn list(arguments: &Common) -> anyhow::Result<ExitCode> {
    let Place { config, trust, store } = Place::new(arguments)?;
    let entries = store.entries(&trust)?;
    let none_active = entries.iter().all(|entry| entry.state != State::Active);
    let installed = entries.into_iter().map(|entry| (state(entry.state), entry.dir, entry.bundle));
    let configured = ("configured", config.bundle.clone(), Bundle::open_trusted(&config.bundle, &trust));
    let mut lines = Vec::new();
    for (state, directory, opened) in installed.chain([configured]) {
        let active = state == "active" || none_active && state == "configured";
        let shown = directory.display();
        if arguments.json {
            let mut line = match &opened {
                Ok(bundle) => described(bundle, &directory),
                Err(error) => json!({ "directory": shown.to_string(), "problem": error.to_string() }),
            };
            line["state"] = state.into();
            line["active"] = active.into();
            lines.push(line);
            continue;
        }
        let mark = if active { '*' } else { ' ' };
        match opened {
            Ok(bundle) => {
                let gates = if bundle.manifest().gates.is_none() { "; NO GATES of abstention" } else { "" };
                say!("{mark} {state:<12}{}  {shown}  {}{gates}", title(&bundle), bundle.signer());
            }
            Err(error) => say!("{mark} {state:<12}UNUSABLE  {error}"),
        }
    }
    if arguments.json {
        say!("{}", Value::Array(lines));
    }
    Ok(ExitCode::SUCCESS)
}

/// What a configuration says about bundles.
struct Place {
    config: Config,
    trust: Trust,
    store: Store,
}

impl Place {
    fn new(arguments: &Common) -> anyhow::Result<Self> {
        let config = Config::load(&arguments.config)?;
        let (trust, store) = (config.bundles.trust()?, Store::new(&config.state_dir));
        Ok(Self { config, trust, store })
    }
}

/// Says so where `state_dir` is another user's: root would follow every link that this user puts there, and what root makes
/// the daemon can read but not change.
pub(crate) fn warn_of_other_user(state_dir: &Path) {
    // The owner of a process's entry in /proc is its effective user.
    let owner = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.uid());
    if let (Ok(owner), Ok(this)) = (owner(state_dir), owner(Path::new("/proc/self")))
        && owner != this
    {
        let shown = state_dir.display();
        log::warn!("{shown} belongs to user {owner} and this is user {this}: better run this as that one (sudo -u)");
    }
}

/// The self-test in the backend that the daemon will use.
fn tester(config: &Config) -> impl FnMut(&Bundle) -> Result<bundle::SelfTest, Failure> {
    move |bundle| model::try_out(bundle, Choice::of(config)).map_err(Failure)
}

/// The same test, of a bundle that must have this SHA-256 where one is given. The first that is tested is the one that is
/// to be installed; those after are the ones it replaces.
fn only(
    sha256: Option<&str>,
    mut test: impl FnMut(&Bundle) -> Result<bundle::SelfTest, Failure>,
) -> impl FnMut(&Bundle) -> Result<bundle::SelfTest, Failure> {
    let mut wanted = sha256.map(str::to_ascii_lowercase);
    move |bundle| match wanted.take() {
        Some(wanted) if wanted != bundle.sha256() => {
            let reason = format!("another bundle than the one asked for: its SHA-256 is {}", bundle.sha256());
            Err(StoreError::from(BundleError::File { path: bundle.dir().to_owned(), reason }).into())
        }
        _ => test(bundle),
    }
}

/// An error on its way through the store, which prints its causes in one line.
struct Failure(anyhow::Error);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error.into())
    }
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&logging::chain(&self.0))
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Active => "active",
        State::Previous => "previous",
        State::Kept => "kept",
    }
}

fn title(bundle: &Bundle) -> String {
    let manifest = bundle.manifest();
    format!("{} {} ({:.8})", manifest.name, manifest.version, bundle.sha256())
}

fn described(bundle: &Bundle, directory: &Path) -> Value {
    let manifest = bundle.manifest();
    let (signed_by, signed_comment) = match bundle.signer() {
        Signer::Trusted { key, comment } => (Some(key), Some(comment)),
        Signer::Stranger | Signer::Nobody => (None, None),
    };
    json!({
        "name": manifest.name,
        "version": manifest.version,
        "sha256": bundle.sha256(),
        "directory": directory.display().to_string(),
        "signed_by": signed_by,
        "signed_comment": signed_comment,
        "gates": manifest.gates.is_some(),
    })
}

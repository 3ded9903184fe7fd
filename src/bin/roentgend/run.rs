//! `roentgend run`: the daemon. Puts the parts together, in the order in which their failure is cheapest to see.

use crate::model::{self, Active, Choice};
use crate::signals::Stop;
use crate::systemd::{self, Watchdog};
use anyhow::{Context, bail};
use roentgen::assess::Assessor;
use roentgen::config::Config;
use roentgen::outbox::Outbox;
use roentgen::pipeline::{self, Line};
use roentgen::pseudonym::Key;
use roentgen::sink::mqtt::{MqttSink, Online};
use roentgen::source::decoder::Decoder;
use roentgen::source::folder::Folder;
use roentgen::source::process::Program;
use roentgen::status::Status;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The configuration; `roentgend config` prints one to start from.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let config = Config::load(&arguments.config)?;
    std::fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("cannot make state_dir {}", config.state_dir.display()))?;
    // Held until the process ends, however it does.
    let _alone = alone(&config.state_dir)?;
    let Active { bundle, mut classifier, fallback, .. } =
        model::load_active(&config, &Choice::of_daemon(&config), systemd::extend_start)?;
    let assessor = Assessor::new(&bundle, &config.device, config.report.clone())?;
    let key = Key::load_or_create(&config.key())?;
    let outbox = Outbox::open(&config.outbox())?;
    let waiting = outbox.unsent()?;
    if waiting > 0 {
        log::info!("{waiting} reports of an earlier run wait for the broker");
    }
    let decoder = Decoder::in_child(Program::this(["decode-worker"]), config.limits.clone(), key);
    let trial = Program::this([OsStr::new("trial"), OsStr::new("--config"), absolute(&arguments.config)?.as_os_str()]);
    let mut source = Folder::open(&config.source.folder, decoder)?
        .with_reserve(&config.reserve, &config.state_dir)
        .with_trials(trial, &config.state_dir);
    let online = Online { model: Some(assessor.model().clone()), bundle_fallback: fallback };
    let mut sink = MqttSink::start(&config.mqtt, &config.device, &online)?;
    log::info!("{} takes images from {}", config.device, config.source.folder.incoming.display());
    systemd::ready();
    let mut watchdog = Watchdog::from_environment();
    let status = Status::default();
    let line = Line {
        source: &mut source,
        classifier: &mut classifier,
        sink: &mut sink,
        assessor: &assessor,
        status: &status,
    };
    let ended = pipeline::run(line, outbox, &mut || {
        watchdog.turn();
        !stop.is_asked()
    });
    systemd::stopping();
    sink.close();
    ended?;
    log::info!("stopped as asked");
    Ok(ExitCode::SUCCESS)
}

/// Takes the lock of `state_dir`: two daemons on one outbox would send reports twice and out of order.
fn alone(state_dir: &Path) -> anyhow::Result<File> {
    let path = state_dir.join("lock");
    let shown = path.display();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {shown}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another roentgend runs on this state_dir (it holds {shown}); stop that one, or give this one its own state_dir"
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {shown}")),
    }
}

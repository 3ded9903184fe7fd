//! `roentgend run`: the daemon. The parts of one configuration along the line until it is told to stop, or to read the
//! configuration again. Not the parts themselves: [`parts`] puts them together, [`reload`] says which may change.

mod parts;
mod patience;
mod reload;

use crate::health::Health;
use crate::model::{Active, Use};
use crate::signals::{self, Stop};
use crate::systemd::{self, Watchdog};
use anyhow::{Context, bail};
use parts::Parts;
pub(crate) use parts::in_force;
use patience::Patience;
use reload::Running;
use roentgen::config::Config;
use roentgen::outbox::Outbox;
use roentgen::outbox::integrity::bytes_to_read;
use roentgen::pipeline::{self, Line};
use roentgen::status::Status;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often, and after which pause, a lock is tried again that somebody holds.
const LOOKS: u32 = 5;
const LOOK: Duration = Duration::from_millis(100);

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The configuration; `roentgend config` prints one to start from. SIGHUP has it read again.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let reload = signals::reload_on_hangup()?;
    let config = Config::load(&arguments.config)?;
    let status = Status::default();
    let patience = Patience { stop: &stop, status: &status };
    // Held until the process ends, however it does.
    let Some(_alone) = patience.until(|| alone(&config.state_dir))? else { return stopped() };
    let health = Health::start(&status, &reload, &config.state_dir)?;
    // After an unclean end it is read as a whole, from a card as slow as it may be.
    systemd::extend_start_to_read(bytes_to_read(&config.outbox()));
    let open = || Ok(Outbox::open(&config.outbox(), &config.outbox)?);
    let Some(outbox) = patience.until(open)? else { return stopped() };
    let set_aside = outbox.set_aside().cloned();
    if let Some(aside) = &set_aside {
        status.outbox_set_aside(aside.to_string());
    }
    let waiting = outbox.unsent()?;
    if waiting > 0 {
        log::info!("{waiting} reports of an earlier run wait for the broker");
    }
    // Open for as long as the daemon runs: a reload must not fail because the disk is full just then.
    let mut outbox = Mutex::new(outbox);
    let Some(mut parts) = Parts::assemble(config, set_aside.as_ref(), &patience)? else { return stopped() };
    let setup = parts.setup();
    health.attend(&parts.config, parts.sink.side(), parts.camera(), setup);
    status.dicom(parts.dicom());
    log::info!("{} takes images from {}", parts.config.device, parts.config.source.folder.incoming.display());
    systemd::ready();
    let mut watchdog = Watchdog::from_environment();
    let ended = loop {
        let Parts {
            config,
            model,
            assessor,
            source,
            sink,
            results,
            gallery,
            broker_files,
            dicom_files,
            dicom_watch,
            ..
        } = &mut parts;
        let Active { bundle, classifier, fallback, .. } = model;
        let (path, is_fallback, accelerator) = (&arguments.config, fallback.is_some(), Use::beside(classifier));
        let running =
            Running { config, path, bundle, is_fallback, broker_files, accelerator, dicom_files, dicom_watch };
        let (results, gallery) = (results.as_ref(), gallery.as_ref());
        let line = Line { source, classifier, sink, assessor, results, gallery, status: &status };
        let mut change = None;
        let ended = pipeline::run(line, &outbox, &mut || {
            watchdog.turn();
            if !stop.is_asked() {
                change = reload::on_wish(&reload, &running, &mut || watchdog.turn());
            }
            change.is_none() && !stop.is_asked()
        });
        match (ended, change) {
            // Nothing is lost in between: what is not settled or not acknowledged is on disk.
            (Ok(()), Some(change)) if !stop.is_asked() => {
                let (ticket, told) = (change.ticket, change.told.clone());
                parts.take(change)?;
                let setup = parts.setup();
                health.attend(&parts.config, parts.sink.side(), parts.camera(), setup);
                status.dicom(parts.dicom());
                outbox.get_mut().unwrap_or_else(PoisonError::into_inner).reconfigure(&parts.config.outbox);
                reload::done(&reload, ticket, Ok(told));
            }
            (ended, _) => break ended,
        }
    };
    systemd::stopping();
    parts.close_doors();
    // Closed before the goodbye, which takes its time.
    drop(outbox);
    parts.sink.close();
    ended?;
    stopped()
}

fn stopped() -> anyhow::Result<ExitCode> {
    log::info!("stopped as asked");
    Ok(ExitCode::SUCCESS)
}

/// Takes the lock of `state_dir`: two daemons on one outbox would send reports twice and out of order.
fn alone(state_dir: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(state_dir).with_context(|| format!("cannot make state_dir {}", state_dir.display()))?;
    let path = state_dir.join("lock");
    let shown = path.display();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {shown}"))?;
    // `roentgend status` holds it for a moment when it looks whether anybody does.
    let mut locked = file.try_lock();
    for _ in 0..LOOKS {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(LOOK);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another roentgend runs on this state_dir (it holds {shown}); stop that one, or give this one its own state_dir"
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {shown}")),
    }
}

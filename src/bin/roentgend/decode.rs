//! What the daemon starts for itself: `roentgend decode-worker`, which decodes, and `roentgend trial`, which judges one file
//! over which the daemon may have crashed. Not for people.

use crate::model::{self, Choice};
use roentgen::assess::Assessor;
use roentgen::config::Config;
use roentgen::pipeline;
use roentgen::pseudonym::Key;
use roentgen::radiograph;
use roentgen::source::folder::{arrived, trial::Answer};
use roentgen::source::{decoder, process};
use std::fs::File;
use std::io::{Write, stdin, stdout};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Arguments of `trial`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The daemon's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Decodes until the daemon closes the connection.
pub(crate) fn work() -> anyhow::Result<ExitCode> {
    process::subordinate()?;
    decoder::serve(radiograph::open_bytes)?;
    Ok(ExitCode::SUCCESS)
}

/// Judges the file that is its standard input, as the daemon of this configuration would, all in this process.
pub(crate) fn try_out(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    process::subordinate()?;
    let file = File::from(stdin().as_fd().try_clone_to_owned()?);
    let config = Config::load(&arguments.config)?;
    let key = Key::load_or_create(&config.key())?;
    let active = model::load_active(&config, &Choice::of(&config), || ())?;
    let mut classifier = active.classifier;
    let assessor = Assessor::new(&active.bundle, &config.device, config.report.clone())?;
    let received_at = arrived(&file.metadata()?);
    let started = Instant::now();
    let answer = match radiograph::open_file(&file, &config.limits, &key) {
        Ok(radiograph) => {
            let decode = started.elapsed();
            let report = pipeline::judge(&radiograph, received_at, decode, &mut classifier, &assessor)?;
            Answer::Report(Box::new(report))
        }
        Err(refusal) => Answer::Error { code: refusal.code, message: refusal.message },
    };
    stdout().write_all(&serde_json::to_vec(&answer)?)?;
    Ok(ExitCode::SUCCESS)
}

//! What the daemon starts for itself: `roentgend decode-worker`, which decodes, `roentgend accelerator-worker`, which has an
//! accelerator, and `roentgend trial`, which judges one file over which the daemon may have crashed. Not for people.

use crate::model::{self, Choice};
use anyhow::Context;
use roentgen::assess::{self, Assessor};
use roentgen::config::Config;
use roentgen::pipeline;
use roentgen::pseudonym::Key;
use roentgen::radiograph::{self, dicom::Filing};
use roentgen::sink::dicom_sr::Results;
use roentgen::source::folder::arrived;
use roentgen::source::folder::trial::{self, Answer};
use roentgen::source::{decoder, process};
use std::fs::File;
use std::io::{Write, stdin, stdout};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Decodes until the daemon closes the connection.
pub(crate) fn work() -> anyhow::Result<ExitCode> {
    process::subordinate()?;
    decoder::serve(radiograph::open_bytes)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs an accelerator until the daemon closes the connection.
#[cfg(feature = "edgetpu")]
pub(crate) fn accelerate() -> anyhow::Result<ExitCode> {
    process::subordinate()?;
    roentgen::classifier::edgetpu::serve()?;
    Ok(ExitCode::SUCCESS)
}

/// Judges the file that is its standard input, as the daemon that started it would, all in this process.
pub(crate) fn try_out() -> anyhow::Result<ExitCode> {
    process::subordinate()?;
    let file = File::from(stdin().as_fd().try_clone_to_owned()?);
    let text = std::env::var(trial::CONFIG).context("this is started by the daemon, not by hand")?;
    let config = Config::parse(&text, Path::new(trial::CONFIG))?;
    let key = Key::load_or_create(&config.key())?;
    let active = model::load_active(&config, &Choice::of(&config), || ())?;
    let mut classifier = active.classifier;
    let assessor = Assessor::new(&active.bundle, &config.device, config.report.clone())?;
    let received_at = arrived(&file.metadata()?);
    let started = Instant::now();
    let answer = match radiograph::open_file(&file, &config.limits, &key) {
        Ok(radiograph) => {
            let decode = started.elapsed();
            let of = |results| Results::unsent(results, &config.device, &key, &config.state_dir, assess::trusted_time);
            let results = config.dicom_results.as_ref().map(of);
            let filing = results.as_ref().and_then(|_| Filing::of_file(&file, &config.limits));
            let draw = filing.is_some() && results.as_ref().is_some_and(|results| results.maker().wants_picture());
            let (report, picture) =
                pipeline::judge_and_draw(&radiograph, received_at, decode, &mut classifier, &assessor, draw)?;
            // Staged as the daemon does it: it releases them if it believes the report.
            if let (Some(results), Some(filing)) = (&results, &filing) {
                results.stage(&results.maker().make(filing, &report, picture.as_ref()))?;
            }
            Answer::Report(Box::new(report))
        }
        Err(refusal) => Answer::Error { code: refusal.code, message: refusal.message },
    };
    stdout().write_all(&serde_json::to_vec(&answer)?)?;
    Ok(ExitCode::SUCCESS)
}

//! `roentgend classify`: judges files or folders and prints a table or a line of JSON for each. Queues and sends nothing.

use crate::heatmap::{Pictures, Remembering};
use crate::model::{self, Choice};
use anyhow::Context;
use roentgen::assess::Assessor;
use roentgen::config::{Backend, Config};
use roentgen::pipeline;
use roentgen::pseudonym::Key;
use roentgen::radiograph::{self, Refusal};
use roentgen::report::{Decision, Label, NOTICE, Report};
use serde_json::json;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

/// Arguments of `classify`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model bundle, signed or not; where absent, the one that the daemon of this configuration runs, or else the
    /// one of this checkout or system if Roentgen's own key signed it.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// What runs the model: auto, native, onnx, tflite or edgetpu, as far as this build has them.
    #[arg(long, value_name = "NAME")]
    backend: Option<Backend>,
    /// Take limits, device name and the pseudonyms' key from the daemon's configuration. Without it, or before the
    /// daemon has made its key, the key is made for this run alone: the pseudonyms of two runs cannot be compared.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One line of JSON a file: {"path", "report"} or {"path", "error": {"code", "message"}}.
    #[arg(long)]
    json: bool,
    /// Write a PNG for every judged file into this folder: the radiograph beside itself under the evidence map, with
    /// probabilities and decision. The line of JSON names it as "heatmap".
    #[arg(long, value_name = "DIR")]
    heatmap: Option<PathBuf>,
    /// Files, or folders that are gone through in sorted order (without dot files and links).
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Judges every file; exit code 1 when any could not be.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut config = match &arguments.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    config.backend = arguments.backend.unwrap_or(config.backend);
    let key = match &arguments.config {
        // Only the daemon makes its key: here it would belong to whoever types the command.
        Some(_) => match Key::load(&config.key())? {
            Some(key) => key,
            None => key_of_this_run()?,
        },
        None => key_of_this_run()?,
    };
    let (bundle, mut classifier) = match (&arguments.config, &arguments.bundle) {
        // The daemon's own choice of bundle.
        (Some(_), None) => {
            let active = model::load_active(&config, &Choice::with_accelerator(&config), || ())?;
            (active.bundle, active.classifier)
        }
        (_, asked) => model::load(asked.as_deref(), &config.bundles, Choice::with_accelerator(&config))?,
    };
    let assessor = Assessor::new(&bundle, &config.device, config.report.clone())?;
    let pictures = arguments.heatmap.as_deref().map(Pictures::into_folder).transpose()?;
    let mut judge = |path: &Path| -> anyhow::Result<Result<Judged, Refusal>> {
        let (received_at, started) = (SystemTime::now(), Instant::now());
        let radiograph = match radiograph::open(path, &config.limits, &key) {
            Ok(radiograph) => radiograph,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut classifier = Remembering::new(&mut classifier);
        let report = pipeline::judge(&radiograph, received_at, started.elapsed(), &mut classifier, &assessor)?;
        let picture = pictures.as_ref().map(|pictures| pictures.write(path, &radiograph, &classifier, &report));
        Ok(Ok(Judged { picture: picture.transpose()?, report }))
    };
    match print_all(&arguments.paths, arguments.json, &mut judge) {
        Ok(all_read) => Ok(ExitCode::from(u8::from(!all_read))),
        // `classify … | head` has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

/// One file's report, and where its picture is, if one was asked for.
struct Judged {
    report: Report,
    picture: Option<PathBuf>,
}

type Judge<'a> = &'a mut dyn FnMut(&Path) -> anyhow::Result<Result<Judged, Refusal>>;

/// Judges and prints; true when every file could be read.
fn print_all(paths: &[PathBuf], json: bool, judge: Judge<'_>) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    let mut all_read = true;
    if !json {
        let titles = Label::ALL.map(|label| format!("{:>17}", label.title())).concat();
        writeln!(out, "{:<16}{titles}{:>9}  file", "decision", "ms")?;
    }
    for path in files(paths) {
        let judged = judge(&path)?;
        all_read &= judged.is_ok();
        let shown = path.display();
        match judged {
            Ok(Judged { report, picture }) if json => {
                let mut line = json!({ "path": shown.to_string(), "report": report });
                if let Some(picture) = picture {
                    line["heatmap"] = picture.display().to_string().into();
                }
                writeln!(out, "{line}")?;
            }
            Err(refusal) if json => {
                let error = json!({ "code": refusal.code, "message": refusal.message });
                writeln!(out, "{}", json!({ "path": shown.to_string(), "error": error }))?;
            }
            Ok(Judged { report, .. }) => {
                let (decision, why) = match &report.decision {
                    Decision::Reported { label } => (label.name(), String::new()),
                    Decision::Abstained { reasons } => {
                        let messages: Vec<&str> = reasons.iter().map(|reason| reason.message.as_str()).collect();
                        ("abstained", format!(": {}", messages.join("; ")))
                    }
                };
                let findings: String = report.findings.iter().map(|f| format!("{:>17.3}", f.probability)).collect();
                writeln!(out, "{decision:<16}{findings}{:>9.0}  {shown}{why}", report.timing_ms.total)?;
            }
            Err(refusal) => writeln!(out, "{:<16}{shown}: {refusal}", "not read")?,
        }
    }
    if !json {
        writeln!(out, "\n{NOTICE}")?;
    }
    Ok(all_read)
}

/// The files that the paths stand for. A path that is no folder stays as it is: opening it says what is wrong with it.
pub(crate) fn files(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() { walk(path, &mut found) } else { found.push(path.clone()) }
    }
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let listed = match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(Result::ok),
        Err(error) => {
            log::warn!("{}: cannot list it: {error}", folder.display());
            // Left among the files, so that it is reported as one that could not be read.
            return found.push(folder.to_owned());
        }
    };
    let mut entries: Vec<_> = listed.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

/// A key that nobody else has and that is gone after this run.
fn key_of_this_run() -> anyhow::Result<Key> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder for this run's key")?;
    Ok(Key::load_or_create(&folder.path().join("key"))?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

//! Looking for the radiograph of a report among what the box has kept, and putting it back where images come in, so that
//! the model at hand judges it. A thread of its own, one at a time: kept files are read until one has the report's hash.
//! Nothing is told of their names, which may be patients'.

use roentgen::config::Config;
use roentgen::outbox::history::{Entry, Filter, History};
use roentgen::report::Report;
use roentgen::sink::mqtt::command::Stage;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// How long kept files are read for one report.
const PATIENCE: Duration = Duration::from_secs(300);

/// What became of it, for the answer.
type Outcome = (Stage, String);

/// What is being looked for.
#[derive(Default)]
pub(super) struct Again {
    /// The command's identifier, and where the outcome comes.
    running: Option<(String, Receiver<Outcome>)>,
}

impl Again {
    /// Begins to look for the radiograph of a report. `model`: the SHA-256 of the model at hand.
    pub(super) fn look_for(&mut self, config: &Config, id: &str, report: String, model: String) -> Result<(), String> {
        if self.running.is_some() {
            return Err("another radiograph is being looked for; send the command again when that is answered".into());
        }
        let search =
            Search { outbox: config.outbox(), places: places(config), report, model, until: Instant::now() + PATIENCE };
        let (say, said) = channel();
        let work = move || drop(say.send(search.run()));
        let started = std::thread::Builder::new().name("again".into()).spawn(work);
        started.map_err(|error| format!("cannot begin: {error}"))?;
        self.running = Some((id.to_owned(), said));
        Ok(())
    }

    /// What became of it, once.
    pub(super) fn outcome(&mut self) -> Option<(String, Stage, String)> {
        let (_, said) = self.running.as_ref()?;
        let (stage, message) = match said.try_recv() {
            Ok(outcome) => outcome,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => (Stage::Failed, "the search ended without a word; see the log".into()),
        };
        let (id, _) = self.running.take()?;
        Some((id, stage, message))
    }
}

/// Where settled images are kept, with where they came in.
fn places(config: &Config) -> Vec<(PathBuf, PathBuf)> {
    let folder = &config.source.folder;
    let spool = config.state_dir.join("spool/dicom");
    vec![(folder.done(), folder.incoming.clone()), (spool.join("done"), spool.join("incoming"))]
}

struct Search {
    outbox: PathBuf,
    places: Vec<(PathBuf, PathBuf)>,
    report: String,
    model: String,
    until: Instant,
}

impl Search {
    fn run(&self) -> Outcome {
        self.find().unwrap_or_else(|outcome| outcome)
    }

    fn find(&self) -> Result<Outcome, Outcome> {
        let failed = |message: String| (Stage::Failed, message);
        let report = self.reported().map_err(failed)?;
        let report =
            report.ok_or_else(|| (Stage::Rejected, "this box knows no report of that id (any more)".into()))?;
        if report.model.sha256 == self.model {
            let message = "the model at hand has judged it: the same radiograph would get the same report".into();
            return Err((Stage::Rejected, message));
        }
        let received = chrono::DateTime::parse_from_rfc3339(&report.received_at).map_or(0, |at| at.timestamp());
        let mut looked = 0;
        for (kept, incoming) in &self.places {
            for path in nearest(kept, received) {
                if Instant::now() >= self.until {
                    let message =
                        format!("not found among {looked} files in {} s; it may be there", PATIENCE.as_secs());
                    return Err((Stage::Failed, message));
                }
                looked += 1;
                // One that cannot be read, or has gone, is none of ours.
                if sha256(&path).is_ok_and(|found| found == report.origin.content_sha256) {
                    put_back(&path, incoming, &self.report)
                        .map_err(|error| failed(format!("it is there, and cannot be put back: {error}")))?;
                    return Ok((Stage::Done, "it is back where images come in; its report follows".into()));
                }
            }
        }
        let message = format!(
            "its radiograph is not kept on this box: {looked} kept files were looked at (see keep_done_days and keep_reported)"
        );
        Err((Stage::Rejected, message))
    }

    /// The report, by its id.
    fn reported(&self) -> Result<Option<Report>, String> {
        let mut found = None;
        let history = History::open(&self.outbox).map_err(|error| error.to_string())?;
        let mut look = |entry: Entry| {
            // Most are not, and need not be read.
            if entry.json.contains(&self.report) {
                let report = serde_json::from_str::<Report>(&entry.json).ok();
                found = report.filter(|report| report.report_id == self.report);
            }
            found.is_none()
        };
        history.visit(&Filter::default(), &mut look).map_err(|error| error.to_string())?;
        Ok(found)
    }
}

/// The plain files of a folder, those first that were put there at about this time.
fn nearest(folder: &Path, received: i64) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            // When it was moved, which changes nothing else about it.
            Some((metadata.ctime().abs_diff(received), entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

fn sha256(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut piece): (File, _, _) =
        (roentgen::plain_file::open(path)?.0, Sha256::new(), vec![0; 64 << 10]);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&piece[..read]);
    }
}

/// Moves a file back, over no other one.
fn put_back(path: &Path, incoming: &Path, report: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    let mut other = std::ffi::OsString::from(format!("{:.8}-", report));
    other.push(name);
    for name in [name, &other] {
        let target = incoming.join(name);
        match renameat_with(CWD, path, CWD, &target, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::EXIST) => {}
            // A file system that cannot promise it, as NFS and SMB.
            Err(rustix::io::Errno::INVAL) if !target.exists() => return fs::rename(path, &target),
            Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("files of its name wait there already"))
}

//! The objects on disk until the PACS has them: `state_dir/results`, for nobody but the daemon's user. Sends nothing.
//!
//! ```text
//! staged/ID-KIND.dcm              made; the report is not known to be durable yet
//! waiting/SEQUENCE-ID-KIND.dcm    to be sent, in the order of these names
//! refused/SEQUENCE-ID-KIND.dcm    the PACS does not take it; a technician may move it back to waiting/
//! ```
//!
//! An object is durable in `staged/` before its report enters the outbox, and is renamed to `waiting/` before its source is
//! settled. So a crash anywhere in between is made good when the source is offered again: either the report is not known, and all
//! of it is made once more, with the same UIDs; or it is known, and what is staged is released. Nothing is remembered
//! beside the files themselves.

use super::config::{Config, Kind};
use super::{Made, ResultsError};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// An object's name: where it stands in the order, whose it is, and what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    pub(super) sequence: u64,
    pub(super) kind: Kind,
    pub(super) report_id: String,
}

impl Name {
    fn file(&self) -> String {
        format!("{:020}-{}-{}.dcm", self.sequence, self.report_id, self.kind)
    }

    /// `None` for what is no name of ours.
    fn parse(file: &str) -> Option<Self> {
        let (sequence, rest) = file.strip_suffix(".dcm")?.split_once('-')?;
        let (report_id, kind) = rest.split_once('-')?;
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
        let sequence = sequence.parse().ok().filter(|_| sequence.len() == 20)?;
        is_id(report_id).then(|| Self { sequence, kind, report_id: report_id.to_owned() })
    }
}

/// Whether a report's id can be part of a file's name.
fn is_id(report_id: &str) -> bool {
    report_id.len() == 32 && report_id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What one object takes, and since when.
#[derive(Debug, Clone, Copy)]
struct Entry {
    bytes: u64,
    since: SystemTime,
}

/// What lies in `waiting/` and `refused/`, as far as is known without looking.
#[derive(Debug, Default)]
struct Index {
    waiting: BTreeMap<Name, Entry>,
    refused: BTreeMap<Name, Entry>,
}

/// How much waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Depth {
    pub(super) waiting: u64,
    pub(super) refused: u64,
    pub(super) bytes: u64,
}

/// The folders.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    max_waiting: u64,
    max_bytes: u64,
    max_age: Duration,
    index: Mutex<Index>,
}

impl Store {
    /// Opens the folders, making them where they are missing. A disk that does not let itself be written to now is no
    /// reason to end: what is to be kept waits for it, and what lies there is looked at again.
    pub(super) fn open(state_dir: &Path, config: &Config) -> Self {
        let store = Self {
            root: state_dir.join("results"),
            max_waiting: config.max_waiting,
            max_bytes: config.max_bytes,
            max_age: Duration::from_secs(config.max_age_days * 86_400),
            index: Mutex::default(),
        };
        if let Err(error) = store.make_folders().and_then(|()| store.look()) {
            log::warn!("results for the PACS cannot be kept now: {error}");
        }
        store
    }

    fn make_folders(&self) -> Result<(), ResultsError> {
        for folder in ["", "staged", "waiting", "refused"] {
            let path = self.root.join(folder);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|error| ResultsError { what: "cannot make the folder", path, error })?;
        }
        Ok(())
    }

    /// Removes what a crash has left half-written, and what was staged for a report that never came.
    pub(super) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.root.join("staged")) else { return };
        for entry in entries.filter_map(Result::ok) {
            let is_half = entry.file_name().as_encoded_bytes().ends_with(b".tmp");
            let is_old = entry.metadata().is_ok_and(|metadata| is_older(metadata.modified().ok(), self.max_age));
            if is_half || is_old {
                // Best effort: it harms nobody, and the next start tries again.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Looks at the folders: somebody may have moved files.
    pub(super) fn look(&self) -> Result<(), ResultsError> {
        // Held meanwhile: what is released in between is noted afterwards, and not forgotten.
        let mut index = self.lock();
        *index = Index { waiting: self.listed("waiting")?, refused: self.listed("refused")? };
        Ok(())
    }

    fn listed(&self, folder: &str) -> Result<BTreeMap<Name, Entry>, ResultsError> {
        let path = self.root.join(folder);
        let entries = fs::read_dir(&path).map_err(|error| ResultsError { what: "cannot list", path, error })?;
        let named = entries.filter_map(Result::ok).filter_map(|entry| {
            let name = Name::parse(entry.file_name().to_str()?)?;
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            let since = metadata.modified().unwrap_or_else(|_| SystemTime::now());
            Some((name, Entry { bytes: metadata.len(), since }))
        });
        Ok(named.collect())
    }

    /// Keeps the objects of a report that is not durable yet; they are, on return.
    pub(super) fn stage(&self, made: &Made) -> Result<(), ResultsError> {
        if !is_id(&made.report_id) {
            return Ok(());
        }
        self.make_folders()?;
        let folder = self.root.join("staged");
        for (kind, bytes) in &made.objects {
            let path = folder.join(format!("{}-{kind}.dcm", made.report_id));
            let half = path.with_extension("tmp");
            let written = write(&half, bytes).and_then(|()| fs::rename(&half, &path));
            written.map_err(|error| ResultsError { what: "cannot keep a result in", path: folder.clone(), error })?;
        }
        sync(&folder)
    }

    /// Puts the staged objects of a report, which is durable now, to those that wait; how many there were. Doing so again
    /// changes nothing.
    pub(super) fn release(&self, report_id: &str, sequence: u64) -> Result<usize, ResultsError> {
        if !is_id(report_id) {
            return Ok(0);
        }
        let (staged, waiting) = (self.root.join("staged"), self.root.join("waiting"));
        let (mut released, mut waits) = (0, false);
        for kind in Kind::ALL {
            let from = staged.join(format!("{report_id}-{kind}.dcm"));
            let name = Name { sequence, kind, report_id: report_id.to_owned() };
            let to = waiting.join(name.file());
            let failed = |error| ResultsError { what: "cannot queue a result in", path: waiting.clone(), error };
            match fs::rename(&from, &to) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound && from.symlink_metadata().is_err() => {
                    waits |= self.lock().waiting.contains_key(&name);
                    continue;
                }
                Err(error) => return Err(failed(error)),
            }
            let bytes = fs::metadata(&to).map_err(failed)?.len();
            self.lock().waiting.insert(name, Entry { bytes, since: SystemTime::now() });
            released += 1;
        }
        // Also where an earlier attempt came to the renaming and not to this.
        if released > 0 || waits {
            // The new names first: after a power cut a file may be found in both folders, never in none.
            sync(&waiting)?;
            sync(&staged)?;
        }
        Ok(released)
    }

    /// The oldest that waits, of those behind `after`.
    pub(super) fn next(&self, after: Option<&Name>) -> Option<Name> {
        let index = self.lock();
        let mut names = index.waiting.keys();
        match after {
            None => names.next().cloned(),
            Some(after) => names.find(|name| *name > after).cloned(),
        }
    }

    /// Opens one that waits; `None` where somebody has removed it.
    pub(super) fn open_waiting(&self, name: &Name) -> Result<Option<File>, ResultsError> {
        let path = self.root.join("waiting").join(name.file());
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.lock().waiting.remove(name);
                Ok(None)
            }
            Err(error) => Err(ResultsError { what: "cannot read the result", path, error }),
        }
    }

    /// The PACS has it: it goes. Should that not outlive a power cut, it is sent once more, with the same UID.
    pub(super) fn delivered(&self, name: &Name) -> Result<(), ResultsError> {
        self.remove("waiting", name)?;
        self.lock().waiting.remove(name);
        Ok(())
    }

    fn remove(&self, folder: &str, name: &Name) -> Result<(), ResultsError> {
        let path = self.root.join(folder).join(name.file());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(ResultsError { what: "cannot remove the result", path, error })
            }
            _ => Ok(()),
        }
    }

    /// The PACS does not take it: it is set aside.
    pub(super) fn refuse(&self, name: &Name) -> Result<(), ResultsError> {
        self.make_folders()?;
        let file = name.file();
        let (waiting, refused) = (self.root.join("waiting"), self.root.join("refused"));
        match fs::rename(waiting.join(&file), refused.join(&file)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(ResultsError { what: "cannot set a result aside in", path: refused, error });
            }
            _ => {}
        }
        sync(&refused)?;
        let mut index = self.lock();
        if let Some(entry) = index.waiting.remove(name) {
            index.refused.insert(name.clone(), entry);
        }
        Ok(())
    }

    /// Drops what is too old, and what is beyond the bounds: pictures first, and of the rest what was refused, always the oldest.
    /// What was dropped.
    pub(super) fn tidy(&self) -> Vec<Name> {
        let victims = {
            let index = self.lock();
            let mut all: Vec<_> = index.refused.iter().map(|(name, entry)| (name, entry, "refused")).collect();
            all.extend(index.waiting.iter().map(|(name, entry)| (name, entry, "waiting")));
            let (mut count, mut bytes) = (all.len() as u64, all.iter().map(|(_, entry, _)| entry.bytes).sum::<u64>());
            // A stable sort: refused before waiting, and each in its own order.
            all.sort_by_key(|(name, ..)| name.kind != Kind::SecondaryCapture);
            let mut victims = Vec::new();
            for (name, entry, folder) in all {
                if count > self.max_waiting || bytes > self.max_bytes || is_older(Some(entry.since), self.max_age) {
                    victims.push((name.clone(), folder));
                    count -= 1;
                    bytes = bytes.saturating_sub(entry.bytes);
                }
            }
            victims
        };
        let mut dropped = Vec::new();
        for (name, folder) in victims {
            // One that cannot be removed now is tried again.
            if self.remove(folder, &name).is_ok() {
                let mut index = self.lock();
                index.waiting.remove(&name);
                index.refused.remove(&name);
                dropped.push(name);
            }
        }
        dropped
    }

    pub(super) fn depth(&self) -> Depth {
        let index = self.lock();
        let entries = index.waiting.values().chain(index.refused.values());
        Depth {
            waiting: index.waiting.len() as u64,
            refused: index.refused.len() as u64,
            bytes: entries.map(|entry| entry.bytes).sum(),
        }
    }

    /// A poisoned lock is used on: every change is one step.
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_older(since: Option<SystemTime>, age: Duration) -> bool {
    since.and_then(|since| since.elapsed().ok()).is_some_and(|elapsed| elapsed > age)
}

/// Writes a file that is new or half-written, durable on return and readable by nobody else.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync(folder: &Path) -> Result<(), ResultsError> {
    let synced = File::open(folder).and_then(|file| file.sync_all());
    synced.map_err(|error| ResultsError { what: "cannot write down the folder", path: folder.to_owned(), error })
}

#[cfg(test)]
mod tests;

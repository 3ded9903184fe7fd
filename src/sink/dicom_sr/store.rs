//! The objects on disk until the PACS has them: `state_dir/results`, for nobody but the daemon's user. Sends nothing.
//!
//! ```text
//! staged/ID-KIND.dcm              made; the report is not known to be durable yet
//! waiting/SEQUENCE-ID-KIND.dcm    to be sent, in the order of these names
//! refused/SEQUENCE-ID-KIND.dcm    the PACS does not take it; offered again now and then
//! ```
//!
//! An object is durable in `staged/` before its report enters the outbox, and is renamed to `waiting/` before its source is
//! settled. So a crash anywhere in between is made good when the source is offered again: either the report is not known, and all
//! of it is made once more, with the same UIDs; or it is known, and what is staged is released. Nothing is remembered
//! beside the files themselves.
//!
//! A file's age is that of its last change, and counts only while somebody vouches for the clock. What is written while nobody
//! does is dated 1970, and dated anew as soon as somebody does: a box that starts with the time of its last shutdown, as boards
//! without a battery do, must not find everything old once the time is set.

use super::config::{Config, Kind};
use super::shelf::{Bounds, Entry, Folder, Index, Name, is_id};
use super::{Made, ResultsError, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How much waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Depth {
    pub(super) waiting: u64,
    pub(super) refused: u64,
    /// What is staged included.
    pub(super) bytes: u64,
}

/// What is known without looking.
#[derive(Debug, Default)]
struct Known {
    index: Index,
    /// What the PACS has, and could not be removed yet: it does not wait any more.
    delivered: BTreeSet<Name>,
}

/// The folders.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    bounds: Bounds,
    time: Time,
    known: Mutex<Known>,
}

impl Store {
    /// Opens the folders, making them where they are missing. A disk that does not let itself be written to now is no
    /// reason to end: what is to be kept waits for it, and what lies there is looked at again.
    pub(super) fn open(state_dir: &Path, config: &Config, time: Time) -> Self {
        let age = Duration::from_secs(config.max_age_days * 86_400);
        let bounds = Bounds { objects: config.max_waiting, bytes: config.max_bytes, age };
        let store = Self { root: root(state_dir), bounds, time, known: Mutex::default() };
        if let Err(error) = store.make_folders().and_then(|()| store.look()) {
            log::warn!("results for the PACS cannot be kept now: {error}");
        }
        store
    }

    fn make_folders(&self) -> Result<(), ResultsError> {
        let is_new = !self.root.is_dir();
        for folder in ["", "staged", "waiting", "refused"] {
            let path = self.root.join(folder);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|error| ResultsError { what: "cannot make the folder", path, error })?;
        }
        if is_new {
            // What is put in them shall not be lost with them.
            [Some(&*self.root), self.root.parent()].into_iter().flatten().try_for_each(sync)?;
        }
        Ok(())
    }

    /// Removes what a crash has left half-written.
    pub(super) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.folder(Folder::Staged)) else { return };
        for entry in entries.filter_map(Result::ok) {
            if entry.file_name().as_encoded_bytes().ends_with(b".tmp") {
                // Best effort: it harms nobody, and the next start tries again.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Looks at the folders: somebody may have moved files.
    pub(super) fn look(&self) -> Result<(), ResultsError> {
        // The line must not wait for a slow disk: it goes on meanwhile.
        for folder in Folder::ALL {
            let began = Instant::now();
            let mut found = self.listed(folder)?;
            let mut known = self.lock();
            if folder == Folder::Waiting {
                known.delivered.retain(|name| found.remove(name).is_some());
            }
            known.index.shelf(folder).found(found, began);
        }
        Ok(())
    }

    fn listed(&self, folder: Folder) -> Result<BTreeMap<Name, Entry>, ResultsError> {
        let path = self.folder(folder);
        let entries = fs::read_dir(&path).map_err(|error| ResultsError { what: "cannot list", path, error })?;
        let named = entries.filter_map(Result::ok).filter_map(|entry| {
            let name = Name::parse(folder, entry.file_name().to_str()?)?;
            Some((name, Entry::of(&entry.metadata().ok().filter(fs::Metadata::is_file)?)))
        });
        Ok(named.collect())
    }

    /// Keeps the objects of a report that is not durable yet; they are, on return.
    pub(super) fn stage(&self, made: &Made) -> Result<(), ResultsError> {
        if !is_id(&made.report_id) {
            return Ok(());
        }
        self.make_folders()?;
        let folder = self.folder(Folder::Staged);
        for (kind, bytes) in &made.objects {
            let name = Name::staged(*kind, &made.report_id);
            let path = self.path(Folder::Staged, &name);
            let half = path.with_extension("tmp");
            let written = write(&half, bytes, (self.time)().is_some()).and_then(|()| fs::rename(&half, &path));
            let metadata = written.and_then(|()| fs::metadata(&path));
            let metadata = metadata.map_err(|error| {
                let path = folder.clone();
                ResultsError { what: "cannot keep a result in", path, error }
            })?;
            self.lock().index.shelf(Folder::Staged).insert(name, Entry::of(&metadata));
        }
        sync(&folder)
    }

    /// Puts the staged objects of a report, which is durable now, to those that wait; how many there were. Doing so again
    /// changes nothing.
    pub(super) fn release(&self, report_id: &str, sequence: u64) -> Result<usize, ResultsError> {
        if !is_id(report_id) {
            return Ok(0);
        }
        let (mut released, mut waits) = (0, false);
        for kind in Kind::ALL {
            let staged = Name::staged(kind, report_id);
            let name = Name { sequence, ..staged.clone() };
            let (from, to) = (self.path(Folder::Staged, &staged), self.path(Folder::Waiting, &name));
            let failed = |error| {
                let path = self.folder(Folder::Waiting);
                ResultsError { what: "cannot queue a result in", path, error }
            };
            let mut renamed = fs::rename(&from, &to);
            if is_missing(&renamed) && from.symlink_metadata().is_ok() {
                // Somebody has removed the folder that it goes to.
                self.make_folders()?;
                renamed = fs::rename(&from, &to);
            }
            if is_missing(&renamed) && from.symlink_metadata().is_err() {
                waits |= self.lock().index.shelf(Folder::Waiting).contains(&name);
                continue;
            }
            let metadata = renamed.and_then(|()| fs::metadata(&to)).map_err(failed)?;
            let mut known = self.lock();
            known.index.shelf(Folder::Staged).remove(&staged);
            known.index.shelf(Folder::Waiting).insert(name, Entry::of(&metadata));
            released += 1;
        }
        // Also where an earlier attempt came to the renaming and not to this.
        if released > 0 || waits {
            // The new names first: after a power cut a file may be found in both folders, never in none.
            sync(&self.folder(Folder::Waiting))?;
            sync(&self.folder(Folder::Staged))?;
        }
        Ok(released)
    }

    /// Removes what is staged for a report that does not come.
    pub(super) fn discard(&self, report_id: &str) {
        for kind in Kind::ALL.into_iter().filter(|_| is_id(report_id)) {
            let name = Name::staged(kind, report_id);
            // What cannot be removed now goes when it is old.
            if self.remove(Folder::Staged, &name).is_ok() {
                self.lock().index.shelf(Folder::Staged).remove(&name);
            }
        }
    }

    /// The oldest that waits, of those behind `after`.
    pub(super) fn next(&self, after: Option<&Name>) -> Option<Name> {
        self.lock().index.shelf(Folder::Waiting).next(after).cloned()
    }

    /// Whether this one waits.
    pub(super) fn waits(&self, name: &Name) -> bool {
        self.lock().index.shelf(Folder::Waiting).contains(name)
    }

    /// Opens one that waits; `None` where somebody has removed it.
    pub(super) fn open_waiting(&self, name: &Name) -> Result<Option<File>, ResultsError> {
        let path = self.path(Folder::Waiting, name);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.lock().index.shelf(Folder::Waiting).remove(name);
                Ok(None)
            }
            Err(error) => Err(ResultsError { what: "cannot read the result", path, error }),
        }
    }

    /// The PACS has it: it goes, now or as soon as the disk lets it, and is not sent again by this process. Should that not
    /// outlive a power cut, it is sent once more, with the same UID.
    pub(super) fn delivered(&self, name: &Name) -> Result<(), ResultsError> {
        {
            let mut known = self.lock();
            known.index.shelf(Folder::Waiting).remove(name);
            known.delivered.insert(name.clone());
        }
        self.remove(Folder::Waiting, name)?;
        self.lock().delivered.remove(name);
        Ok(())
    }

    fn remove(&self, folder: Folder, name: &Name) -> Result<(), ResultsError> {
        let path = self.path(folder, name);
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
        self.shift(name, Folder::Waiting, Folder::Refused)?;
        sync(&self.folder(Folder::Refused))
    }

    /// What was set aside waits again: which that was, and what went wrong with the rest.
    pub(super) fn recall(&self) -> (Vec<Name>, Result<(), ResultsError>) {
        let names = self.lock().index.shelf(Folder::Refused).names();
        let mut recalled = Vec::new();
        for name in names {
            match self.shift(&name, Folder::Refused, Folder::Waiting) {
                Ok(true) => recalled.push(name),
                Ok(false) => {}
                Err(error) => return (recalled, Err(error)),
            }
        }
        let synced = if recalled.is_empty() { Ok(()) } else { sync(&self.folder(Folder::Waiting)) };
        (recalled, synced)
    }

    /// Moves an object from one folder to another; false where it is gone.
    fn shift(&self, name: &Name, from: Folder, to: Folder) -> Result<bool, ResultsError> {
        let renamed = fs::rename(self.path(from, name), self.path(to, name));
        let is_there = !is_missing(&renamed);
        if is_there {
            renamed.map_err(|error| ResultsError { what: "cannot move a result to", path: self.folder(to), error })?;
        }
        let mut known = self.lock();
        if let Some(entry) = known.index.shelf(from).remove(name)
            && is_there
        {
            known.index.shelf(to).insert(name.clone(), Entry { noted: Instant::now(), ..entry });
        }
        Ok(is_there)
    }

    /// Drops what is too old, and what is beyond the bounds. What was dropped, and from where.
    pub(super) fn tidy(&self) -> Vec<(Name, Folder)> {
        let delivered = self.lock().delivered.clone();
        for name in delivered {
            if self.remove(Folder::Waiting, &name).is_ok() {
                self.lock().delivered.remove(&name);
            }
        }
        let now = (self.time)();
        if let Some(now) = now {
            self.date(now);
        }
        let victims = self.lock().index.too_much(&self.bounds, now);
        let mut dropped = Vec::new();
        for (name, folder) in victims {
            // One that cannot be removed now is tried again.
            if self.remove(folder, &name).is_ok() {
                self.lock().index.shelf(folder).remove(&name);
                dropped.push((name, folder));
            }
        }
        dropped
    }

    /// Counts the age of what came before the clock was set from now on.
    fn date(&self, now: SystemTime) {
        for folder in Folder::ALL {
            let undated = self.lock().index.shelf(folder).date(now);
            for name in undated {
                // Where the disk does not take it, this process remembers it.
                let _ = File::open(self.path(folder, &name)).and_then(|file| file.set_modified(now));
            }
        }
    }

    pub(super) fn depth(&self) -> Depth {
        let mut known = self.lock();
        let waiting = known.index.shelf(Folder::Waiting).len();
        let refused = known.index.shelf(Folder::Refused).len();
        Depth { waiting, refused, bytes: known.index.bytes() }
    }

    fn folder(&self, folder: Folder) -> PathBuf {
        self.root.join(folder.name())
    }

    fn path(&self, folder: Folder, name: &Name) -> PathBuf {
        self.folder(folder).join(name.file(folder))
    }

    /// A poisoned lock is used on: every change is one step.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn root(state_dir: &Path) -> PathBuf {
    state_dir.join("results")
}

/// Whether objects lie there.
pub(super) fn holds_any(state_dir: &Path) -> bool {
    Folder::ALL.into_iter().any(|folder| {
        let entries = fs::read_dir(root(state_dir).join(folder.name()));
        entries.is_ok_and(|mut entries| entries.next().is_some())
    })
}

fn is_missing(done: &io::Result<()>) -> bool {
    done.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Writes a file that is new or half-written, durable on return and readable by nobody else. Where nobody vouches for the
/// clock it is dated 1970.
fn write(path: &Path, bytes: &[u8], is_dated: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    if !is_dated {
        file.set_modified(SystemTime::UNIX_EPOCH)?;
    }
    file.sync_all()
}

fn sync(folder: &Path) -> Result<(), ResultsError> {
    let synced = File::open(folder).and_then(|file| file.sync_all());
    synced.map_err(|error| ResultsError { what: "cannot write down the folder", path: folder.to_owned(), error })
}

#[cfg(test)]
mod tests;

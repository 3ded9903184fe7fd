//! The drop folder: `incoming/` → `done/` or `rejected/`. Finds out when a file is complete, opens it, and moves it once
//! the pipeline has settled it. Not a synchroniser: subfolders, links and devices are left where they are.
//!
//! A file is taken when it is closed after writing or renamed in (inotify). Where the file system gives no events (NFS,
//! SMB), and for what was there at the start, it is taken when size and modification time have not changed for
//! `settle_ms`. A file whose writer was seen opening it is not taken by that rule: its close will be seen too. Names
//! ending in `.part`, `.tmp` or `.partial` and dot files are not touched.
//!
//! A file's name may be a patient's. Log lines, errors and reasons call a file by its [`tag`](Key::tag) instead.

mod arrivals;
mod moves;

pub use arrivals::may_be_taken;

use super::{Item, Outcome, Source, SourceError};
use crate::pseudonym::Key;
use crate::radiograph::{self, Limits, Refusal, RefusalCode};
use arrivals::{Arrivals, Identity};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// The `[source.folder]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder that images are dropped into; `done/` and `rejected/` lie beside it.
    pub incoming: PathBuf,
    /// Milliseconds without change after which a file counts as complete where no events come; 100 to 600000.
    pub settle_ms: u64,
    /// Milliseconds between two looks at the whole folder; 50 to 600000.
    pub poll_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { incoming: "/var/lib/roentgen/incoming".into(), settle_ms: 2000, poll_ms: 1000 }
    }
}

impl Config {
    /// What is wrong with the values, in words, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        if self.incoming.file_name().is_none() || self.incoming.parent().is_none() {
            return Err(
                "source.folder.incoming must be a folder inside another one, such as /var/lib/roentgen/incoming"
                    .to_owned(),
            );
        }
        if !(100..=600_000).contains(&self.settle_ms) {
            return Err("source.folder.settle_ms: write a number of milliseconds from 100 to 600000".into());
        }
        if !(50..=600_000).contains(&self.poll_ms) {
            return Err("source.folder.poll_ms: write a number of milliseconds from 50 to 600000".into());
        }
        Ok(())
    }

    /// Where settled files go.
    pub fn done(&self) -> PathBuf {
        self.incoming.with_file_name("done")
    }

    /// Where refused files and their reasons go.
    pub fn rejected(&self) -> PathBuf {
        self.incoming.with_file_name("rejected")
    }
}

/// The drop folder.
pub struct Folder {
    incoming: PathBuf,
    done: PathBuf,
    rejected: PathBuf,
    limits: Limits,
    key: Key,
    arrivals: Arrivals,
    /// What was handed over and is not settled: the file's identity at that time.
    taken: HashMap<PathBuf, Identity>,
}

impl Folder {
    /// Makes the three folders where they are missing, checks that files can be moved, and starts to watch.
    pub fn open(config: &Config, limits: Limits, key: Key) -> Result<Self, SourceError> {
        let (incoming, done, rejected) = (config.incoming.clone(), config.done(), config.rejected());
        for folder in [&incoming, &done, &rejected] {
            fs::create_dir_all(folder).map_err(failed("cannot make the folder", folder.display()))?;
            moves::check_writable(folder)?;
        }
        let arrivals = Arrivals::watch(config, key.clone())?;
        Ok(Self { incoming, done, rejected, limits, key, arrivals, taken: HashMap::new() })
    }

    /// Opens one complete file; `None` when it is gone again.
    fn take(&mut self, path: PathBuf) -> Option<Item> {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return None,
            Err(error) => {
                log::debug!("{}: gone before it was read: {error}", self.key.tag(&path));
                return None;
            }
        };
        let started = Instant::now();
        let radiograph = radiograph::open(&path, &self.limits, &self.key);
        let decode = started.elapsed();
        let gone = || matches!(fs::symlink_metadata(&path), Err(error) if error.kind() == ErrorKind::NotFound);
        if matches!(&radiograph, Err(Refusal { code: RefusalCode::Unreadable, .. })) && gone() {
            return None;
        }
        let identity = Identity::of(&metadata);
        self.taken.insert(path.clone(), identity);
        Some(Item { handle: path, received_at: identity.arrived(SystemTime::now()), decode, radiograph })
    }
}

impl Source for Folder {
    fn next(&mut self, patience: Duration) -> Result<Option<Item>, SourceError> {
        let deadline = Instant::now() + patience;
        while let Some(path) = self.arrivals.next(deadline, |path| self.taken.contains_key(path))? {
            if let Some(item) = self.take(path) {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    fn settle(&mut self, item: &Item, outcome: Outcome) -> Result<(), SourceError> {
        let path = &item.handle;
        let tag = self.key.tag(path);
        let taken = self.taken.remove(path);
        let now = match fs::symlink_metadata(path) {
            Ok(metadata) => Identity::of(&metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                log::warn!("{tag}: somebody removed it before it could be moved");
                return Ok(());
            }
            Err(error) => return Err(failed("cannot look at", &tag)(error)),
        };
        if taken != Some(now) {
            // Moving it would put an image that nobody judged among the settled ones.
            log::warn!("{tag}: another file of this name came meanwhile; it is judged on its own");
            self.arrivals.again(path);
            return Ok(());
        }
        let is_unreadable = matches!(&outcome, Outcome::Rejected(Refusal { code: RefusalCode::Unreadable, .. }));
        let moved = match outcome {
            Outcome::Reported => moves::settle(path, &tag, &self.incoming, &self.done, None),
            Outcome::Rejected(refusal) => {
                let code = refusal.code;
                log::warn!(ROENTGEN_REJECTED:% = code, ROENTGEN_FILE:% = tag; "{tag}: rejected: {refusal}");
                let reason = moves::Reason::new(&tag, &refusal, item.received_at);
                moves::settle(path, &tag, &self.incoming, &self.rejected, Some(&reason))
            }
        };
        match moved {
            // The folders were writable at the start, so this is about the file (a sticky folder, an immutable file, or
            // one that cannot be read and so not be copied to another file system either).
            Err(error) if error.error.kind() == ErrorKind::PermissionDenied || is_unreadable => {
                log::error!("{error}; it stays there and is not looked at again until it changes");
                self.arrivals.leave(path, now);
                Ok(())
            }
            // Found out while it was copied to another file system, which takes its time.
            Err(error) if error.error.kind() == ErrorKind::ResourceBusy => {
                log::warn!("{error}; it is judged again");
                self.arrivals.again(path);
                Ok(())
            }
            other => other,
        }
    }
}

/// Adds to an error of the system what was done, and to which folder or to the file of which tag.
fn failed(what: &'static str, place: impl Display) -> impl FnOnce(std::io::Error) -> SourceError {
    let place = place.to_string();
    move |error| SourceError { what, place, error }
}

//! How much of a folder of settled files stays: files that are settled for too long, or beyond too many bytes, are deleted,
//! the oldest first. Of the drop folder's `done/` only where it is asked for: these are somebody's radiographs. Of the spools'
//! `rejected/` by default, each with its reason: nobody looks into the box's own folders for ever, and they bear names.
//! Nothing else is ever deleted: not in `incoming/`, not in the drop folder's `rejected/`, no folder, no link, no name that this
//! program does not take.
//!
//! Done in steps of milliseconds between two images, since a folder may hold a million files. A file's age is that of its
//! last change by the file system's account, the moving there in general, and counts only by a clock that somebody
//! vouches for: one that is years ahead would make everything old.

use super::identity::Identity;
use super::moves::{REASON_SUFFIX, with_suffix};
use super::{Config, Folder, may_be_taken};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, ReadDir};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The pause between two looks at the whole folder.
const PAUSE: Duration = Duration::from_secs(3600);

/// How long one step may take.
const STEP: Duration = Duration::from_millis(5);

/// How many files are remembered in one look: the oldest. Where all of them go there is another look at once.
const MOST: usize = 1000;

/// How often it is said what was deleted.
const SAY: Duration = Duration::from_secs(24 * 3600);

/// Seconds since 1970 at the beginning of 2026: whatever was settled before that was settled by a wrong clock.
const BEGINNING: u64 = 1_767_225_600;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The time, as long as somebody vouches for the clock.
pub type Time = fn() -> Option<SystemTime>;

/// How much of a folder stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Days after which a file is deleted; 0: never.
    pub days: u32,
    /// Bytes beyond which the oldest files are; 0: never.
    pub bytes: u64,
}

/// Deletes what a folder need not hold any more.
pub(super) struct Retention {
    folder: PathBuf,
    /// Whether files have reasons beside them, which go with them.
    has_reasons: bool,
    /// The keys that ask for it.
    keys: &'static str,
    /// `None`: for ever.
    age: Option<Duration>,
    bytes: Option<u64>,
    time: Time,
    phase: Phase,
    /// Of what nobody has been told.
    deleted: Count,
    said: Option<Instant>,
    /// What went wrong last, so that it is said once.
    trouble: Option<String>,
}

#[derive(Default)]
struct Count {
    files: u64,
    bytes: u64,
}

enum Phase {
    /// Nothing is done until then.
    Rest(Option<Instant>),
    /// Which files are the oldest, and how many bytes are there?
    Looking { entries: ReadDir, oldest: BinaryHeap<Settled>, bytes: u64 },
    /// The newest of them first, so that the last is the next one; and how many bytes are still there.
    Deleting { oldest: Vec<Settled>, bytes: u64, is_all: bool },
}

/// A file in the folder.
struct Settled {
    since: SystemTime,
    path: PathBuf,
    size: u64,
    identity: Identity,
}

impl Folder {
    /// Deletes from `done/` what need not stay there, if the configuration says so.
    pub fn with_retention(mut self, config: &Config, time: Time) -> Self {
        let bounds = Bounds { days: config.keep_done_days, bytes: config.keep_done_bytes };
        self.retention.extend(Retention::new(config.done(), bounds, time));
        self
    }

    /// Deletes from `rejected/`, with their reasons, what need not stay there; nothing where none are kept there.
    pub fn with_retention_of_rejected(mut self, bounds: Bounds, time: Time) -> Self {
        let retention = Retention::new(self.rejected.clone(), bounds, time).filter(|_| self.manner.keeps_rejected);
        let keys = "keep_rejected_days and keep_rejected_bytes";
        self.retention.extend(retention.map(|retention| Retention { has_reasons: true, keys, ..retention }));
        self
    }
}

impl Settled {
    /// A file that this program may have put there, and may delete; none that goes with another one.
    fn of(entry: &DirEntry, has_reasons: bool) -> Option<Self> {
        let path = entry.path();
        if has_reasons && is_reason_of_another(&path) {
            return None;
        }
        // Not following a link, nor counting what a folder holds.
        let metadata = fs::symlink_metadata(&path).ok().filter(|metadata| metadata.is_file())?;
        let identity = Identity::of(&metadata);
        let since = identity.changed()?;
        may_be_taken(&path).then_some(Self { since, path, size: metadata.len(), identity })
    }
}

impl Ord for Settled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.since, &self.path).cmp(&(other.since, &other.path))
    }
}

impl PartialOrd for Settled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Settled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Settled {}

impl Retention {
    /// `None`: everything stays.
    pub(super) fn new(folder: PathBuf, bounds: Bounds, time: Time) -> Option<Self> {
        let age = (bounds.days > 0).then(|| DAY * bounds.days);
        let bytes = (bounds.bytes > 0).then_some(bounds.bytes);
        (age.is_some() || bytes.is_some()).then(|| Self {
            folder,
            has_reasons: false,
            keys: "keep_done_days and keep_done_bytes",
            age,
            bytes,
            time,
            phase: Phase::Rest(None),
            deleted: Count::default(),
            said: None,
            trouble: None,
        })
    }

    /// Does a little, if there is something to do.
    pub(super) fn step(&mut self, now: Instant) {
        let phase = std::mem::replace(&mut self.phase, Phase::Rest(Some(now + PAUSE)));
        self.phase = match phase {
            Phase::Rest(Some(until)) if now < until => Phase::Rest(Some(until)),
            Phase::Rest(_) => match fs::read_dir(&self.folder) {
                Ok(entries) => Phase::Looking { entries, oldest: BinaryHeap::new(), bytes: 0 },
                Err(error) => {
                    self.complain(&error.to_string());
                    Phase::Rest(Some(now + PAUSE))
                }
            },
            Phase::Looking { entries, oldest, bytes } => look(entries, oldest, bytes, self.has_reasons),
            Phase::Deleting { oldest, bytes, is_all } => self.delete(oldest, bytes, is_all, now),
        };
    }

    fn delete(&mut self, mut oldest: Vec<Settled>, mut bytes: u64, is_all: bool, now: Instant) -> Phase {
        let started = Instant::now();
        while let Some(file) = oldest.pop() {
            if !self.is_too_much(&file, bytes) {
                self.say(now);
                return Phase::Rest(Some(now + PAUSE));
            }
            match delete(&file) {
                Ok(true) => {
                    if self.has_reasons {
                        // Best effort: one without its file is deleted as a file of its own.
                        let _ = fs::remove_file(with_suffix(&file.path, REASON_SUFFIX));
                    }
                    bytes = bytes.saturating_sub(file.size);
                    self.deleted.files += 1;
                    self.deleted.bytes += file.size;
                }
                Ok(false) => {}
                Err(error) => self.complain(&error.to_string()),
            }
            if started.elapsed() >= STEP && !oldest.is_empty() {
                return Phase::Deleting { oldest, bytes, is_all };
            }
        }
        // Where there were more than it remembers the next look begins at once; not where they cannot be deleted.
        if !is_all && self.trouble.is_none() {
            return Phase::Rest(None);
        }
        self.say(now);
        Phase::Rest(Some(now + PAUSE))
    }

    fn is_too_much(&self, file: &Settled, bytes: u64) -> bool {
        let is_plausible = file.since >= SystemTime::UNIX_EPOCH + Duration::from_secs(BEGINNING);
        let is_old = |age| (self.time)().is_some_and(|time| time.duration_since(file.since).is_ok_and(|is| is > age));
        self.bytes.is_some_and(|most| bytes > most) || is_plausible && self.age.is_some_and(is_old)
    }

    fn say(&mut self, now: Instant) {
        if self.deleted.files == 0 || self.said.is_some_and(|said| now.saturating_duration_since(said) < SAY) {
            return;
        }
        let Count { files, bytes } = std::mem::take(&mut self.deleted);
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        log::info!(
            "{}: {files} settled files ({mebibytes:.1} MiB) were deleted, as {} ask for",
            self.folder.display(),
            self.keys
        );
        (self.said, self.trouble) = (Some(now), None);
    }

    fn complain(&mut self, trouble: &str) {
        if self.trouble.as_deref() != Some(trouble) {
            log::warn!("{}: settled files cannot be deleted: {trouble}", self.folder.display());
            self.trouble = Some(trouble.to_owned());
        }
    }
}

/// Looks at some more files.
fn look(mut entries: ReadDir, mut oldest: BinaryHeap<Settled>, mut bytes: u64, has_reasons: bool) -> Phase {
    let started = Instant::now();
    for entry in &mut entries {
        // What cannot be read stays.
        if let Some(file) = entry.ok().and_then(|entry| Settled::of(&entry, has_reasons)) {
            bytes = bytes.saturating_add(file.size);
            oldest.push(file);
            if oldest.len() > MOST {
                // The newest of them.
                oldest.pop();
            }
        }
        if started.elapsed() >= STEP {
            return Phase::Looking { entries, oldest, bytes };
        }
    }
    let is_all = oldest.len() < MOST;
    let mut oldest = oldest.into_sorted_vec();
    oldest.reverse();
    Phase::Deleting { oldest, bytes, is_all }
}

/// Whether a file is the reason of one that lies beside it.
fn is_reason_of_another(path: &Path) -> bool {
    let file = path.as_os_str().as_bytes().strip_suffix(REASON_SUFFIX.as_bytes());
    file.is_some_and(|file| Path::new(OsStr::from_bytes(file)).symlink_metadata().is_ok())
}

/// Deletes it, unless it is another file by now.
fn delete(file: &Settled) -> std::io::Result<bool> {
    let done = fs::symlink_metadata(&file.path).and_then(|metadata| {
        let is_same = Identity::of(&metadata) == file.identity;
        if is_same { fs::remove_file(&file.path).map(|()| true) } else { Ok(false) }
    });
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        done => done,
    }
}

#[cfg(test)]
mod tests;

//! How much of settled files stays: those that are settled for too long, or beyond too many bytes, are deleted, the oldest
//! first. Of the drop folder's `done/` only where it is asked for: these are somebody's radiographs, perhaps the only ones.
//! Of a spool's `done/` and `rejected/`, which hold copies, beyond a number of bytes. Nothing else is ever deleted: not in
//! `incoming/`, not in the drop folder's `rejected/`, no folder, no link, no name that this program does not take.
//!
//! Done in steps of milliseconds between two images, since such a folder may hold a million files. A file's age is that of its
//! last change by the file system's account, the moving into `done/` in general, and counts only by a clock that somebody
//! vouches for: one that is years ahead would make everything old.

use super::identity::Identity;
use super::{Config, Folder, may_be_taken};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::{self, DirEntry, ReadDir};
use std::io::ErrorKind;
use std::path::PathBuf;
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

/// Deletes what a folder of settled files need not hold any more.
pub(super) struct Retention {
    folder: PathBuf,
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

/// A settled file.
struct Settled {
    since: SystemTime,
    path: PathBuf,
    size: u64,
    identity: Identity,
}

impl Folder {
    /// Deletes from `done/` what need not stay there, if the configuration says so.
    pub fn with_retention(mut self, config: &Config, time: Time) -> Self {
        self.retention.extend(Retention::new(config, time));
        self
    }

    /// Deletes from `done/` and `rejected/`, where files are kept there, what is more than so many bytes; 0: any number stays.
    pub(in crate::source) fn with_most_bytes(mut self, bytes: u64) -> Self {
        let kept = [(&self.done, self.manner.keeps_reported), (&self.rejected, self.manner.keeps_rejected)];
        let kept = kept.into_iter().filter(|(_, is_kept)| *is_kept && bytes > 0);
        self.retention.extend(kept.map(|(folder, _)| Retention::of(folder.clone(), None, Some(bytes), || None)));
        self
    }
}

impl Settled {
    /// A file that this program may have put there, and may delete.
    fn of(entry: &DirEntry) -> Option<Self> {
        let path = entry.path();
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
    pub(super) fn new(config: &Config, time: Time) -> Option<Self> {
        let age = (config.keep_done_days > 0).then(|| DAY * config.keep_done_days);
        let bytes = (config.keep_done_bytes > 0).then_some(config.keep_done_bytes);
        (age.is_some() || bytes.is_some()).then(|| Self::of(config.done(), age, bytes, time))
    }

    fn of(folder: PathBuf, age: Option<Duration>, bytes: Option<u64>, time: Time) -> Self {
        let (phase, deleted) = (Phase::Rest(None), Count::default());
        Self { folder, age, bytes, time, phase, deleted, said: None, trouble: None }
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
            Phase::Looking { entries, oldest, bytes } => look(entries, oldest, bytes),
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
            "{}: {files} settled files ({mebibytes:.1} MiB) were deleted: no more are to be kept, by the configuration",
            self.folder.display()
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
fn look(mut entries: ReadDir, mut oldest: BinaryHeap<Settled>, mut bytes: u64) -> Phase {
    let started = Instant::now();
    for entry in &mut entries {
        // What cannot be read stays.
        if let Some(file) = entry.ok().as_ref().and_then(Settled::of) {
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
mod tests {
    use super::*;
    use std::path::Path;

    /// Everything until it rests.
    fn settle(retention: &mut Retention, now: Instant) {
        for _ in 0..100_000 {
            retention.step(now);
            if matches!(&retention.phase, Phase::Rest(Some(until)) if *until > now) {
                return;
            }
        }
        panic!("it never rests");
    }

    fn in_forty_days() -> Option<SystemTime> {
        Some(SystemTime::now() + 40 * DAY)
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    struct Place {
        root: tempfile::TempDir,
        config: Config,
    }

    impl Place {
        /// So many files of a hundred bytes, the first the oldest.
        fn new(count: usize) -> Self {
            let root = tempfile::tempdir().unwrap();
            let config = Config { incoming: root.path().join("incoming"), ..Config::default() };
            fs::create_dir(config.done()).unwrap();
            for number in 0..count {
                fs::write(config.done().join(format!("{number:04}.png")), [0; 100]).unwrap();
            }
            Self { root, config }
        }
    }

    #[test]
    fn by_default_everything_stays() {
        assert!(Retention::new(&Config::default(), in_forty_days).is_none());
    }

    #[test]
    fn beyond_the_bytes_the_oldest_go_and_the_others_stay() {
        let place = Place::new(0);
        let done = place.config.done();
        for name in ["c", "a", "d", "b"] {
            fs::write(done.join(name), [0; 100]).unwrap();
            // File systems count time in ticks of milliseconds.
            std::thread::sleep(Duration::from_millis(20));
        }
        let config = Config { keep_done_bytes: 250, ..place.config };
        let mut retention = Retention::new(&config, || None).unwrap();
        settle(&mut retention, Instant::now());
        assert_eq!(["a", "b", "c", "d"].map(|name| done.join(name).exists()), [false, true, false, true]);
        let Count { files, bytes } = retention.deleted;
        assert_eq!((files, bytes), (0, 0), "it is said");
    }

    #[test]
    fn what_is_too_old_goes_only_by_a_clock_that_somebody_vouches_for() {
        let place = Place::new(5);
        let cases: [(u32, Time, usize); 3] = [(30, || None, 5), (41, in_forty_days, 5), (39, in_forty_days, 0)];
        for (days, time, left) in cases {
            let config = Config { keep_done_days: days, ..place.config.clone() };
            settle(&mut Retention::new(&config, time).unwrap(), Instant::now());
            assert_eq!(files(&config.done()), left, "{days}");
        }
    }

    #[test]
    fn more_than_it_remembers_goes_too_and_then_it_rests_for_an_hour() {
        let place = Place::new(2 * MOST + 10);
        let config = Config { keep_done_bytes: 100, ..place.config };
        let mut retention = Retention::new(&config, || None).unwrap();
        let now = Instant::now();
        settle(&mut retention, now);
        assert_eq!(files(&config.done()), 1);
        for number in 0..3 {
            fs::write(config.done().join(number.to_string()), [0; 100]).unwrap();
        }
        settle(&mut retention, now + PAUSE / 2);
        assert_eq!(files(&config.done()), 4);
        settle(&mut retention, now + PAUSE);
        assert_eq!(files(&config.done()), 1);
        assert_eq!(retention.deleted.files, 3, "said once a day");
        settle(&mut retention, now + SAY + PAUSE);
        assert_eq!(retention.deleted.files, 0);
    }

    #[test]
    fn nothing_else_is_ever_deleted() {
        let place = Place::new(3);
        let done = place.config.done();
        let outside = place.root.path().join("outside");
        fs::write(&outside, [0; 1000]).unwrap();
        std::os::unix::fs::symlink(&outside, done.join("link.png")).unwrap();
        fs::create_dir_all(done.join("folder")).unwrap();
        for kept in ["folder/a.png", ".roentgen-x1y2", "b.part"] {
            fs::write(done.join(kept), [0; 1000]).unwrap();
        }
        for other in ["incoming", "rejected"] {
            fs::create_dir(place.root.path().join(other)).unwrap();
            fs::write(place.root.path().join(other).join("c.png"), [0; 1000]).unwrap();
        }
        let config = Config { keep_done_days: 1, keep_done_bytes: 1, ..place.config };
        settle(&mut Retention::new(&config, in_forty_days).unwrap(), Instant::now());
        assert_eq!(files(&done), 4, "the link, the folder, and what is not finished");
        let others = ["outside", "done/folder/a.png", "incoming/c.png", "rejected/c.png"];
        assert!(others.iter().all(|path| place.root.path().join(path).is_file()));
    }

    #[test]
    fn a_file_that_took_another_ones_place_meanwhile_stays() {
        let place = Place::new(1);
        let path = place.config.done().join("0000.png");
        let entry = fs::read_dir(place.config.done()).unwrap().next().unwrap().unwrap();
        let file = Settled::of(&entry).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another one").unwrap();
        assert!(!delete(&file).unwrap() && path.exists());
        fs::remove_file(&path).unwrap();
        assert!(!delete(&file).unwrap());
    }
}

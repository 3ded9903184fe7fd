//! Which file is at hand, kept where the next start finds it if this process dies: that file is then a suspect. Not the
//! judgement of a suspect: a crash and a `kill -9` look alike from here.
//!
//! `state_dir/at-hand` holds one record, overwritten in place and never synced: it is to survive the process, not the
//! power, whose loss the boot's number tells apart. `state_dir/suspects.json` is written only when a suspect comes or
//! goes. Neither holds a name.

use super::identity::Identity;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Bytes of the record: always all of them, so that nothing of an earlier one stays behind.
const RECORD: usize = 512;

/// Suspects that are remembered; the oldest go first.
const MAX_SUSPECTS: usize = 100;

/// Changes with every boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Tells this process from others, also where all of them have one number, as in a container: a reload opens the notes
/// while the one who wrote them lives.
pub(in crate::source) static RUN: LazyLock<u64> = LazyLock::new(|| {
    let mut bytes = [0; 8];
    // Without randomness every run is the same one, and nothing is a suspect.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
});

/// The record of the file at hand.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    boot: String,
    run: u64,
    file: Identity,
}

/// A file that was at hand when the process died.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Suspect {
    file: Identity,
    /// How many processes that tried it have died of it.
    deaths: u32,
}

/// The file at hand, and the suspects of earlier runs.
pub(super) struct Hand {
    boot: String,
    run: u64,
    note: File,
    suspects: Vec<Suspect>,
    path: PathBuf,
    is_full: bool,
}

impl Hand {
    /// Reads what the last run has left. A file that was at hand when its process died, and not the power, is a suspect.
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let boot = fs::read_to_string(BOOT_ID)?.trim().to_owned();
        Self::open_in(state_dir, boot, *RUN)
    }

    fn open_in(state_dir: &Path, boot: String, run: u64) -> io::Result<Self> {
        let path = state_dir.join("suspects.json");
        let mut options = OpenOptions::new();
        let note =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(state_dir.join("at-hand"))?;
        let mut record = vec![0; RECORD];
        let length = note.read_at(&mut record, 0)?;
        let left: Option<Note> = serde_json::from_slice(&record[..length]).ok();
        // Unsound or not there: no suspects.
        let suspects = fs::read(&path).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        let mut hand = Self { boot, run, note, suspects, path, is_full: false };
        if let Some(note) = left
            && note.boot == hand.boot
            && note.run != hand.run
            && !hand.is_suspect(&note.file)
        {
            log::warn!(
                "the last run ended without saying goodbye while it had an image at hand; that one is tried in a process \
                 of its own, after all others"
            );
            hand.suspects.push(Suspect { file: note.file, deaths: 0 });
            hand.keep();
        }
        hand.release();
        Ok(hand)
    }

    /// Notes what is at hand now.
    pub(super) fn take(&mut self, file: Identity) {
        let note = Note { boot: self.boot.clone(), run: self.run, file };
        self.write(&serde_json::to_vec(&note).unwrap_or_default());
    }

    /// Nothing is at hand.
    pub(super) fn release(&mut self) {
        self.write(b"null");
    }

    /// Whether a file was at hand when a process died.
    pub(super) fn is_suspect(&self, file: &Identity) -> bool {
        self.suspects.iter().any(|suspect| suspect.file == *file)
    }

    /// A process that tried it has died of it: how many have by now.
    pub(super) fn died(&mut self, file: &Identity) -> u32 {
        let Some(suspect) = self.suspects.iter_mut().find(|suspect| suspect.file == *file) else { return 0 };
        suspect.deaths += 1;
        let deaths = suspect.deaths;
        self.keep();
        deaths
    }

    /// It is settled, or gone.
    pub(super) fn acquit(&mut self, file: &Identity) {
        let before = self.suspects.len();
        self.suspects.retain(|suspect| suspect.file != *file);
        if self.suspects.len() != before {
            self.keep();
        }
    }

    /// Forgets the suspects of this disk that are not among these files: they were settled as the last run ended, or are
    /// gone. Those of another one may be on a share that is not there yet.
    pub(super) fn retain(&mut self, device: u64, files: &[Identity]) {
        let before = self.suspects.len();
        self.suspects.retain(|suspect| suspect.file.device != device || files.contains(&suspect.file));
        if self.suspects.len() != before {
            self.keep();
        }
    }

    fn write(&mut self, json: &[u8]) {
        let mut record = json.to_vec();
        record.resize(RECORD, b' ');
        let written = self.note.write_all_at(&record, 0);
        // A disk that is full, most of all; the record's own block is there since the first time.
        if written.is_err() && !self.is_full {
            log::warn!(
                "cannot note which image is at hand: {}",
                written.as_ref().err().map_or_else(String::new, io::Error::to_string)
            );
        }
        self.is_full = written.is_err();
    }

    /// Writes the suspects, whole or not at all. What cannot be written holds for this run.
    fn keep(&mut self) {
        let surplus = self.suspects.len().saturating_sub(MAX_SUSPECTS);
        self.suspects.drain(..surplus);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let kept = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
            file.write_all(&serde_json::to_vec(&self.suspects)?)?;
            file.persist(&self.path).map_err(|error| error.error)
        });
        if let Err(error) = kept {
            log::warn!("cannot write {}: {error}", self.path.display());
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // A panic on its way is no goodbye: whatever was at hand may have caused it.
        if !std::thread::panicking() {
            self.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn identity(folder: &Path, name: &str) -> Identity {
        let path = folder.join(name);
        fs::write(&path, name).unwrap();
        Identity::of(&fs::metadata(&path).unwrap())
    }

    /// A process that dies drops nothing.
    fn die(hand: Hand) {
        std::mem::forget(hand);
    }

    /// One run after the other.
    fn open(folder: &Path, boot: &str) -> Hand {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        Hand::open_in(folder, boot.into(), RUNS.fetch_add(1, Ordering::Relaxed)).unwrap()
    }

    #[test]
    fn what_was_at_hand_at_a_death_is_a_suspect_until_it_is_acquitted() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (identity(folder.path(), "a"), identity(folder.path(), "b"));
        let open = || open(folder.path(), "boot 1");
        let mut hand = open();
        hand.take(a);
        die(hand);
        let mut hand = open();
        assert!(hand.is_suspect(&a) && !hand.is_suspect(&b));
        assert_eq!(hand.died(&a), 1);
        hand.take(b);
        hand.release();
        die(hand);
        let mut hand = open();
        assert!(hand.is_suspect(&a) && !hand.is_suspect(&b));
        assert_eq!(hand.died(&a), 2, "deaths are remembered");
        hand.acquit(&a);
        drop(hand);
        assert!(!open().is_suspect(&a));
    }

    #[test]
    fn a_goodbye_a_power_cut_and_a_reload_make_no_suspect() {
        let folder = tempfile::tempdir().unwrap();
        let a = identity(folder.path(), "a");
        let mut hand = open(folder.path(), "boot 1");
        hand.take(a);
        drop(hand);
        let mut hand = open(folder.path(), "boot 1");
        assert!(!hand.is_suspect(&a));
        hand.take(a);
        let same_run = Hand::open_in(folder.path(), "boot 1".into(), hand.run).unwrap();
        assert!(!same_run.is_suspect(&a));
        hand.take(a);
        die(hand);
        assert!(!open(folder.path(), "boot 2").is_suspect(&a));
    }

    #[test]
    fn suspects_that_are_gone_are_forgotten_and_those_of_a_share_that_is_away_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (gone, there) = (identity(folder.path(), "gone"), identity(folder.path(), "there"));
        let mut away = gone;
        away.device += 1;
        for file in [gone, there, away] {
            let mut hand = open(folder.path(), "boot 1");
            hand.take(file);
            die(hand);
        }
        let mut hand = open(folder.path(), "boot 1");
        hand.retain(gone.device, &[there]);
        assert!(!hand.is_suspect(&gone) && hand.is_suspect(&there) && hand.is_suspect(&away));
    }

    #[test]
    fn unsound_notes_are_none() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{", "{\"boot\":\"boot 1\"}", &"x".repeat(9000)] {
            fs::write(folder.path().join("at-hand"), text).unwrap();
            fs::write(folder.path().join("suspects.json"), text).unwrap();
            let a = identity(folder.path(), "a");
            assert!(!open(folder.path(), "boot 1").is_suspect(&a), "{text}");
        }
    }
}

//! The clinic: drops files into the drop folder, one after the other, in every way that is allowed, and remembers what it
//! dropped. It knows nothing of the box.

use super::images::{Fate, Image, Images};
use crate::common::Random;
use crate::support::names;
use roentgen::bundle::sha256_hex;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// With so many files waiting the clinic drops no more until the box has taken some.
const CROWD: usize = 60;

/// A file that was dropped.
#[derive(Debug, Clone)]
pub(crate) struct Dropped {
    pub(crate) name: String,
    pub(crate) sha256: String,
    pub(crate) fate: Fate,
}

/// A clinic that is open.
pub(crate) struct Clinic {
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<Dropped>>,
}

struct Shared {
    /// Where it drops files.
    folder: PathBuf,
    /// The folder itself may be out of order: files come into it only by renaming, and again when that fails.
    is_careful: bool,
    closed: AtomicBool,
    dropped: AtomicUsize,
    /// The box takes nothing, so that no more is dropped.
    crowded: AtomicBool,
}

impl Clinic {
    /// Opens a clinic that waits up to `pause` milliseconds from one file to the next.
    pub(super) fn open(folder: PathBuf, is_careful: bool, pause: usize, mut random: Random) -> Self {
        let shared = Arc::new(Shared {
            folder,
            is_careful,
            closed: AtomicBool::new(false),
            dropped: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut images = Images::new(Random::new(random.next()));
            let mut ledger: Vec<Dropped> = Vec::new();
            while !own.closed.load(Ordering::Relaxed) {
                let is_crowded = names(&own.folder).len() >= CROWD;
                own.crowded.store(is_crowded, Ordering::Relaxed);
                if !is_crowded {
                    let image = images.draw();
                    // Never the same bytes with two fates: only good ones are drawn twice.
                    ledger.push(own.drop_file(ledger.len(), &image, &mut random));
                    own.dropped.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(random.below(pause + 1) as u64));
            }
            ledger
        });
        Self { shared, thread }
    }

    /// How many files it has dropped.
    pub(crate) fn dropped(&self) -> usize {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Whether so many files wait that it drops no more.
    pub(super) fn is_crowded(&self) -> bool {
        self.shared.crowded.load(Ordering::Relaxed)
    }

    /// Closes it: what was dropped.
    pub(super) fn close(self) -> Vec<Dropped> {
        self.abandon();
        self.thread.join().expect("the clinic does not panic")
    }

    /// Tells it to close, and does not wait.
    pub(super) fn abandon(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn drop_file(&self, number: usize, image: &Image, random: &mut Random) -> Dropped {
        let Image { ending, bytes, fate } = image;
        // A modality that calls all its images alike: the name is free again as soon as the box has taken the last one.
        let mut name = "thorax.png".to_owned();
        if random.below(10) > 0 || self.folder.join(&name).symlink_metadata().is_ok() {
            name = format!("{number:05}.{ending}");
        }
        let path = self.folder.join(&name);
        let is_small = bytes.len() < 64 << 10;
        match random.below(4) {
            // One call of the system creates it and one fills it.
            0 | 1 if is_small && !self.is_careful => fs::write(&path, bytes).expect("the drop folder is in order"),
            2 => self.rename_in(&self.folder.join(format!("{name}.part")), &path, bytes),
            _ => self.rename_in(&self.folder.join(format!(".{name}")), &path, bytes),
        }
        Dropped { name, sha256: sha256_hex(bytes), fate: *fate }
    }

    /// Writes a file under a name that the box does not touch and renames it, until that has worked.
    fn rename_in(&self, unfinished: &Path, path: &Path, bytes: &[u8]) {
        while let Err(error) = fs::write(unfinished, bytes).and_then(|()| fs::rename(unfinished, path)) {
            assert!(self.is_careful, "{}: {error}", path.display());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

//! Spools: where a door whose images are not files (the DICOM network, the camera) puts each as a complete file, durable
//! before anybody is told that it is there. From then on it is watched, decoded, tried, settled and refused as the drop
//! folder is, by the same code ([`Folder`]); a power cut at any moment loses nothing. Not the doors themselves.
//!
//! ```text
//! state_dir/spool/DOOR/
//!     arriving/    files that are being written; what an earlier run has left there is removed
//!     incoming/    complete ones, until they are settled: then they are deleted
//!     rejected/    refused ones, each with its NAME.reason.json; the oldest go in time ([`Keep::bounds`])
//! ```
//!
//! What lies here may hold patients' names: only the daemon's user reads it.

use super::SourceError;
use super::decoder::Decoder;
use super::folder::{self, Bounds, Folder, Manner, RUN};
use super::process::Program;
use super::reserve::{self, Reserve};
use super::trouble::{Fate, fate};
use crate::radiograph::OriginKind;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::NamedTempFile;

/// After how many bytes of a file it is looked again whether there is room for more.
const CHECK: usize = 1 << 20;

/// Whose images a spool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The DICOM network.
    Dicom,
    /// The camera.
    Camera,
}

impl Door {
    /// The spool's folder in `state_dir/spool`.
    fn folder(self) -> &'static str {
        match self {
            Self::Dicom => "dicom",
            Self::Camera => "camera",
        }
    }

    /// How its spool is watched.
    fn manner(self, keep: &Keep) -> Manner {
        let (name, kind) = match self {
            // Its files say themselves that they are DICOM.
            Self::Dicom => ("the DICOM network", None),
            Self::Camera => ("the camera", Some(OriginKind::Camera)),
        };
        Manner { name, kind, is_own: true, keeps_reported: keep.reported, keeps_rejected: keep.rejected }
    }
}

/// What of a spool is kept when it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Reported images, in `done/`; else they are deleted.
    pub reported: bool,
    /// Rejected ones, in `rejected/`, with their reason; else they are deleted.
    pub rejected: bool,
    /// For how long, and how many.
    pub bounds: Bounds,
}

impl Keep {
    /// How much of the rejected ones stays by default: for long enough to be looked into, and no more than a small card bears.
    pub const BOUNDS: Bounds = Bounds { days: 30, bytes: 1 << 30 };
}

impl Default for Keep {
    fn default() -> Self {
        Self { reported: false, rejected: true, bounds: Self::BOUNDS }
    }
}

/// Something could not be put into a spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk's reserve is reached.
    #[error("{0}")]
    NoRoom(String),
    /// A file of this name waits already, or no file may have such a name.
    #[error("this is no name for a new file of the spool")]
    Name,
    /// The system refused.
    #[error("{what} {path}: {error}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// In which folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

impl SpoolError {
    /// Whether there is no room for it now (on the disk, or for one more open file), and may be again.
    pub fn is_want_of_room(&self) -> bool {
        match self {
            Self::NoRoom(_) => true,
            Self::Name => false,
            Self::Io { error, .. } => fate(error) == Fate::Box,
        }
    }
}

/// One door's spool; clones are the same one. Several threads may put files into it at once.
#[derive(Debug, Clone)]
pub struct Spool {
    door: Door,
    root: PathBuf,
    reserve: Arc<Mutex<Reserve>>,
}

/// A file that is being written into a spool. Dropped before its [`Draft::commit`] it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    file: NamedTempFile,
    incoming: PathBuf,
    reserve: Arc<Mutex<Reserve>>,
    /// Bytes that were written since it was looked whether there is room.
    unchecked: usize,
}

impl Spool {
    /// Makes the spool's folders where they are missing, and removes what an earlier run has left half-written.
    pub fn open(state_dir: &Path, door: Door, reserve: &reserve::Config) -> Result<Self, SpoolError> {
        let root = root(state_dir, door);
        let spool =
            Self { door, reserve: Arc::new(Mutex::new(Reserve::new(reserve, vec![state_dir.to_owned()]))), root };
        for folder in [spool.arriving(), spool.incoming()] {
            make(&folder)?;
        }
        spool.sweep();
        Ok(spool)
    }

    /// Whether images wait in a door's spool, also where that door is closed now. Makes nothing.
    pub fn has_any(state_dir: &Path, door: Door) -> bool {
        let incoming = root(state_dir, door).join("incoming");
        fs::read_dir(incoming).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Watches over it: the door's part of the box's [`Source`](super::Source). Whatever room there is: the reserve stops what
    /// comes in, and what is in goes out, which makes room.
    pub fn watch(&self, keep: &Keep, decoder: Decoder, trial: Program) -> Result<Folder, SourceError> {
        // Whatever has its name there is complete: there is nothing to wait for.
        let config = folder::Config { incoming: self.incoming(), settle_ms: 0, ..folder::Config::default() };
        Ok(Folder::open_as(self.door.manner(keep), &config, decoder)?.with_trials(trial, &self.root))
    }

    /// Puts a complete file into it, durable on return. `name` is the box's own, and never a patient's.
    pub fn store(&self, name: &str, bytes: &[u8]) -> Result<(), SpoolError> {
        let mut draft = self.draft()?;
        draft.append(bytes)?;
        draft.commit(name)
    }

    /// Begins a file whose bytes come piece by piece.
    pub fn draft(&self) -> Result<Draft, SpoolError> {
        self.check_room()?;
        let arriving = self.arriving();
        let begin = || tempfile::Builder::new().prefix(&run()).suffix(".tmp").tempfile_in(&arriving);
        let file = match begin() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(&arriving)?;
                begin()
            }
            file => file,
        };
        let file = file.map_err(failed("cannot write into", &arriving))?;
        Ok(Draft { file, incoming: self.incoming(), reserve: Arc::clone(&self.reserve), unchecked: 0 })
    }

    /// Whether there is room for another file: the disk's reserve is not reached.
    pub fn check_room(&self) -> Result<(), SpoolError> {
        check(&self.reserve)
    }

    fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    fn arriving(&self) -> PathBuf {
        self.root.join("arriving")
    }

    /// Removes what earlier runs have left half-written; this run may be writing at the moment, as over a reload.
    fn sweep(&self) {
        let (arriving, run) = (self.arriving(), run());
        let Ok(entries) = fs::read_dir(&arriving) else { return };
        for entry in entries.filter_map(Result::ok) {
            let is_ours = entry.file_name().to_string_lossy().starts_with(&run);
            if !is_ours && let Err(error) = fs::remove_file(entry.path()) {
                log::warn!("{}: a half-written file cannot be removed: {error}", arriving.display());
            }
        }
    }
}

impl Draft {
    /// Writes on, as long as the disk's reserve is not reached.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.unchecked = self.unchecked.saturating_add(bytes.len());
        if self.unchecked > CHECK {
            self.unchecked = 0;
            check(&self.reserve)?;
        }
        self.file.as_file_mut().write_all(bytes).map_err(failed("cannot write for", &self.incoming))
    }

    /// Gives it its name, when all of it is on the disk: from now on it is there for the box, and a power cut does not
    /// change that.
    pub fn commit(self, name: &str) -> Result<(), SpoolError> {
        let Self { file, incoming, .. } = self;
        if name.is_empty() || name.contains('/') || !folder::may_be_taken(Path::new(name)) {
            return Err(SpoolError::Name);
        }
        file.as_file().sync_all().map_err(failed("cannot write for", &incoming))?;
        let path = incoming.join(name);
        let named = match file.persist_noclobber(&path) {
            Err(error) if error.error.kind() == io::ErrorKind::NotFound => {
                make(&incoming)?;
                error.file.persist_noclobber(&path)
            }
            named => named,
        };
        match named {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Err(SpoolError::Name),
            Err(error) => return Err(failed("cannot write into", &incoming)(error.error)),
        }
        File::open(&incoming).and_then(|folder| folder.sync_all()).map_err(failed("cannot sync", &incoming))
    }
}

fn check(reserve: &Mutex<Reserve>) -> Result<(), SpoolError> {
    let mut reserve = reserve.lock().unwrap_or_else(PoisonError::into_inner);
    reserve.check().map_err(SpoolError::NoRoom)
}

fn root(state_dir: &Path, door: Door) -> PathBuf {
    state_dir.join("spool").join(door.folder())
}

/// How names of this run's unfinished files begin.
fn run() -> String {
    format!("{:016x}-", *RUN)
}

/// Makes a folder that only the daemon's user enters.
fn make(folder: &Path) -> Result<(), SpoolError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    // One that somebody made by hand may let others in.
    made.and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o700)))
        .map_err(failed("cannot make the folder", folder))
}

/// Adds to an error of the system what was done, and in which folder.
fn failed(what: &'static str, folder: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = folder.to_owned();
    move |error| SpoolError::Io { what, path, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn a_full_disk_is_want_of_room_and_stays_the_systems_error() {
        for (code, is_want) in [(libc::ENOSPC, true), (libc::EROFS, true), (libc::EMFILE, true), (libc::EACCES, false)]
        {
            let error = failed("cannot make the folder", Path::new("spool"))(io::Error::from_raw_os_error(code));
            assert_eq!(error.is_want_of_room(), is_want, "{error}");
            // By which the start of the daemon sees whether to wait.
            let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            assert_eq!(source.and_then(io::Error::raw_os_error), Some(code));
        }
    }
}

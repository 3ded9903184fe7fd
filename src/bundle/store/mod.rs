//! The bundles that a box has installed, under its `state_dir`. Not the classifier that tests them: it is an argument.
//!
//! ```text
//! state_dir/bundles/
//!   installed.json                  which one is active, which was before, the highest version ever active
//!   cxr-vgg16-1.2.0-0a1b2c3d/       a bundle: name, version, the first 8 digits of its SHA-256
//!   incoming/                       where others put bundles for this box; a running daemon installs them
//!   rejected/                       those of them that were refused, with the reason
//!   .staging-…                      one that is being installed, or a new record, or what was when the power went
//! ```
//!
//! A bundle is copied into a staging folder, checked there, moved to its name and only then made active, by replacing
//! `installed.json`, which is one rename. Everything is synced to disk before that rename. So whenever the power goes, the
//! record names the old bundle or the new one, and the one it names is whole.

mod inbox;
mod install;
mod record;

pub use inbox::Inbox;
pub use install::{Install, Installed, RolledBack, Step};

use super::disk::READABLE_FOLDER;
use super::{Bundle, BundleError, Manifest, Trust};
use record::{Record, is_plain};
use semver::Version;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The folder inside `state_dir`.
const FOLDER: &str = "bundles";
/// The record's file name.
const RECORD: &str = "installed.json";
/// How the names of all that is not in its place yet begin.
const STAGING: &str = ".staging-";

/// Why a bundle was not installed or rolled back, or why it is not known what is installed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bundle itself is no good.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A file or folder could not be read or written.
    #[error("{path}: {what}: {error}. Check free space, and that this user may write there.")]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The record of what is installed cannot be understood.
    #[error(
        "{path}: not the record of installed bundles: {reason}. Remove it, and install the newest bundle again. The box \
         then no longer knows which versions it has used: see that you do not give it an older one."
    )]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Name or version cannot name an installed bundle.
    #[error("{path}: {reason}. Make the bundle again with another --name or --version.")]
    Identity {
        /// The bundle.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Versions go back only when told.
    #[error(
        "{name} {version} is older than {highest}, which this box has used. Install a newer one, go back with \
         `roentgend bundle rollback`, or add --allow-downgrade."
    )]
    Older {
        /// The model's name.
        name: String,
        /// The version that was to be installed.
        version: Version,
        /// The highest one that was ever active.
        highest: Version,
    },
    /// One version has one content.
    #[error(
        "{name} {version}: this box has used another bundle of the same name and version. Give the new one a higher \
         version, or add --allow-downgrade."
    )]
    Changed {
        /// The model's name.
        name: String,
        /// Its version.
        version: Version,
    },
    /// Somebody else is installing.
    #[error("{path}: another installation is at work; wait until it is through.")]
    Busy {
        /// The folder of installed bundles.
        path: PathBuf,
    },
    /// No installed bundle is active.
    #[error("{path}: no installed bundle is active, so that there is nothing to roll back.")]
    NothingActive {
        /// The folder of installed bundles.
        path: PathBuf,
    },
    /// No good bundle of this version is installed.
    #[error(
        "{path}: no bundle of version {version} that can be used is installed; `roentgend bundle list` shows them."
    )]
    NotInstalled {
        /// The folder of installed bundles.
        path: PathBuf,
        /// The version that was asked for.
        version: String,
    },
    /// There is nothing good to go back to.
    #[error("no earlier bundle can be used, so that the active one stays: {}", .reasons.join("; "))]
    NothingGood {
        /// What was tried, and why not.
        reasons: Vec<String>,
    },
}

/// That the box does not run the bundle, or the backend, that it should: part of its status message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// The bundle that was to be run (its folder's name, or its path where it is not an installed one), or the backend.
    pub wanted: String,
    /// Why it could not be.
    pub reason: String,
}

/// What an installed bundle is to the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The one that `roentgend run` starts with.
    Active,
    /// The good one before.
    Previous,
    /// Rolled back, or left over; the next installation removes it.
    Kept,
}

/// A line of the list of installed bundles.
#[derive(Debug)]
pub struct Entry {
    /// Its folder.
    pub dir: PathBuf,
    /// What it is to the box.
    pub state: State,
    /// The opened bundle, or why it does not open.
    pub bundle: Result<Bundle, BundleError>,
}

/// The installed bundles of one box.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Those under this `state_dir`. Looks at nothing yet and makes nothing.
    pub fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join(FOLDER) }
    }

    /// The directories of the bundles to start with, the active one first, then the good one before. Empty where none is
    /// installed.
    pub fn candidates(&self) -> Result<Vec<PathBuf>, StoreError> {
        Ok(self.record()?.folders().map(|folder| self.dir.join(folder)).collect())
    }

    /// All installed bundles, opened: active, previous, then the others by name.
    pub fn entries(&self, trust: &Trust) -> Result<Vec<Entry>, StoreError> {
        let record = self.record()?;
        let mut found = Vec::new();
        for (folder, state) in [(&record.active, State::Active), (&record.previous, State::Previous)] {
            found.extend(folder.iter().map(|folder| (self.dir.join(folder), state)));
        }
        found.extend(self.others(&record)?.into_iter().map(|dir| (dir, State::Kept)));
        let open = |(dir, state): (PathBuf, State)| Entry { bundle: Bundle::open_trusted(&dir, trust), dir, state };
        Ok(found.into_iter().map(open).collect())
    }

    fn record(&self) -> Result<Record, StoreError> {
        Record::read(&self.record_path())
    }

    fn record_path(&self) -> PathBuf {
        self.dir.join(RECORD)
    }

    /// The folders of bundles that the record does not name, sorted. Anything else in there is left alone and not listed.
    fn others(&self, record: &Record) -> Result<Vec<PathBuf>, StoreError> {
        let named: Vec<&str> = record.folders().collect();
        // A bundle's files that somebody put right into the inbox do not make that a bundle.
        let is_inbox = |name: &str| [inbox::INCOMING, inbox::REJECTED].contains(&name);
        let is_other = |name: &str| is_plain(name) && !named.contains(&name) && !is_inbox(name);
        let mut others = self.named(is_other)?;
        others.retain(|dir| fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir()));
        others.retain(|dir| dir.join(super::MANIFEST_FILE).is_file());
        Ok(others)
    }

    /// The files and folders whose names are wanted, sorted; none where nothing was ever installed.
    fn named(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, StoreError> {
        let io = |error| StoreError::Io { what: "listing the folder", path: self.dir.clone(), error };
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io)?;
            if entry.file_name().to_str().is_some_and(&wanted) {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    /// Makes the folder where it is missing, for every user to read, and takes its lock: one installation at a time. Held
    /// until it is dropped.
    fn lock(&self) -> Result<Lock, StoreError> {
        let io = |what| move |error| StoreError::Io { what, path: self.dir.clone(), error };
        fs::create_dir_all(&self.dir).map_err(io("making the folder"))?;
        let folder = File::open(&self.dir).map_err(io("opening"))?;
        match folder.try_lock() {
            Ok(()) => {
                let lock = Lock(folder);
                // Whoever installs need not be the daemon's user, and may have a umask that shuts others out.
                let mode = lock.0.metadata().map_err(io("looking at"))?.permissions().mode();
                if mode & READABLE_FOLDER != READABLE_FOLDER {
                    let open = Permissions::from_mode(mode & 0o7777 | READABLE_FOLDER);
                    lock.0.set_permissions(open).map_err(io("letting every user read"))?;
                }
                Ok(lock)
            }
            Err(TryLockError::WouldBlock) => Err(StoreError::Busy { path: self.dir.clone() }),
            Err(TryLockError::Error(error)) => Err(io("locking")(error)),
        }
    }
}

/// The lock of the folder, given back when it is dropped.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would not do while a process that was started meanwhile still holds a copy of the open file.
        let _ = self.0.unlock();
    }
}

/// The name of the folder that a bundle is installed in; refused where its name or version cannot be one.
pub fn folder_name(bundle: &Bundle) -> Result<String, StoreError> {
    let (manifest, refuse) =
        (bundle.manifest(), |reason| StoreError::Identity { path: bundle.dir().to_owned(), reason });
    let version = version(manifest).map_err(refuse)?;
    let digits: String = bundle.sha256().chars().take(8).collect();
    let folder = format!("{}-{version}-{digits}", manifest.name);
    if !is_plain(&folder) {
        let reason = "name may have letters, digits, -, _ and ., must not begin with a dot, and must not be long";
        return Err(refuse(format!("{reason}; it is {:?}", manifest.name)));
    }
    Ok(folder)
}

/// The manifest's version as a semantic one.
fn version(manifest: &Manifest) -> Result<Version, String> {
    Version::parse(&manifest.version)
        .map_err(|error| format!("version {:?} is no semantic version, like 1.2.0: {error}", manifest.version))
}

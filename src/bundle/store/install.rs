//! Installing a bundle and going back to an earlier one. Not the folder's layout and the record: see [`super`].

use super::record::{Highest, Record};
use super::{STAGING, State, Store, StoreError, folder_name, version};
use crate::bundle::disk::{let_read, replace_file, sync_folder, write_files};
use crate::bundle::{Bundle, SIGNATURE_FILE, SelfTest, Trust, archive};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What is to be installed, and on which terms.
#[derive(Debug, Clone)]
pub struct Install<'a> {
    /// A bundle's directory, or a `.tar` of one.
    pub source: &'a Path,
    /// Whose signature it needs.
    pub trust: &'a Trust,
    /// The configured bundle, which runs where none is installed: versions do not go back behind it either.
    pub packaged: &'a Path,
    /// Whether the version may go back.
    pub allow_downgrade: bool,
}

/// The steps of an installation, in order; each is told when it is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The source is a bundle by somebody trusted, and its version may be installed.
    Accepted,
    /// Its copy is on disk.
    Copied,
    /// The copy passed the same checks, and the self-test in the backend.
    Tested,
    /// The copy has its name; nothing uses it yet.
    Placed,
    /// It is the active one.
    Switched,
    /// What is older than the good one before is gone, but for [`Installed::left`].
    Pruned,
}

/// An installed bundle.
#[derive(Debug)]
pub struct Installed {
    /// The bundle, where it is now.
    pub bundle: Bundle,
    /// What its self-test found.
    pub self_test: SelfTest,
    /// The folder's name of the good one before, to which a rollback goes; none: the configured bundle.
    pub previous: Option<String>,
    /// Older ones that could not be removed, with the reason; they are in nobody's way, and the next installation tries
    /// again.
    pub left: Vec<String>,
}

/// What a rollback did.
#[derive(Debug)]
pub struct RolledBack {
    /// The folder's name of the bundle that was active.
    pub from: String,
    /// The bundle that is now.
    pub to: Bundle,
    /// What lies between and could not be used, with the reason.
    pub skipped: Vec<String>,
}

impl Store {
    /// Installs a bundle and makes it the active one, or leaves the old one active and says why. (Where the disk fails in
    /// the very last sync it is not known which of the two will be there after a power cut; either is whole.) `test`
    /// loads a bundle into the backend that will run it and returns its [`Bundle::self_test`]; `watch` hears of every step.
    pub fn install<E>(
        &self,
        what: &Install<'_>,
        mut test: impl FnMut(&Bundle) -> Result<SelfTest, E>,
        mut watch: impl FnMut(Step),
    ) -> Result<Installed, E>
    where
        E: From<StoreError>,
    {
        let _lock = self.lock()?;
        self.sweep()?;
        let mut record = self.record()?;
        let staging = Staging::new(self)?;
        let source = staging.source(what)?;
        let folder = folder_name(&source)?;
        let highest = record.admit(&source, what)?;
        watch(Step::Accepted);

        let copy = staging.copy(&source)?;
        watch(Step::Copied);
        let copy = Bundle::open_trusted(&copy, what.trust).map_err(StoreError::from)?;
        let self_test = test(&copy)?;
        watch(Step::Tested);

        let dir = self.place(&copy, &folder, &staging, what.trust)?;
        let bundle = Bundle::open_trusted(&dir, what.trust).map_err(StoreError::from)?;
        watch(Step::Placed);

        // The last good one stays: the one that was active, unless it has gone bad since.
        let mut good = |name: &&str| {
            let opened = Bundle::open_trusted(&self.dir.join(name), what.trust);
            *name != folder && opened.is_ok_and(|bundle| test(&bundle).is_ok())
        };
        let previous = record.folders().find(|name| good(name)).map(str::to_owned);
        record.highest.extend(highest);
        record.active = Some(folder);
        record.previous = previous.clone();
        record.write(&self.record_path())?;
        watch(Step::Switched);

        // It is installed: whatever goes wrong from here on is no reason to say that it is not.
        let left = self.prune(&record, &staging);
        watch(Step::Pruned);
        Ok(Installed { bundle, self_test, previous, left })
    }

    /// Goes back to the last good bundle before the active one: the previous installed one, else the configured one
    /// (`packaged`). What does not pass `trust` and `test` is skipped; where nothing passes, nothing changes.
    pub fn rollback<E>(
        &self,
        packaged: &Path,
        trust: &Trust,
        mut test: impl FnMut(&Bundle) -> Result<SelfTest, E>,
    ) -> Result<RolledBack, E>
    where
        E: From<StoreError> + std::fmt::Display,
    {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        let Some(from) = record.active.clone() else {
            return Err(StoreError::NothingActive { path: self.dir.clone() }.into());
        };
        let installed = record.previous.clone().map(|folder| (Some(folder.clone()), self.dir.join(folder)));
        let mut skipped = Vec::new();
        for (folder, dir) in installed.into_iter().chain([(None, packaged.to_owned())]) {
            let opened = Bundle::open_trusted(&dir, trust).map_err(|error| error.to_string());
            let tested = opened.and_then(|bundle| match test(&bundle) {
                Ok(_) => Ok(bundle),
                Err(error) => Err(format!("{}: {error:#}", dir.display())),
            });
            match tested {
                Ok(to) => {
                    record.active = folder;
                    record.previous = None;
                    record.write(&self.record_path())?;
                    return Ok(RolledBack { from, to, skipped });
                }
                Err(reason) => skipped.push(reason),
            }
        }
        Err(StoreError::NothingGood { reasons: skipped }.into())
    }

    /// Makes the installed bundle of this version the active one: the one before, or one that was rolled back. What was
    /// active becomes the one before. What does not pass `trust` and `test` changes nothing.
    pub fn activate<E>(
        &self,
        version: &str,
        trust: &Trust,
        mut test: impl FnMut(&Bundle) -> Result<SelfTest, E>,
    ) -> Result<Bundle, E>
    where
        E: From<StoreError>,
    {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        let mut found = self.entries(trust)?.into_iter().filter_map(|entry| Some((entry.state, entry.bundle.ok()?)));
        let Some((state, bundle)) = found.find(|(_, bundle)| bundle.manifest().version == version) else {
            let (path, version) = (self.dir.clone(), version.to_owned());
            return Err(StoreError::NotInstalled { path, version }.into());
        };
        test(&bundle)?;
        if state != State::Active {
            let folder = folder_name(&bundle)?;
            record.previous = record.active.replace(folder);
            record.write(&self.record_path())?;
        }
        Ok(bundle)
    }

    /// Gives the tested copy its name. A sound bundle that has the name already is the same one and stays, but that it
    /// takes over the copy's signature: the maker's key may be another one now.
    fn place(&self, copy: &Bundle, folder: &str, staging: &Staging, trust: &Trust) -> Result<PathBuf, StoreError> {
        let dir = self.dir.join(folder);
        let io = |error| StoreError::Io { what: "moving into place", path: dir.clone(), error };
        if let Some(there) = Bundle::open(&dir).ok().filter(|there| there.sha256() == copy.sha256()) {
            let path = dir.join(SIGNATURE_FILE);
            match &copy.signature {
                signature if *signature == there.signature => {}
                // One file, so that the bundle is whole at any moment, which may be the active one.
                Some(signature) => replace_file(&path, STAGING, signature).map_err(io)?,
                None if Bundle::open_trusted(&dir, trust).is_ok() => {}
                None => fs::remove_file(&path).and_then(|()| sync_folder(&dir)).map_err(io)?,
            }
            return Ok(dir);
        }
        staging.take(&dir)?;
        fs::rename(copy.dir(), &dir).map_err(io)?;
        sync_folder(&self.dir).map_err(io)?;
        Ok(dir)
    }

    /// Removes the bundles that the record does not name; which could not be, and why.
    fn prune(&self, record: &Record, staging: &Staging) -> Vec<String> {
        match self.others(record) {
            Ok(others) => others.iter().filter_map(|dir| Some(staging.take(dir).err()?.to_string())).collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    /// Removes what an installation or a rollback left behind that was cut off.
    fn sweep(&self) -> Result<(), StoreError> {
        for path in self.named(|name| name.starts_with(STAGING))? {
            let io = |error| StoreError::Io { what: "removing", path: path.clone(), error };
            let is_folder = fs::symlink_metadata(&path).map_err(io)?.is_dir();
            let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(io)?;
        }
        Ok(())
    }
}

impl Record {
    /// Whether this bundle's version may be installed, and the highest version of its name once it is.
    fn admit(&self, bundle: &Bundle, what: &Install<'_>) -> Result<Option<(String, Highest)>, StoreError> {
        let name = bundle.manifest().name.clone();
        let refuse = |reason| StoreError::Identity { path: bundle.dir().to_owned(), reason };
        let version_here = version(bundle.manifest()).map_err(refuse)?;
        // Not asked whose it is: it only makes the rule stricter.
        let packaged = Bundle::open_trusted(what.packaged, &Trust::anyone())
            .ok()
            .filter(|packaged| packaged.manifest().name == name && self.active.is_none());
        let packaged = packaged.and_then(|packaged| {
            let version = version(packaged.manifest()).ok()?;
            Some(Highest { version, sha256: packaged.sha256().to_owned() })
        });
        for highest in self.highest.get(&name).into_iter().chain(&packaged).filter(|_| !what.allow_downgrade) {
            let (version, highest_version) = (version_here.clone(), highest.version.clone());
            match version_here.cmp_precedence(&highest.version) {
                std::cmp::Ordering::Less => {
                    return Err(StoreError::Older { name, version, highest: highest_version });
                }
                std::cmp::Ordering::Equal if highest.sha256 != bundle.sha256() => {
                    return Err(StoreError::Changed { name, version });
                }
                _ => {}
            }
        }
        let rises = self.highest.get(&name).is_none_or(|highest| version_here.cmp_precedence(&highest.version).is_ge());
        let highest = Highest { version: version_here, sha256: bundle.sha256().to_owned() };
        Ok(rises.then_some((name, highest)))
    }
}

/// A folder for what is on its way in or out; removed when it is dropped, or by the next installation.
struct Staging(PathBuf);

impl Staging {
    fn new(store: &Store) -> Result<Self, StoreError> {
        // Nobody else is at work: the lock is held, and the folder was swept.
        let path = store.dir.join(format!("{STAGING}{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| StoreError::Io { what: "making", path: path.clone(), error })?;
        Ok(Self(path))
    }

    /// The source, opened; an archive is unpacked first.
    fn source(&self, what: &Install<'_>) -> Result<Bundle, StoreError> {
        if what.source.is_dir() {
            return Ok(Bundle::open_trusted(what.source, what.trust)?);
        }
        let into = self.0.join("unpacked");
        fs::create_dir(&into).map_err(|error| StoreError::Io { what: "making", path: into.clone(), error })?;
        Ok(Bundle::open_trusted(&archive::unpack(what.source, &into)?, what.trust)?)
    }

    /// A copy of the bundle, on disk, that every user may read: whoever installs need not be the daemon's user.
    fn copy(&self, bundle: &Bundle) -> Result<PathBuf, StoreError> {
        let path = self.0.join("copy");
        let io = |error| StoreError::Io { what: "copying the bundle to", path: path.clone(), error };
        let files = bundle.contents()?;
        write_files(&path, &files).and_then(|()| let_read(&path)).map_err(io)?;
        Ok(path)
    }

    /// Takes a folder away: it is gone by its name at once, whatever its removal needs.
    fn take(&self, dir: &Path) -> Result<(), StoreError> {
        let io = |error| StoreError::Io { what: "removing", path: dir.to_owned(), error };
        let aside = self.0.join("old");
        match fs::rename(dir, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io(error)),
            Ok(()) => fs::remove_dir_all(&aside).map_err(io),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays is swept by the next installation.
        let _ = fs::remove_dir_all(&self.0);
    }
}

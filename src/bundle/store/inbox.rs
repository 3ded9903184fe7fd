//! The folder into which others put bundles for this box: `state_dir/bundles/incoming`. Finds out what is complete, and
//! moves what was refused to `rejected`, with the reason beside it. Opens nothing: see [`super::Store::install`].
//!
//! A bundle is complete when nothing about it has changed for a while; longer for a folder, between whose files a copy
//! may pause. Whoever copies slowly gives it a name that ends in `.part` and renames it at the end.

use super::FOLDER;
use serde::Serialize;
use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The folder that bundles are put into, inside that of installed ones.
pub(super) const INCOMING: &str = "incoming";
/// The folder of refused ones.
pub(super) const REJECTED: &str = "rejected";
/// What is appended to a refused bundle's name for its reason.
const REASON_SUFFIX: &str = ".reason.json";
/// How names end that are not looked at yet.
const UNFINISHED: [&str; 3] = [".part", ".partial", ".tmp"];

/// How long a file must not change.
const QUIET_FILE: Duration = Duration::from_secs(3);
/// How long nothing in a folder must change.
const QUIET_FOLDER: Duration = Duration::from_secs(10);

/// Most bundles that are looked at, and most files of one.
const MOST: usize = 64;
const MOST_FILES: usize = 2000;
/// Deepest folder that is looked at.
const DEEPEST: usize = 10;
/// How many refused bundles are kept: the newest. Each may be as large as the model.
const KEPT: usize = 3;

/// The folder, and what was seen in it.
#[derive(Debug)]
pub struct Inbox {
    incoming: PathBuf,
    rejected: PathBuf,
    seen: HashMap<String, Seen>,
}

/// How something looked, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    look: u64,
    since: Instant,
    /// It is dealt with, and could not be moved away.
    left: bool,
}

/// What stands beside a refused bundle.
#[derive(Serialize)]
struct Reason<'a> {
    file: &'a str,
    message: &'a str,
    at: &'a str,
}

impl Inbox {
    /// That of this `state_dir`. Looks at nothing yet and makes nothing.
    pub fn new(state_dir: &Path) -> Self {
        let folder = state_dir.join(FOLDER);
        Self { incoming: folder.join(INCOMING), rejected: folder.join(REJECTED), seen: HashMap::new() }
    }

    /// Makes the folders where they are missing.
    pub fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.incoming)?;
        fs::create_dir_all(&self.rejected)
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.incoming
    }

    /// What lies there, complete or not, by name.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.incoming) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries.take(MOST) {
            let entry = entry?;
            // A link may lead anywhere; what is not UTF-8 can be named in no message.
            let is_plain = entry.file_type().is_ok_and(|kind| kind.is_file() || kind.is_dir());
            names.extend(entry.file_name().into_string().ok().filter(|name| is_plain && may_be_taken(name)));
        }
        names.sort();
        Ok(names)
    }

    /// What is complete, by name. To be asked again and again: it remembers what it saw, and when.
    pub fn complete(&mut self, now: Instant) -> io::Result<Vec<String>> {
        let names = self.names()?;
        let mut complete = Vec::new();
        let mut seen = HashMap::new();
        for name in names {
            let path = self.incoming.join(&name);
            // Gone again, or not to be looked at.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let look = look(&path, &metadata);
            let before = self.seen.get(&name).copied().filter(|before| before.look == look);
            let now_seen = before.unwrap_or(Seen { look, since: now, left: false });
            let quiet = if metadata.is_dir() { QUIET_FOLDER } else { QUIET_FILE };
            if !now_seen.left && now.saturating_duration_since(now_seen.since) >= quiet {
                complete.push(name.clone());
            }
            seen.insert(name, now_seen);
        }
        self.seen = seen;
        Ok(complete)
    }

    /// Lets a bundle lie that is dealt with and cannot be moved away: it is complete again only when it has changed.
    pub fn leave(&mut self, name: &str) {
        let path = self.incoming.join(name);
        if let Ok(metadata) = fs::symlink_metadata(&path) {
            let seen = Seen { look: look(&path, &metadata), since: Instant::now(), left: true };
            self.seen.insert(name.to_owned(), seen);
        }
    }

    /// Takes a bundle that was left as one to be looked at again: somebody wants it.
    pub fn look_again(&mut self, name: &str) {
        if let Some(seen) = self.seen.get_mut(name) {
            seen.left = false;
        }
    }

    /// Where a bundle of this name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.incoming.join(name)
    }

    /// Moves a bundle to the refused ones, with the reason beside it; returns where it is now.
    pub fn reject(&mut self, name: &str, message: &str, at: &str) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.rejected)?;
        let target = self.free(name);
        fs::rename(self.path(name), &target)?;
        self.seen.remove(name);
        let reason = serde_json::to_vec_pretty(&Reason { file: name, message, at })?;
        fs::write(with_suffix(&target), reason)?;
        self.prune();
        Ok(target)
    }

    /// Removes a bundle that is installed.
    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A name among the refused ones that nothing has.
    fn free(&self, name: &str) -> PathBuf {
        let is_free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
        let mut numbered = (1_u32..).map(|number| self.rejected.join(format!("{name}.{number}")));
        Some(self.rejected.join(name)).filter(is_free).or_else(|| numbered.find(is_free)).unwrap_or_default()
    }

    /// Removes all but the newest refused bundles.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.rejected) else { return };
        let is_bundle = |path: &PathBuf| !path.to_string_lossy().ends_with(REASON_SUFFIX);
        let age = |path: PathBuf| {
            let reason = fs::symlink_metadata(with_suffix(&path)).and_then(|metadata| metadata.modified());
            Some((reason.ok()?, path))
        };
        let paths = entries.flatten().map(|entry| entry.path()).filter(is_bundle);
        let mut refused: Vec<_> = paths.filter_map(age).collect();
        refused.sort();
        let superfluous = refused.len().saturating_sub(KEPT);
        for (_, path) in refused.into_iter().take(superfluous) {
            // What cannot be removed now is tried again with the next one.
            let is_folder = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
            let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed.and_then(|()| fs::remove_file(with_suffix(&path))) {
                log::warn!("{}: cannot be removed: {error}", path.display());
            }
        }
    }
}

fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(REASON_SUFFIX);
    name.into()
}

fn may_be_taken(name: &str) -> bool {
    !name.starts_with('.') && !UNFINISHED.iter().any(|ending| name.ends_with(ending))
}

/// How a file or folder looks from outside: names, sizes, times.
fn look(path: &Path, metadata: &Metadata) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut left = MOST_FILES;
    look_below(path, metadata, DEEPEST, &mut left, &mut hasher);
    hasher.finish()
}

fn look_below(path: &Path, metadata: &Metadata, depth: usize, left: &mut usize, hasher: &mut DefaultHasher) {
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino()).hash(hasher);
    if !metadata.is_dir() || depth == 0 {
        return;
    }
    let mut entries: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().take(*left).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        *left = left.saturating_sub(1);
        entry.file_name().hash(hasher);
        if let Ok(metadata) = entry.metadata() {
            look_below(&entry.path(), &metadata, depth - 1, left, hasher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox() -> (tempfile::TempDir, Inbox) {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::new(folder.path());
        assert_eq!(inbox.names().unwrap(), Vec::<String>::new(), "no folder is no bundle");
        inbox.make().unwrap();
        (folder, inbox)
    }

    #[test]
    fn what_has_not_changed_for_a_while_is_complete() {
        let (_folder, mut inbox) = inbox();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        fs::write(inbox.path("a.tar"), "a").unwrap();
        fs::create_dir(inbox.path("b")).unwrap();
        for name in [".hidden", "c.tar.part", "d.tmp"] {
            fs::write(inbox.path(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc", inbox.path("link")).unwrap();
        assert_eq!(inbox.complete(at(0)).unwrap(), Vec::<String>::new());
        assert_eq!(inbox.complete(at(2)).unwrap(), Vec::<String>::new());
        assert_eq!(inbox.complete(at(4)).unwrap(), ["a.tar"]);
        // It grows, and a file comes into the folder.
        fs::write(inbox.path("a.tar"), "ab").unwrap();
        fs::create_dir(inbox.path("b/golden")).unwrap();
        assert_eq!(inbox.complete(at(5)).unwrap(), Vec::<String>::new());
        fs::write(inbox.path("b/golden/x"), "x").unwrap();
        assert_eq!(inbox.complete(at(12)).unwrap(), ["a.tar"]);
        assert_eq!(inbox.complete(at(21)).unwrap(), ["a.tar"]);
        assert_eq!(inbox.complete(at(22)).unwrap(), ["a.tar", "b"]);
        fs::rename(inbox.path("c.tar.part"), inbox.path("c.tar")).unwrap();
        assert_eq!(inbox.names().unwrap(), ["a.tar", "b", "c.tar"]);
    }

    #[test]
    fn what_cannot_be_moved_away_is_left_until_it_changes() {
        let (_folder, mut inbox) = inbox();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        fs::write(inbox.path("a.tar"), "a").unwrap();
        inbox.leave("a.tar");
        inbox.leave("gone");
        assert_eq!(inbox.complete(at(100)).unwrap(), Vec::<String>::new());
        fs::write(inbox.path("a.tar"), "ab").unwrap();
        assert_eq!(inbox.complete(at(101)).unwrap(), Vec::<String>::new());
        assert_eq!(inbox.complete(at(105)).unwrap(), ["a.tar"]);
        inbox.leave("a.tar");
        assert_eq!(inbox.complete(at(200)).unwrap(), Vec::<String>::new());
        inbox.look_again("a.tar");
        assert_eq!(inbox.complete(at(200)).unwrap(), ["a.tar"]);
    }

    #[test]
    fn refused_ones_lie_aside_with_their_reason_and_only_the_newest_stay() {
        let (folder, mut inbox) = inbox();
        let rejected = folder.path().join("bundles/rejected");
        let mut places = Vec::new();
        for turn in 0..6 {
            if turn % 2 == 0 {
                fs::write(inbox.path("a"), [turn]).unwrap();
            } else {
                fs::create_dir_all(inbox.path("a/b")).unwrap();
            }
            places.push(inbox.reject("a", "no good", "now").unwrap());
            // Times of files are what tells which is newer.
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(inbox.names().unwrap(), Vec::<String>::new());
        // The names of those that are gone are given anew, so that the newest are told by what is in them.
        let mut kept: Vec<_> = fs::read_dir(&rejected).unwrap().map(|entry| entry.unwrap().path()).collect();
        kept.retain(|path| !path.to_string_lossy().ends_with(REASON_SUFFIX));
        assert_eq!((kept.len(), fs::read_dir(&rejected).unwrap().count()), (KEPT, 2 * KEPT));
        let files: Vec<_> = kept.iter().filter_map(|path| fs::read(path).ok()).collect();
        assert_eq!(files, [[4]], "of the turns 3, 4 and 5 only the fourth left a file");
        let reason = fs::read_to_string(with_suffix(&places[5])).unwrap();
        assert!(reason.contains("no good") && places[5].is_dir(), "{reason}");
    }

    #[test]
    fn installed_ones_are_removed_whatever_they_are() {
        let (_folder, mut inbox) = inbox();
        fs::write(inbox.path("a"), "a").unwrap();
        fs::create_dir_all(inbox.path("b/c")).unwrap();
        for name in ["a", "b", "gone"] {
            inbox.remove(name).unwrap();
        }
        assert_eq!(inbox.names().unwrap(), Vec::<String>::new());
    }
}

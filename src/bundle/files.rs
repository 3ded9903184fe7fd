//! The files of a bundle on disk: which names are allowed, how they are read, whether they are what their hashes say. Not
//! which files there must be: that is the manifest's, and [`super::Bundle`]'s.

use super::{BundleError, MANIFEST_FILE, MAX_DEPTH, SIGNATURE_FILE};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The largest file of a bundle, in bytes.
pub(super) const MAX_BYTES: u64 = 256 << 20;

/// How much of a file is held in memory while it is hashed, in bytes.
const CHUNK: usize = 256 << 10;

/// SHA-256 as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks every file of `folder` against its hash, some at a time: hashing is most of what opening a bundle costs. Of
/// several that are wrong the first by name is reported. None is held in memory whole.
pub(super) fn check_hashes(folder: &Path, listed: &BTreeMap<String, String>) -> Result<(), BundleError> {
    let files: Vec<_> = listed.iter().collect();
    let next = AtomicUsize::new(0);
    let check_some = || {
        let mut checked = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((name, expected)) = files.get(index) else { return checked };
            checked.push((index, check_hash(folder, name, expected, |_| ())));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
    let mut checked = thread::scope(|scope| {
        // Where no more threads can be had this one does it all.
        let others: Vec<_> =
            (1..threads).map_while(|_| thread::Builder::new().spawn_scoped(scope, check_some).ok()).collect();
        let mut checked = check_some();
        for other in others {
            match other.join() {
                Ok(some) => checked.extend(some),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        checked
    });
    checked.sort_by_key(|(index, _)| *index);
    checked.into_iter().try_for_each(|(_, result)| result)
}

/// Reads a file piece by piece, hands each to `keep`, and says at the end whether all of them were what the hash says.
pub(super) fn check_hash(
    folder: &Path,
    name: &str,
    expected: &str,
    mut keep: impl FnMut(&[u8]),
) -> Result<(), BundleError> {
    refuse_symlinks(folder, name)?;
    let path = folder.join(name);
    let io = |error| BundleError::Io { what: "reading", path: path.clone(), error };
    let mut file = open_bounded(&path, MAX_BYTES)?;
    let (mut hasher, mut chunk, mut length) = (Sha256::new(), vec![0; CHUNK], 0);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                length += count as u64;
                refuse_longer(&path, length, MAX_BYTES)?;
                hasher.update(&chunk[..count]);
                keep(&chunk[..count]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
    }
    same_hash(path, hex(hasher.finalize()), expected)
}

/// Refuses a file whose hash is another one than `expected`; upper and lower case are the same.
pub(super) fn same_hash(path: PathBuf, found: String, expected: &str) -> Result<(), BundleError> {
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(BundleError::Hash { path, found, expected: expected.to_owned() })
}

/// Whether a name from a manifest is a plain path inside the bundle; otherwise why not.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
    if !name.split('/').all(plain) || name.split('/').count() > MAX_DEPTH {
        return Err("the manifest lists a path that leaves the bundle. Do not use this bundle.".into());
    }
    if name == MANIFEST_FILE || name == SIGNATURE_FILE {
        return Err("the manifest lists a file that it cannot vouch for. Make the bundle again.".into());
    }
    Ok(())
}

/// Refuses a file if it, or a folder on the way to it inside the bundle, is a symbolic link.
pub(super) fn refuse_symlinks(folder: &Path, name: &str) -> Result<(), BundleError> {
    let mut partial = folder.to_owned();
    for component in name.split('/') {
        partial.push(component);
        refuse_symlink(&partial)?;
    }
    Ok(())
}

pub(super) fn refuse_symlink(path: &Path) -> Result<(), BundleError> {
    let io = |error| BundleError::Io { what: "opening", path: path.to_owned(), error };
    if fs::symlink_metadata(path).map_err(io)?.is_symlink() {
        let reason = "a bundle holds plain files only, no links. Install the bundle again.".into();
        return Err(BundleError::File { path: path.to_owned(), reason });
    }
    Ok(())
}

fn open_bounded(path: &Path, limit: u64) -> Result<File, BundleError> {
    let io = |error| BundleError::Io { what: "reading", path: path.to_owned(), error };
    if !fs::metadata(path).map_err(io)?.is_file() {
        let reason = "not a plain file. Install the bundle again.".into();
        return Err(BundleError::File { path: path.to_owned(), reason });
    }
    let file = File::open(path).map_err(io)?;
    refuse_longer(path, file.metadata().map_err(io)?.len(), limit)?;
    Ok(file)
}

fn refuse_longer(path: &Path, length: u64, limit: u64) -> Result<(), BundleError> {
    if length > limit {
        let reason = format!("longer than the {limit} bytes allowed. Install the bundle again.");
        return Err(BundleError::File { path: path.to_owned(), reason });
    }
    Ok(())
}

/// Reads a plain file of at most `limit` bytes.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, BundleError> {
    let io = |error| BundleError::Io { what: "reading", path: path.to_owned(), error };
    let file = open_bounded(path, limit)?;
    // Of the right size at once: a buffer that grows is copied, and holds the file up to twice.
    let length = file.metadata().map_err(io)?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    refuse_longer(path, bytes.len() as u64, limit)?;
    Ok(bytes)
}

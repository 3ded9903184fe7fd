//! The file of packed weights: written once a bundle and machine, memory-mapped at every later start, so that nothing is
//! packed then and the pages are shared between processes. Not a format to hand on: it is made from `model.onnx`, which is
//! the truth, and made again whenever it is not exactly what is asked for.
//!
//! ```text
//! 0      "roentgen.packed/1\n" and zeros up to 32
//! 32     key: 32 bytes, SHA-256 of whatever decides what the packed bytes are
//! 64     length of the packed bytes, u64, little-endian
//! 72     length of the note, u64, little-endian
//! 80     SHA-256 of the note
//! 112    count × 32 bytes: SHA-256 of each MiB of the packed bytes (the last may be shorter)
//! …      the note: whatever its writer wants to know of the packed bytes, at most a MiB
//! …      zeros up to a multiple of 4096
//! …      the packed bytes
//! ```
//!
//! The hashes find a file that was damaged, or half written when the power went. They do not find one that was forged:
//! whoever may write here may write hashes too, so the file lies where only the daemon writes.
#![allow(unsafe_code)] // A file is mapped into memory.

use crate::plain_file;
use memmap2::{Mmap, MmapOptions};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const MAGIC: &[u8; 32] = b"roentgen.packed/1\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Bytes that one hash stands for: many, so that a few threads share the work.
const CHUNK: usize = 1 << 20;
/// Offsets of a mapped file are multiples of a page.
const PAGE: usize = 4096;
/// Where the hashes begin.
const HASHES: usize = 112;
const HASH: usize = 32;
/// The longest note, in bytes.
const MAX_NOTE: usize = 1 << 20;
/// The most packed bytes that are read: far more than any network within the ONNX reader's limits.
const MAX_BYTES: u64 = 1 << 30;

/// Packed weights, mapped.
#[derive(Debug)]
pub struct Packed {
    map: Mmap,
    note: Range<usize>,
    start: usize,
}

/// Why there are no packed weights to be had from a file, or none could be written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file could not be read, mapped or written.
    #[error("{path}: {what}: {error}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The file is of another bundle, program or processor.
    #[error("{path}: packed from another model, or for other kernels")]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("{path}: damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
}

impl CacheError {
    /// Whether there simply is no such file yet.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

impl Packed {
    /// The note.
    pub fn note(&self) -> &[u8] {
        &self.map[self.note.clone()]
    }
}

impl Deref for Packed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.start..]
    }
}

/// The key of packed bytes that all of `parts` decide.
pub fn key(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        // Lengths too, so that no two lists of parts run together to the same bytes.
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Maps the file, if it holds just what `key` says and is whole; the start of the bytes is aligned to a page. Hashes are
/// checked by as many as `threads` threads.
pub fn load(path: &Path, key: &[u8; 32], threads: usize) -> Result<Packed, CacheError> {
    let io = |what| move |error| CacheError::Io { what, path: path.to_owned(), error };
    let damaged = |reason| CacheError::Damaged { path: path.to_owned(), reason };
    let (file, metadata) = plain_file::open(path).map_err(io("opening"))?;
    if metadata.len() > MAX_BYTES {
        return Err(damaged("longer than any"));
    }
    // SAFETY: the mapping is of a private copy-on-write kind and is only read. Should another process change or cut the file
    // meanwhile, the bytes change or the process gets SIGBUS; that is why it lies where only this program writes, and why
    // `save` never changes a file but puts another in its place.
    let map = unsafe { MmapOptions::new().populate().map_copy_read_only(&file) }.map_err(io("mapping"))?;
    let header = map.get(..HASHES).ok_or_else(|| damaged("shorter than its header"))?;
    if header[..32] != *MAGIC || header[32..64] != *key {
        return Err(CacheError::Other { path: path.to_owned() });
    }
    let number = |at: usize| header[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
    let within = |number: u64, most: usize| usize::try_from(number).ok().filter(|number| *number <= most);
    let length = within(number(64), map.len()).ok_or_else(|| damaged("its length is wrong"))?;
    let note = within(number(72), MAX_NOTE).ok_or_else(|| damaged("its note's length is wrong"))?;
    let (note, start) = layout(length, note);
    if map.len() != start + length {
        return Err(damaged("its length is wrong"));
    }
    let note_agrees = Sha256::digest(&map[note.clone()])[..] == header[80..HASHES];
    if !note_agrees || !hashes_agree(&map[start..], &map[HASHES..note.start], threads) {
        return Err(damaged("a hash is wrong"));
    }
    Ok(Packed { map, note, start })
}

/// Writes the file beside its place and puts it there whole; one that was mapped before stays as it was for who has it.
///
/// # Errors
///
/// Where it cannot be written, or the note is longer than a MiB.
pub fn save(path: &Path, key: &[u8; 32], note: &[u8], packed: &[u8]) -> Result<(), CacheError> {
    let io = |what| move |error| CacheError::Io { what, path: path.to_owned(), error };
    if note.len() > MAX_NOTE {
        return Err(io("writing the note")(io::ErrorKind::FileTooLarge.into()));
    }
    let (range, start) = layout(packed.len(), note.len());
    let mut header = vec![0; start];
    header[..32].copy_from_slice(MAGIC);
    header[32..64].copy_from_slice(key);
    header[64..72].copy_from_slice(&(packed.len() as u64).to_le_bytes());
    header[72..80].copy_from_slice(&(note.len() as u64).to_le_bytes());
    header[80..HASHES].copy_from_slice(&Sha256::digest(note));
    header[range.clone()].copy_from_slice(note);
    for (hash, chunk) in header[HASHES..range.start].chunks_exact_mut(HASH).zip(packed.chunks(CHUNK)) {
        hash.copy_from_slice(&Sha256::digest(chunk));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".packed-").tempfile_in(folder).map_err(io("making"))?;
    let write = |file: &mut File| file.write_all(&header).and_then(|()| file.write_all(packed));
    write(file.as_file_mut()).map_err(io("writing"))?;
    file.persist(path).map_err(|failed| failed.error).map_err(io("putting in place"))?;
    Ok(())
}

/// Where the note lies, and where the packed bytes begin.
fn layout(length: usize, note: usize) -> (Range<usize>, usize) {
    let hashes = HASHES + length.div_ceil(CHUNK) * HASH;
    (hashes..hashes + note, (hashes + note).next_multiple_of(PAGE))
}

fn hashes_agree(packed: &[u8], expected: &[u8], threads: usize) -> bool {
    let (next, good) = (AtomicUsize::new(0), AtomicBool::new(true));
    let check = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let from = index.saturating_mul(CHUNK);
            if from >= packed.len() {
                return;
            }
            let chunk = &packed[from..packed.len().min(from + CHUNK)];
            if Sha256::digest(chunk)[..] != expected[index * HASH..(index + 1) * HASH] {
                good.store(false, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            // Where no more threads can be had this one does the rest.
            if thread::Builder::new().spawn_scoped(scope, check).is_err() {
                break;
            }
        }
        check();
    });
    good.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn what_was_saved_is_mapped_aligned_and_only_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("packed");
        let key_a = key(&[b"a", b"bc"]);
        assert_ne!(key_a, key(&[b"ab", b"c"]));
        assert!(load(&path, &key_a, 2).unwrap_err().is_absent());
        for length in [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 5] {
            save(&path, &key_a, b"a note", &bytes(length)).unwrap();
            let packed = load(&path, &key_a, 3).unwrap();
            assert_eq!((&packed[..], packed.note()), (&bytes(length)[..], &b"a note"[..]));
            assert!(length == 0 || (packed.as_ptr() as usize).is_multiple_of(PAGE));
        }
        assert!(matches!(load(&path, &key(&[b"b"]), 1), Err(CacheError::Other { .. })));
    }

    #[test]
    fn a_file_that_was_damaged_anywhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("packed");
        let key = key(&[b"a"]);
        save(&path, &key, b"note", &bytes(CHUNK + 9)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let (note, start) = layout(CHUNK + 9, 4);
        for at in [0, 33, 65, 73, 81, HASHES, HASHES + HASH, note.start, start, start + CHUNK, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert!(load(&path, &key, 2).is_err(), "byte {at}");
        }
        for length in [0, 10, HASHES, start, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(load(&path, &key, 2).is_err(), "{length} bytes");
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(load(&path, &key, 2).is_ok());
    }

    #[test]
    fn a_mapped_file_that_is_replaced_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("packed");
        let key = key(&[b"a"]);
        save(&path, &key, b"", &bytes(5000)).unwrap();
        let before = load(&path, &key, 1).unwrap();
        save(&path, &key, b"", &[7; 5000]).unwrap();
        assert_eq!(&before[..], bytes(5000));
        assert_eq!(load(&path, &key, 1).unwrap()[0], 7);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}

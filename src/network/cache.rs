//! The file of packed weights: written once a bundle and machine, read at every later start, so that nothing is packed then.
//! Not a format to hand on: it is made from `model.onnx`, which is the truth, and made again whenever it is not exactly what
//! is asked for.
//!
//! ```text
//! 0      "roentgen.packed/1\n" and zeros up to 32
//! 32     key: 32 bytes, SHA-256 of whatever decides what the packed bytes are
//! 64     length of the packed bytes, u64, little-endian
//! 72     length of the note, u64, little-endian
//! 80     SHA-256 of the note
//! 112    count × 32 bytes: SHA-256 of each MiB of the packed bytes (the last may be shorter)
//! …      the note: whatever its writer wants to know of the packed bytes, at most a MiB
//! …      the packed bytes
//! ```
//!
//! The hashes find a file that was damaged, or half written when the power went. They do not find one that was forged:
//! whoever may write here may write hashes too, so its folder is one where only its owner writes.
//!
//! It is read, not mapped into memory: a mapped file on a failing SD card would kill the process at whatever moment a page
//! comes back unreadable, and its pages are small ones, with which an inference takes some per cent longer. What is read was
//! checked, whatever happens to the file afterwards.

use crate::kernels::Aligned;
use crate::plain_file;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

const MAGIC: &[u8; 32] = b"roentgen.packed/1\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Bytes that one hash stands for: many, so that a few threads share the work.
const CHUNK: usize = 1 << 20;
/// Where the hashes begin.
const HASHES: usize = 112;
const HASH: usize = 32;
/// The longest note, in bytes.
const MAX_NOTE: usize = 1 << 20;
/// The most packed bytes that are read: far more than any network within the ONNX reader's limits.
const MAX_BYTES: u64 = 1 << 30;

/// What was kept.
pub struct Packed {
    /// The note.
    pub note: Vec<u8>,
    /// The packed bytes, and at their end what fills them up to a multiple of 64.
    pub bytes: Aligned,
    /// How many packed bytes there are.
    pub length: usize,
}

/// Why there are no packed weights to be had from a file, or none could be written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file could not be read or written.
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

/// Reads the file, if it holds just what `key` says and is whole. As many as `threads` threads read and check hashes.
pub fn load(path: &Path, key: &[u8; 32], threads: usize) -> Result<Packed, CacheError> {
    let io = |what| move |error| CacheError::Io { what, path: path.to_owned(), error };
    let damaged = |reason| CacheError::Damaged { path: path.to_owned(), reason };
    let (file, metadata) = plain_file::open(path).map_err(io("opening"))?;
    let all = usize::try_from(metadata.len()).ok().filter(|_| metadata.len() <= MAX_BYTES);
    let all = all.ok_or_else(|| damaged("longer than any"))?;
    let mut header = [0; HASHES];
    if all < HASHES {
        return Err(damaged("shorter than its header"));
    }
    file.read_exact_at(&mut header, 0).map_err(io("reading"))?;
    if header[..32] != *MAGIC || header[32..64] != *key {
        return Err(CacheError::Other { path: path.to_owned() });
    }
    let number = |at: usize| header[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
    let within = |number: u64, most: usize| usize::try_from(number).ok().filter(|number| *number <= most);
    let length = within(number(64), all).ok_or_else(|| damaged("its length is wrong"))?;
    let note = within(number(72), MAX_NOTE).ok_or_else(|| damaged("its note's length is wrong"))?;
    let mut hashes = vec![0; length.div_ceil(CHUNK) * HASH];
    let start = HASHES + hashes.len() + note;
    if all != start + length {
        return Err(damaged("its length is wrong"));
    }
    file.read_exact_at(&mut hashes, HASHES as u64).map_err(io("reading"))?;
    let at = start - note;
    let mut note = vec![0; note];
    file.read_exact_at(&mut note, at as u64).map_err(io("reading"))?;
    let mut bytes = Aligned::zeroed(length);
    let good = read_chunks(&file, start, &mut bytes.as_u8_mut()[..length], &hashes, threads).map_err(io("reading"))?;
    if !good || Sha256::digest(&note)[..] != header[80..HASHES] {
        return Err(damaged("a hash is wrong"));
    }
    Ok(Packed { note, bytes, length })
}

/// Fills `bytes` from the file, from `start` on, and says whether every chunk has its hash.
fn read_chunks(file: &File, start: usize, bytes: &mut [u8], hashes: &[u8], threads: usize) -> io::Result<bool> {
    let chunks = Mutex::new(bytes.chunks_mut(CHUNK).zip(hashes.chunks_exact(HASH)).enumerate());
    let read = || -> io::Result<bool> {
        loop {
            // Nothing that could panic is done while it is held.
            let Some((index, (chunk, hash))) = chunks.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                return Ok(true);
            };
            file.read_exact_at(chunk, (start + index * CHUNK) as u64)?;
            if Sha256::digest(&*chunk)[..] != *hash {
                return Ok(false);
            }
        }
    };
    thread::scope(|scope| {
        // Where no more threads can be had this one does the rest.
        let others: Vec<_> =
            (1..threads.max(1)).map_while(|_| thread::Builder::new().spawn_scoped(scope, read).ok()).collect();
        let mut good = read()?;
        for other in others {
            good &= other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(good)
    })
}

/// Writes the file beside its place and puts it there whole.
///
/// # Errors
///
/// Where it cannot be written, or the note is longer than a MiB.
pub fn save(path: &Path, key: &[u8; 32], note: &[u8], packed: &[u8]) -> Result<(), CacheError> {
    let io = |what| move |error| CacheError::Io { what, path: path.to_owned(), error };
    if note.len() > MAX_NOTE {
        return Err(io("writing the note")(io::ErrorKind::FileTooLarge.into()));
    }
    let mut header = Vec::with_capacity(HASHES + packed.len().div_ceil(CHUNK) * HASH + note.len());
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(key);
    header.extend_from_slice(&(packed.len() as u64).to_le_bytes());
    header.extend_from_slice(&(note.len() as u64).to_le_bytes());
    header.extend_from_slice(&Sha256::digest(note));
    for chunk in packed.chunks(CHUNK) {
        header.extend_from_slice(&Sha256::digest(chunk));
    }
    header.extend_from_slice(note);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder).map_err(io("making"))?;
    let write = |file: &mut File| file.write_all(&header).and_then(|()| file.write_all(packed));
    write(file.as_file_mut()).map_err(io("writing"))?;
    file.persist(path).map_err(|failed| failed.error).map_err(io("putting in place"))?;
    Ok(())
}

/// How the names of files begin that [`save`] is still writing, or was when the power went.
pub const UNFINISHED: &str = ".packed-";

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn what_was_saved_is_read_and_only_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("packed");
        let key_a = key(&[b"a", b"bc"]);
        assert_ne!(key_a, key(&[b"ab", b"c"]));
        assert!(load(&path, &key_a, 2).err().unwrap().is_absent());
        for length in [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 5] {
            save(&path, &key_a, b"a note", &bytes(length)).unwrap();
            let packed = load(&path, &key_a, 3).unwrap();
            assert_eq!(
                (&packed.bytes.as_u8()[..packed.length], &packed.note[..]),
                (&bytes(length)[..], &b"a note"[..])
            );
        }
        assert!(matches!(load(&path, &key(&[b"b"]), 1), Err(CacheError::Other { .. })));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_was_damaged_anywhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("packed");
        let key = key(&[b"a"]);
        save(&path, &key, b"note", &bytes(CHUNK + 9)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let note = HASHES + 2 * HASH;
        let start = note + 4;
        for at in [0, 33, 65, 73, 81, HASHES, HASHES + HASH, note, start, start + CHUNK, whole.len() - 1] {
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
}

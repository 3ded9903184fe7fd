//! What the frozen blocks make of each augmented copy of an image, computed once and kept on disk in f16, read through
//! a memory map. It makes training block 5, or 4 and 5, feasible on a CPU. Not the pooled features for the head alone
//! (see `features`).
//!
//! A file is an array of records, one a copy, each with a check sum: a run that was killed goes on with the records
//! that are whole, and computes the others anew.

use anyhow::{Context, Result, ensure};
use half::f16;
use memmap2::Mmap;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// Bytes of the check sum that ends a record, by which an absent or torn one is known.
const CHECK: usize = 8;

/// Which part of which images a cache holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Records: one a copy of an image.
    pub(crate) records: usize,
    /// Channels, rows and columns of a record.
    pub(crate) shape: [usize; 3],
}

impl Extent {
    /// Numbers in a record.
    pub(crate) fn values(&self) -> usize {
        self.shape.iter().product()
    }

    fn record_bytes(&self) -> usize {
        self.values() * size_of::<f16>() + CHECK
    }

    /// Bytes that the whole file takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.records as u64 * self.record_bytes() as u64
    }
}

/// The records of one frozen part, one set of images and one way of augmenting them.
pub(crate) struct LowerCache {
    path: PathBuf,
    extent: Extent,
    /// The file behind the map. Whoever reads the map holds the lock for reading, whoever writes to the file for writing.
    file: RwLock<File>,
    map: Mmap,
}

impl LowerCache {
    /// Opens the cache `key` in `dir`, creating it, if it takes no more than `most` bytes.
    pub(crate) fn open(dir: &Path, key: &str, extent: Extent, most: u64) -> Result<Self> {
        const GB: f64 = 1e9;
        let path = dir.join(format!("{}.lower", &key[..key.len().min(32)]));
        let bytes = extent.bytes();
        ensure!(
            bytes <= most,
            "keeping what the frozen blocks make of {} images takes {:.1} GB in {}, more than --cache-gb allows \
             ({:.1}); ask for fewer --copies, or for a higher --cache-gb",
            extent.records,
            bytes as f64 / GB,
            dir.display(),
            most as f64 / GB
        );
        ensure!(bytes > 0, "no image to keep");
        let told = || format!("cannot use the cache of the frozen blocks {}", path.display());
        std::fs::create_dir_all(dir).with_context(told)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path).with_context(told)?;
        let found = file.metadata().with_context(told)?.len();
        ensure!(found == 0 || found == bytes, "{} has a wrong length; delete it", path.display());
        file.set_len(bytes).with_context(told)?;
        eprintln!(
            "What the frozen blocks make of {} images is kept in {} (up to {:.1} GB; delete it when you are done)",
            extent.records,
            path.display(),
            bytes as f64 / GB
        );
        let map = map(&file).with_context(told)?;
        Ok(Self { path, extent, file: RwLock::new(file), map })
    }

    /// Numbers in a record.
    pub(crate) fn extent(&self) -> Extent {
        self.extent
    }

    /// A record, if it is there and whole.
    pub(crate) fn get(&self, record: usize) -> Option<Vec<f16>> {
        let bytes = self.extent.record_bytes();
        let copy = {
            // A thread that panicked while writing left at worst a torn record, which its check sum tells.
            let _reading = self.file.read().unwrap_or_else(PoisonError::into_inner);
            self.map.get(record * bytes..(record + 1) * bytes)?.to_vec()
        };
        whole(&copy)
    }

    /// Keeps a record and returns it rounded; numbers beyond f16's range become its greatest. A record that is there and
    /// whole stays as it is and is returned instead.
    pub(crate) fn put(&self, record: usize, values: &[f32]) -> Result<Vec<f16>> {
        use std::io::{Seek, SeekFrom, Write};
        ensure!(
            values.len() == self.extent.values() && record < self.extent.records,
            "record {record} of {} numbers does not fit {:?}",
            values.len(),
            self.extent
        );
        let most = f16::MAX.to_f32();
        let rounded: Vec<f16> = values.iter().map(|value| f16::from_f32(value.clamp(-most, most))).collect();
        let mut bytes: Vec<u8> = rounded.iter().flat_map(|value| value.to_le_bytes()).collect();
        let check = Sha256::digest(&bytes);
        bytes.extend_from_slice(&check[..CHECK]);
        let at = record as u64 * self.extent.record_bytes() as u64;
        let mut file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        // The same copy may have been drawn twice before it was first computed.
        if let Some(present) = self.map.get(at as usize..at as usize + bytes.len()).and_then(whole) {
            return Ok(present);
        }
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.write_all(&bytes))
            .with_context(|| format!("cannot write {}; is the disk full?", self.path.display()))?;
        Ok(rounded)
    }
}

/// The numbers of a record's bytes, if its check sum is theirs.
fn whole(record: &[u8]) -> Option<Vec<f16>> {
    let (values, check) = record.split_at_checked(record.len().checked_sub(CHECK)?)?;
    // A place never written to holds zeros, the first bytes of no SHA-256 in practice: told at once.
    if check == [0; CHECK] || Sha256::digest(values)[..CHECK] != *check {
        return None;
    }
    Some(values.as_chunks::<2>().0.iter().map(|&value| f16::from_le_bytes(value)).collect())
}

/// Maps a file for reading.
#[expect(unsafe_code, reason = "mapping a file is unsafe: somebody else might cut it while it is read")]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is only read, as bytes, for which every value is valid, and each record is compared with its
    // check sum before it is used. The file is this tool's own, never shortened by it after the mapping. Within the
    // process no byte of the map changes while it is looked at: `get` copies under the lock for reading and lets go of
    // the map, `put` looks and writes under the lock for writing. Another process that trains with the same cache would
    // write the same bytes, and a torn copy is told by its check sum. Somebody who cuts the file off by hand while the
    // tool runs ends the tool (SIGBUS).
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT: Extent = Extent { records: 5, shape: [2, 3, 3] };

    fn values(seed: usize) -> Vec<f32> {
        (0..EXTENT.values()).map(|i| (seed * 100 + i) as f32 / 8.0).collect()
    }

    #[test]
    fn records_survive_reopening_and_torn_ones_are_absent() {
        let dir = tempfile::tempdir().unwrap();
        let open = || LowerCache::open(dir.path(), "key", EXTENT, 1 << 20).unwrap();
        let cache = open();
        assert!((0..5).all(|record| cache.get(record).is_none()));
        cache.put(1, &values(1)).unwrap();
        cache.put(4, &values(4)).unwrap();
        let read = |cache: &LowerCache, record| -> Option<Vec<f32>> {
            cache.get(record).map(|values| values.into_iter().map(f16::to_f32).collect())
        };
        assert_eq!(read(&cache, 4), Some(values(4)), "seen at once through the map");
        let path = cache.path.clone();
        drop(cache);
        let mut bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, EXTENT.bytes());
        bytes[EXTENT.record_bytes() * 4 + 7] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let cache = open();
        assert_eq!((read(&cache, 1), read(&cache, 4), read(&cache, 5)), (Some(values(1)), None, None));
        cache.put(4, &values(4)).unwrap();
        assert_eq!(read(&cache, 4), Some(values(4)));
        let kept: Vec<f32> = cache.put(4, &values(3)).unwrap().into_iter().map(f16::to_f32).collect();
        assert_eq!((kept, read(&cache, 4)), (values(4), Some(values(4))), "what is there and whole stays");
        assert!(cache.put(5, &values(5)).is_err() && cache.put(0, &[0.0]).is_err());
    }

    #[test]
    fn a_record_that_is_read_while_it_is_written_is_whole_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let extent = Extent { records: 32, shape: [8, 32, 32] };
        let cache = LowerCache::open(dir.path(), "key", extent, 1 << 30).unwrap();
        let record = |number: usize| vec![number as f32 + 0.5; extent.values()];
        let rounded = |number: usize| Some(record(number).into_iter().map(f16::from_f32).collect::<Vec<_>>());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..32).for_each(|number| drop(cache.put(number, &record(number)).unwrap())));
            }
            for number in (0..32).rev() {
                let found = cache.get(number);
                assert!(found.is_none() || found == rounded(number), "{number}");
            }
        });
        assert!((0..32).all(|number| cache.get(number) == rounded(number)));
    }

    #[test]
    fn a_cache_that_would_be_too_large_is_refused_with_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let error = LowerCache::open(dir.path(), "key", EXTENT, EXTENT.bytes() - 1).map(drop).unwrap_err();
        assert!(error.to_string().contains("--copies"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_f16_cannot_hold_becomes_its_greatest() {
        let dir = tempfile::tempdir().unwrap();
        let cache = LowerCache::open(dir.path(), "key", Extent { records: 1, shape: [1, 1, 2] }, 1 << 20).unwrap();
        let rounded = cache.put(0, &[1e9, 3.0]).unwrap();
        assert_eq!(rounded, [f16::MAX, f16::from_f32(3.0)]);
        assert_eq!(cache.get(0), Some(rounded));
    }
}

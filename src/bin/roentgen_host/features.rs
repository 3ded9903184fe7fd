//! The pooled features of the frozen trunk, computed once an image and kept on disk. A run that was killed goes on where
//! it stopped. Not the training on them.

use crate::dataset::Sample;
use crate::device::{self, device};
use crate::model::{self, Trunk};
use crate::progress;
use crate::weights::FloatModel;
use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What a record starts with: SHA-256 of the preprocessed image, so that neither another file nor another version of
/// the preprocessing can be taken for it.
type Key = [u8; 32];

/// Bytes of the check sum that ends a record, by which a torn write is seen.
const CHECK: usize = 8;

/// A file of records (key, features in f32, check sum), only ever appended to. One file per trunk, named by its hash.
pub(crate) struct Cache {
    path: PathBuf,
    channels: usize,
    known: Mutex<(HashMap<Key, Vec<f32>>, File)>,
}

impl Cache {
    /// Opens the cache of `model` in `dir`, creating it. What a killed run left half-written at the end is cut off.
    pub(crate) fn open(dir: &Path, model: &FloatModel) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join(format!("{}.features", &model.trunk_sha256()[..32]));
        let told = || format!("cannot use the feature cache {}", path.display());
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).with_context(told)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(told)?;
        let channels = model.features();
        let mut known = HashMap::new();
        let mut whole = 0;
        for record in bytes.chunks_exact(record_bytes(channels)) {
            let (content, check) = record.split_at(record.len() - CHECK);
            if Sha256::digest(content)[..CHECK] != *check {
                break;
            }
            let (key, values) = content.split_at(size_of::<Key>());
            let mut exact = Key::default();
            exact.copy_from_slice(key);
            known.insert(exact, values.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect());
            whole += record.len();
        }
        if whole < bytes.len() {
            file.set_len(whole as u64).with_context(told)?;
        }
        Ok(Self { path, channels, known: Mutex::new((known, file)) })
    }

    /// The folder it lies in.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn get(&self, key: &Key) -> Option<Vec<f32>> {
        self.locked().0.get(key).cloned()
    }

    fn put(&self, key: Key, features: Vec<f32>) -> Result<()> {
        ensure!(features.len() == self.channels, "{} features, expected {}", features.len(), self.channels);
        let mut record = key.to_vec();
        record.extend(features.iter().flat_map(|value| value.to_le_bytes()));
        let check = Sha256::digest(&record);
        record.extend_from_slice(&check[..CHECK]);
        let mut locked = self.locked();
        locked.1.write_all(&record).with_context(|| format!("cannot write {}", self.path.display()))?;
        locked.0.insert(key, features);
        Ok(())
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, (HashMap<Key, Vec<f32>>, File)> {
        // A thread that panicked while holding the lock left at worst a torn record, which the next opening cuts off.
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The folder of the caches: the one asked for, or `features` beside the model.
pub(crate) fn folder(asked: Option<&Path>, model: &Path) -> PathBuf {
    asked.map_or_else(|| model.with_file_name("features"), Path::to_owned)
}

fn record_bytes(channels: usize) -> usize {
    size_of::<Key>() + channels * size_of::<f32>() + CHECK
}

/// The pooled features of every sample, in order: from the cache, or computed and added to it.
pub(crate) fn features(model: &FloatModel, samples: &[Sample], cache: &Cache, what: &str) -> Result<Vec<Vec<f32>>> {
    let device = device();
    let trunk = Trunk::new(model, &device);
    let progress = progress::Progress::start(what, samples.len());
    let parts: Vec<Vec<Vec<f32>>> = samples
        .par_chunks(device::BATCH)
        .map(|chunk| {
            let part = of_batch(&trunk, chunk, cache, &device)?;
            progress.advance(chunk.len());
            Ok(part)
        })
        .collect::<Result<_>>()?;
    progress.finish();
    Ok(parts.into_iter().flatten().collect())
}

/// The features of images that go through the trunk together.
fn of_batch(trunk: &Trunk, samples: &[Sample], cache: &Cache, device: &Device) -> Result<Vec<Vec<f32>>> {
    let inputs = samples.iter().map(Sample::input).collect::<Result<Vec<_>>>()?;
    let keys: Vec<Key> = inputs.iter().map(|input| Sha256::digest(input).into()).collect();
    let missing: Vec<usize> = (0..keys.len()).filter(|&index| cache.get(&keys[index]).is_none()).collect();
    if !missing.is_empty() {
        let images: Vec<&[u8]> = missing.iter().map(|&index| inputs[index].as_slice()).collect();
        let computed = model::pooled(trunk.forward(model::batch(&images, device)))?;
        for (&index, features) in missing.iter().zip(computed) {
            cache.put(keys[index], features)?;
        }
    }
    keys.iter().map(|key| cache.get(key).context("features that were just computed are missing")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::FloatConv;
    use std::collections::BTreeMap;

    fn model(bias: f32) -> FloatModel {
        let conv = FloatConv {
            name: "block1_conv1".into(),
            out_channels: 3,
            in_channels: 1,
            kernel: 3,
            weights: vec![0.0; 27],
            bias: vec![bias; 3],
        };
        FloatModel { trunk: vec![conv], head: None, notes: BTreeMap::new() }
    }

    #[test]
    fn a_cache_survives_reopening_and_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), &model(0.0)).unwrap();
        cache.put([1; 32], vec![1.0, 2.0, 3.0]).unwrap();
        cache.put([2; 32], vec![4.0, 5.0, 6.0]).unwrap();
        let path = cache.path.clone();
        drop(cache);
        let whole = std::fs::read(&path).unwrap();
        for cut in whole.len() / 2..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let cache = Cache::open(dir.path(), &model(0.0)).unwrap();
            assert_eq!(cache.get(&[1; 32]), Some(vec![1.0, 2.0, 3.0]));
            assert_eq!(cache.get(&[2; 32]), None);
            cache.put([3; 32], vec![7.0, 8.0, 9.0]).unwrap();
            drop(cache);
            let cache = Cache::open(dir.path(), &model(0.0)).unwrap();
            assert_eq!(cache.get(&[3; 32]), Some(vec![7.0, 8.0, 9.0]));
        }
    }

    #[test]
    fn another_trunk_has_another_cache() {
        let dir = tempfile::tempdir().unwrap();
        Cache::open(dir.path(), &model(0.0)).unwrap().put([1; 32], vec![1.0; 3]).unwrap();
        assert_eq!(Cache::open(dir.path(), &model(1.0)).unwrap().get(&[1; 32]), None);
        assert!(Cache::open(dir.path(), &model(0.0)).unwrap().put([1; 32], vec![1.0; 4]).is_err());
    }
}

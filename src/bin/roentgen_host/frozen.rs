//! The frozen blocks below the trained ones: computed at every draw, or once a copy and then read from disk. Not the
//! file that keeps them (see `lower_cache`).

use crate::draw::{Images, Input};
use crate::lower_cache::{Extent, LowerCache};
use crate::model::{batch, numbers};
use crate::network::{Precision, Stack};
use crate::settings::Settings;
use crate::weights::FloatModel;
use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, FloatDType, Tensor as Burn, TensorData};
use half::f16;
use roentgen::network::vgg::INPUT_SIZE;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// The frozen blocks and, with `--copies`, the cache of what they give.
pub(crate) struct Frozen {
    stack: Stack,
    device: Device,
    cache: Option<Arc<LowerCache>>,
    /// The cache's record of the first image of `val`.
    val_records: usize,
}

impl Frozen {
    /// The convolutions below `split`, with a cache in `dir` for `--copies` of the images of train and for those of val.
    pub(crate) fn open(
        model: &FloatModel,
        split: usize,
        [train, val]: [&Images; 2],
        settings: &Settings,
        seed: u64,
        dir: &Path,
    ) -> Result<Self> {
        let Settings { copies, augmentation, precision, cache_gb, .. } = settings;
        ensure!(*copies == 0 || split > 0, "--copies needs frozen blocks; with --unfreeze all there are none");
        let device = crate::device::device();
        let stack = Stack::new(model, 0..split, *precision, &device);
        let val_records = train.labels.len() * copies;
        if *copies == 0 {
            return Ok(Self { stack, device, cache: None, val_records });
        }
        let side = INPUT_SIZE >> (0..split).filter(|&index| model.pools_after(index)).count();
        let extent = Extent {
            records: val_records + val.labels.len(),
            shape: [model.trunk[split - 1].out_channels, side, side],
        };
        let mut hash = Sha256::new();
        hash.update(format!("{split} {copies} {augmentation} {precision:?} {seed} {}", roentgen::preprocess::VERSION));
        for conv in &model.trunk[..split] {
            conv.weights.iter().chain(&conv.bias).for_each(|value| hash.update(value.to_le_bytes()));
        }
        train.inputs.iter().chain(&val.inputs).for_each(|input| hash.update(input));
        let cache = LowerCache::open(dir, &crate::hex(&hash.finalize()), extent, (cache_gb * 1e9) as u64)?;
        Ok(Self { stack, device, cache: Some(Arc::new(cache)), val_records })
    }

    /// The convolutions below `split` in f32, without a cache.
    pub(crate) fn exact(model: &FloatModel, split: usize) -> Self {
        let device = crate::device::device();
        Self { stack: Stack::new(model, 0..split, Precision::F32, &device), device, cache: None, val_records: 0 }
    }

    /// The cache, if there is one.
    pub(crate) fn cache(&self) -> Option<Arc<LowerCache>> {
        self.cache.clone()
    }

    /// Images `first` and on of `val` as inputs, with their records.
    pub(crate) fn val(&self, first: usize, images: &[Vec<u8>]) -> (Vec<Input>, Vec<usize>) {
        let input = |(index, image): (usize, &Vec<u8>)| {
            let record = self.val_records + first + index;
            let kept = self.cache.as_ref().and_then(|cache| cache.get(record)).map(Input::Lower);
            (kept.unwrap_or_else(|| Input::Image(image.clone())), record)
        };
        images.iter().enumerate().map(input).unzip()
    }

    /// What the frozen blocks make of the inputs: computed, or as the cache kept it.
    pub(crate) fn forward(&self, inputs: &[Input], records: &[usize]) -> Result<Burn<4>> {
        let images: Vec<&[u8]> = inputs
            .iter()
            .filter_map(|input| match input {
                Input::Image(image) => Some(image.as_slice()),
                Input::Lower(_) => None,
            })
            .collect();
        let computed = (!images.is_empty()).then(|| self.stack.forward(batch(&images, &self.device)));
        let Some(cache) = &self.cache else {
            return computed.context("a step without images");
        };
        let computed = computed.map(|map| numbers(map.cast(FloatDType::F32))).transpose()?.unwrap_or_default();
        let size = cache.extent().values();
        let mut computed = computed.chunks_exact(size);
        let mut values: Vec<f32> = Vec::with_capacity(inputs.len() * size);
        for (input, &record) in inputs.iter().zip(records) {
            match input {
                Input::Lower(kept) => values.extend(kept.iter().map(|value| value.to_f32())),
                Input::Image(_) => {
                    let fresh = computed.next().context("the frozen blocks gave too little")?;
                    // Rounded as later draws of this copy will read it, so that a resumed run goes the same way.
                    values.extend(cache.put(record, fresh)?.into_iter().map(f16::to_f32));
                }
            }
        }
        let [channels, rows, columns] = cache.extent().shape;
        Ok(Burn::from_data(TensorData::new(values, [inputs.len(), channels, rows, columns]), &self.device))
    }
}

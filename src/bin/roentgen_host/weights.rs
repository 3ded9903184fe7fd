//! The float model: its named convolutions and the safetensors file they live in. Not their arithmetic (see `model`)
//! and not the reading of other people's files (see `import`).

use anyhow::{Context, Result, bail, ensure};
use roentgen::report::Label;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The value of the `format` note in every file that [`FloatModel::save`] writes.
const FORMAT: &str = "roentgen.model/1";

/// The head's name in the file.
const HEAD: &str = "head";

/// Five halvings lead from 224 to the 7 × 7 feature map.
pub(crate) const BLOCKS: usize = 5;

/// One convolution in real numbers, stride 1, padded so that rows and columns stay the same.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FloatConv {
    /// `block1_conv1` … or `head`.
    pub(crate) name: String,
    /// Channels it writes.
    pub(crate) out_channels: usize,
    /// Channels it reads.
    pub(crate) in_channels: usize,
    /// 3 or 1: rows and columns of its kernel.
    pub(crate) kernel: usize,
    /// In the order output channel, input channel, kernel row, kernel column.
    pub(crate) weights: Vec<f32>,
    /// One per output channel.
    pub(crate) bias: Vec<f32>,
}

impl FloatConv {
    /// The block it belongs to, counted from 1, as its name says.
    pub(crate) fn block(&self) -> Option<usize> {
        self.name.strip_prefix("block")?.split('_').next()?.parse().ok()
    }
}

/// A VGG in real numbers. Its widths are those of the file it came from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FloatModel {
    /// The 3 × 3 convolutions, each followed by a ReLU; a 2 × 2 max pooling follows the last one of every block.
    pub(crate) trunk: Vec<FloatConv>,
    /// The 1 × 1 convolution to the class logits, once trained.
    pub(crate) head: Option<FloatConv>,
    /// What is known about the weights, one line a key: source, convention, training, temperature.
    pub(crate) notes: BTreeMap<String, String>,
}

impl FloatModel {
    /// Checks that the convolutions fit each other, read `in_channels` and form five blocks.
    pub(crate) fn check(&self, in_channels: usize) -> Result<()> {
        let mut channels = in_channels;
        let mut block = 1;
        for conv in &self.trunk {
            ensure!(
                conv.kernel == 3,
                "{} has a {1} × {1} kernel; VGG16's trunk has 3 × 3 only",
                conv.name,
                conv.kernel
            );
            ensure!(
                conv.in_channels == channels,
                "{} reads {} channels, the layer before it writes {channels}",
                conv.name,
                conv.in_channels
            );
            let own = conv.block().with_context(|| format!("{}: no layer name like block1_conv1", conv.name))?;
            ensure!(own == block || own == block + 1, "{}: blocks must follow each other", conv.name);
            block = own;
            channels = conv.out_channels;
        }
        ensure!(
            block == BLOCKS && self.trunk.first().and_then(FloatConv::block) == Some(1),
            "the trunk has {block} blocks, VGG16 has {BLOCKS}"
        );
        if let Some(head) = &self.head {
            ensure!(
                head.kernel == 1 && head.in_channels == channels && head.out_channels == Label::ALL.len(),
                "the head has shape {} × {} × {} × {}; it must be {} × {channels} × 1 × 1",
                head.out_channels,
                head.in_channels,
                head.kernel,
                head.kernel,
                Label::ALL.len()
            );
        }
        for conv in self.trunk.iter().chain(&self.head) {
            let expected = conv.out_channels * conv.in_channels * conv.kernel * conv.kernel;
            ensure!(
                conv.weights.len() == expected && conv.bias.len() == conv.out_channels,
                "{}: {} weights and {} biases, expected {expected} and {}",
                conv.name,
                conv.weights.len(),
                conv.bias.len(),
                conv.out_channels
            );
            ensure!(
                conv.weights.iter().chain(&conv.bias).all(|value| value.is_finite()),
                "{} holds a weight that is no finite number",
                conv.name
            );
        }
        Ok(())
    }

    /// Whether a pooling follows the trunk's convolution `index`.
    pub(crate) fn pools_after(&self, index: usize) -> bool {
        match (self.trunk.get(index), self.trunk.get(index + 1)) {
            (Some(conv), Some(next)) => conv.block() != next.block(),
            (Some(_), None) => true,
            _ => false,
        }
    }

    /// Channels of the last feature map.
    pub(crate) fn features(&self) -> usize {
        self.trunk.last().map_or(0, |conv| conv.out_channels)
    }

    /// SHA-256 (hex) of the trunk's numbers: what cached features depend on.
    pub(crate) fn trunk_sha256(&self) -> String {
        let mut hash = Sha256::new();
        for conv in &self.trunk {
            hash.update(format!("{}:{}:{}\n", conv.name, conv.in_channels, conv.out_channels));
            for value in conv.weights.iter().chain(&conv.bias) {
                hash.update(value.to_le_bytes());
            }
        }
        crate::hex(&hash.finalize())
    }

    /// Reads a model that [`FloatModel::save`] wrote.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let (tensors, notes) = read_safetensors(path)?;
        ensure!(
            notes.get("format").map(String::as_str) == Some(FORMAT),
            "{} is no model of roentgen-host; make one with `roentgen-host import --weights {0} --convention …`",
            path.display()
        );
        let mut model = from_named(tensors, notes).with_context(|| path.display().to_string())?;
        model.notes.remove("format");
        model.check(1).with_context(|| path.display().to_string())?;
        Ok(model)
    }

    /// The trained head, or what to do to get one.
    pub(crate) fn trained_head(&self, path: &Path) -> Result<&FloatConv> {
        self.head.as_ref().with_context(|| {
            format!("{} has no head yet; train one with `roentgen-host train --model {0} …`", path.display())
        })
    }

    /// Writes the model in f32. The file appears whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut blobs: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for conv in self.trunk.iter().chain(&self.head) {
            let shape = vec![conv.out_channels, conv.in_channels, conv.kernel, conv.kernel];
            blobs.push((format!("{}.weight", conv.name), shape, little_endian(&conv.weights)));
            blobs.push((format!("{}.bias", conv.name), vec![conv.out_channels], little_endian(&conv.bias)));
        }
        let mut views = Vec::new();
        for (name, shape, bytes) in &blobs {
            views.push((name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes)?));
        }
        let mut notes: HashMap<String, String> = self.notes.clone().into_iter().collect();
        notes.insert("format".into(), FORMAT.into());
        let bytes = safetensors::serialize(views, Some(notes))?;
        crate::write_whole(path, &bytes)
    }
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A tensor as read: its shape and its numbers in f32.
pub(crate) struct Numbers {
    /// Extents, outermost first.
    pub(crate) shape: Vec<usize>,
    /// The numbers, innermost extent fastest.
    pub(crate) values: Vec<f32>,
}

/// Reads every tensor of a safetensors file (f16, bf16 or f32), and its metadata.
pub(crate) fn read_safetensors(path: &Path) -> Result<(BTreeMap<String, Numbers>, BTreeMap<String, String>)> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .with_context(|| format!("{} is no safetensors file, or is damaged", path.display()))?;
    let notes = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let file = SafeTensors::deserialize(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let data = view.data();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            Dtype::F16 => {
                data.as_chunks::<2>().0.iter().map(|&bytes| half::f16::from_le_bytes(bytes).to_f32()).collect()
            }
            Dtype::BF16 => {
                data.as_chunks::<2>().0.iter().map(|&bytes| half::bf16::from_le_bytes(bytes).to_f32()).collect()
            }
            other => bail!("{}: {name} is of type {other:?}; only F32, F16 and BF16 are read", path.display()),
        };
        tensors.insert(name.to_owned(), Numbers { shape: view.shape().to_vec(), values });
    }
    Ok((tensors, notes))
}

/// Takes `NAME.weight` and `NAME.bias` pairs for convolutions, in the order of their names.
pub(crate) fn from_named(
    mut tensors: BTreeMap<String, Numbers>,
    notes: BTreeMap<String, String>,
) -> Result<FloatModel> {
    let names: Vec<String> =
        tensors.keys().filter_map(|name| name.strip_suffix(".weight")).map(str::to_owned).collect();
    let mut model = FloatModel { trunk: Vec::new(), head: None, notes };
    for name in names {
        let weight = tensors.remove(&format!("{name}.weight")).with_context(|| format!("no {name}.weight"))?;
        let bias = tensors.remove(&format!("{name}.bias")).with_context(|| format!("no {name}.bias"))?;
        let &[out_channels, in_channels, rows, columns] = weight.shape.as_slice() else {
            bail!("{name}.weight has shape {:?}, a convolution's has four extents", weight.shape);
        };
        ensure!(rows == columns, "{name} has a {rows} × {columns} kernel; VGG16 has square ones only");
        let conv =
            FloatConv { name, out_channels, in_channels, kernel: rows, weights: weight.values, bias: bias.values };
        if conv.name == HEAD {
            model.head = Some(conv);
        } else {
            model.trunk.push(conv);
        }
    }
    if let Some(stray) = tensors.keys().next() {
        bail!("{stray} belongs to no convolution");
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> FloatModel {
        let conv = |name: &str, out_channels: usize, in_channels: usize, kernel: usize| FloatConv {
            name: name.into(),
            out_channels,
            in_channels,
            kernel,
            weights: (0..out_channels * in_channels * kernel * kernel).map(|i| (i as f32).sin()).collect(),
            bias: (0..out_channels).map(|i| i as f32).collect(),
        };
        FloatModel {
            trunk: vec![
                conv("block1_conv1", 2, 1, 3),
                conv("block2_conv1", 3, 2, 3),
                conv("block3_conv1", 3, 3, 3),
                conv("block3_conv2", 3, 3, 3),
                conv("block4_conv1", 3, 3, 3),
                conv("block5_conv1", 4, 3, 3),
            ],
            head: Some(conv("head", 4, 4, 1)),
            notes: BTreeMap::from([("convention".into(), "caffe".into())]),
        }
    }

    #[test]
    fn a_saved_model_reads_back_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        model().save(&path).unwrap();
        assert_eq!(FloatModel::load(&path).unwrap(), model());
    }

    #[test]
    fn pools_stand_at_the_ends_of_blocks() {
        let model = model();
        let pools: Vec<bool> = (0..model.trunk.len()).map(|index| model.pools_after(index)).collect();
        assert_eq!(pools, [true, true, false, true, true, true]);
    }

    #[test]
    fn layers_that_do_not_fit_are_refused_by_name() {
        let mut wrong = model();
        wrong.trunk[2].in_channels = 2;
        assert!(wrong.check(1).unwrap_err().to_string().contains("block3_conv1"));
        let mut wrong = model();
        wrong.trunk[1].weights[0] = f32::NAN;
        assert!(wrong.check(1).unwrap_err().to_string().contains("block2_conv1"));
        let mut wrong = model();
        wrong.trunk.pop();
        assert!(wrong.check(1).is_err());
        assert!(model().check(3).is_err());
    }

    #[test]
    fn the_trunk_hash_sees_every_weight_and_not_the_head() {
        let mut other = model();
        other.head = None;
        assert_eq!(model().trunk_sha256(), other.trunk_sha256());
        other.trunk[5].bias[3] += 1.0;
        assert_ne!(model().trunk_sha256(), other.trunk_sha256());
    }
}

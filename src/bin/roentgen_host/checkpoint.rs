//! The whole state of a fine-tuning run in one safetensors file, so that a killed run goes on as if nothing had been.
//! Not the model that comes out of it (see `weights`).

use crate::adamw::AdamW;
use crate::history::Epoch;
use crate::model::numbers;
use crate::network::{Layer, Net};
use crate::weights::{Numbers, read_safetensors};
use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor as Burn, TensorData};
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The value of the `format` note.
const FORMAT: &str = "roentgen.checkpoint/1";

/// The averaged weights of the best pass so far.
pub(crate) struct Chosen {
    /// Accuracy plus macro F1 on `val`.
    pub(crate) score: f64,
    /// Which pass, counted from 1.
    pub(crate) epoch: usize,
    /// The weights.
    pub(crate) net: Net,
}

/// Everything that a run needs to go on. What chance brings follows from the seed and the step (see `draw`).
pub(crate) struct State {
    /// Steps done.
    pub(crate) done: usize,
    /// Minutes spent.
    pub(crate) minutes: f64,
    /// Losses seen in this pass: their sum and their number.
    pub(crate) losses: (f64, usize),
    /// The figures of the passes that are over.
    pub(crate) history: Vec<Epoch>,
    /// The trained weights.
    pub(crate) net: Net,
    /// The optimizer's moments.
    pub(crate) optimizer: AdamW,
    /// The averaged weights.
    pub(crate) averaged: Net,
    /// The best averaged weights so far, once a pass is over.
    pub(crate) chosen: Option<Chosen>,
}

impl State {
    /// Writes the state of the run `fingerprint`; the file appears whole or not at all.
    pub(crate) fn save(&self, path: &Path, fingerprint: &str) -> Result<()> {
        let mut blobs = Vec::new();
        add(&mut blobs, "trained", self.net.layers())?;
        add(&mut blobs, "first", self.optimizer.first.iter())?;
        add(&mut blobs, "second", self.optimizer.second.iter())?;
        add(&mut blobs, "averaged", self.averaged.layers())?;
        let mut notes: HashMap<String, String> = [
            ("format", FORMAT.to_owned()),
            ("run", fingerprint.to_owned()),
            ("done", self.done.to_string()),
            ("minutes", self.minutes.to_string()),
            ("loss_sum", self.losses.0.to_string()),
            ("loss_count", self.losses.1.to_string()),
            ("history", self.history.iter().map(|epoch| epoch.csv() + "\n").collect()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if let Some(chosen) = &self.chosen {
            add(&mut blobs, "chosen", chosen.net.layers())?;
            notes.insert("chosen_score".into(), chosen.score.to_string());
            notes.insert("chosen_epoch".into(), chosen.epoch.to_string());
        }
        let mut views = Vec::new();
        for (name, shape, bytes) in &blobs {
            views.push((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?));
        }
        crate::write_whole(path, &safetensors::serialize(views, Some(notes))?)
    }

    /// Reads a state that [`State::save`] wrote for the same run; `like` gives the shapes.
    pub(crate) fn load(path: &Path, fingerprint: &str, like: &Net, decay: f64, device: &Device) -> Result<Self> {
        let (mut tensors, notes) = read_safetensors(path)?;
        let told = || format!("{} is no whole checkpoint; delete it to begin anew", path.display());
        let note = |key: &str| notes.get(key).with_context(told);
        ensure!(note("format")? == FORMAT, told());
        ensure!(
            note("run")? == fingerprint,
            "{} belongs to a run with other settings, weights or images; resume it with those it was started with, or \
             delete it to begin anew",
            path.display()
        );
        let done = note("done")?.parse().with_context(told)?;
        let history: Vec<Epoch> =
            note("history")?.lines().map(Epoch::parse).collect::<Option<_>>().with_context(told)?;
        let mut net = |part: &str| -> Result<Net> {
            let layers = like
                .layers()
                .enumerate()
                .map(|(index, layer)| take(&mut tensors, part, index, layer, device).with_context(told))
                .collect::<Result<Vec<Layer>>>()?;
            Ok(like.map(|index, _| layers[index].clone()))
        };
        let optimizer = AdamW {
            decay,
            steps: done,
            first: net("first")?.layers().cloned().collect(),
            second: net("second")?.layers().cloned().collect(),
        };
        let chosen = match notes.get("chosen_score") {
            None => None,
            Some(score) => Some(Chosen {
                score: score.parse().with_context(told)?,
                epoch: note("chosen_epoch")?.parse().with_context(told)?,
                net: net("chosen")?,
            }),
        };
        Ok(Self {
            done,
            minutes: note("minutes")?.parse().with_context(told)?,
            losses: (note("loss_sum")?.parse().with_context(told)?, note("loss_count")?.parse().with_context(told)?),
            history,
            net: net("trained")?,
            optimizer,
            averaged: net("averaged")?,
            chosen,
        })
    }
}

type Blob = (String, Vec<usize>, Vec<u8>);

fn add<'a>(blobs: &mut Vec<Blob>, part: &str, layers: impl Iterator<Item = &'a Layer>) -> Result<()> {
    for (index, layer) in layers.enumerate() {
        blobs.push(blob(format!("{part}.{index}.weight"), layer.weight.clone())?);
        blobs.push(blob(format!("{part}.{index}.bias"), layer.bias.clone())?);
    }
    Ok(())
}

fn blob<const D: usize>(name: String, tensor: Burn<D>) -> Result<Blob> {
    let shape = tensor.dims().to_vec();
    Ok((name, shape, numbers(tensor)?.iter().flat_map(|value| value.to_le_bytes()).collect()))
}

/// One layer of a part of the checkpoint, if it is there in the right shape.
fn take(
    tensors: &mut BTreeMap<String, Numbers>,
    part: &str,
    index: usize,
    like: &Layer,
    device: &Device,
) -> Option<Layer> {
    let weight = tensors.remove(&format!("{part}.{index}.weight"))?;
    let bias = tensors.remove(&format!("{part}.{index}.bias"))?;
    (weight.shape == like.weight.dims() && bias.shape == like.bias.dims()).then(|| Layer {
        weight: Burn::from_data(TensorData::new(weight.values, like.weight.dims()), device),
        bias: Burn::from_data(TensorData::new(bias.values, like.bias.dims()), device),
    })
}

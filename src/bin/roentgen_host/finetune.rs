//! Fine-tuning: the upper blocks of the trunk and the head together, on augmented images. Not the head alone on a frozen
//! trunk (see `training`), which comes first and is where this starts from.
//!
//! # What a run takes
//!
//! Images a second on two Zen 5 cores, VGG16 fine-tuned from block 3 upwards on augmented images:
//!
//! | backend | images a second |
//! |---|---|
//! | LibTorch 2.9.0, feature `torch`, `--precision bf16` | 7.3: the committed model, ten passes of 4032 images in steps of 64 |
//! | burn's Flex, f32, the default | about 2: 0.7 in steps of 16 beside other work, where its plain pass reached 1.4 to 1.7, against 4.5 on an idle machine |
//!
//! PyTorch 2.9 itself, in bf16, was measured at 11.5 for blocks 3 to 5 alone, without the blocks below. burn's `cpu`
//! backend (cubecl-cpu, which brings an LLVM) was not tried, and no GPU with burn.
//!
//! The 21 thousand images of the COVID-19 Radiography Database take 1 GB of memory as the 224 × 224 bytes that they
//! are trained on; nothing else grows with their number. Fourteen passes are 300 thousand images: at the rates above
//! half a day on two cores with LibTorch, two days with Flex. Augmentation takes 2 ms of a core for an image: a GPU wants
//! two cores beside it for every thousand images that it trains on in a second, or `--copies`.
//!
//! One process trains on one device. The gradients of a step are a plain list of tensors ([`Net::gradients`]), and
//! data-parallel training needs one more line there, the mean over the devices: burn 0.22 has it as
//! `burn::tensor::distributed::all_reduce` within a `DistributedContext` (NCCL with the `cuda` feature), for the GPUs of
//! one machine; its `Learner` knows the same as `ExecutionStrategy::ddp`. Each device then trains its own share of a
//! batch, drawn by the same seed, and AdamW and the average go the same way on all of them. For GPUs of several machines
//! burn 0.22 has no such reduction: its `remote` backend reaches them as devices, at the price of sending the gradients
//! (57 MB a step from block 3 upwards) over the network.

use crate::adamw::AdamW;
use crate::checkpoint::{Chosen, State};
use crate::curves;
use crate::draw::{Images, Plan, Step, kept, loader};
use crate::frozen::Frozen;
use crate::history::{self, Epoch};
use crate::metrics::{Metrics, best, negative_log_likelihood};
use crate::model::numbers;
use crate::network::{Layer, Net, Precision, Stack};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::weights::FloatModel;
use anyhow::{Context, Result, ensure};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::tensor::{Device, Int, Tensor as Burn, TensorData};
use roentgen::network::vgg::INPUT_SIZE;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Where the checkpoint of a run that writes `out` lies.
pub(crate) fn checkpoint_path(out: &Path) -> PathBuf {
    out.with_added_extension("checkpoint")
}

/// What is to be fine-tuned, on what, and where results go.
pub(crate) struct Job<'a> {
    /// The model, its head trained.
    pub(crate) model: FloatModel,
    /// The lowest block that is trained, 1 to 5.
    pub(crate) first_block: usize,
    /// What is trained on.
    pub(crate) train: Images,
    /// What the best pass is chosen by.
    pub(crate) val: &'a Images,
    /// How.
    pub(crate) settings: &'a Settings,
    /// Where all chance comes from.
    pub(crate) seed: u64,
    /// The model's file; the checkpoint lies beside it.
    pub(crate) out: &'a Path,
    /// Where what the frozen blocks give is kept.
    pub(crate) cache: &'a Path,
}

/// What stays the same in all steps of a run.
struct Run<'a> {
    settings: &'a Settings,
    seed: u64,
    device: Device,
    frozen: Frozen,
    loss: CrossEntropyLoss,
}

/// Fine-tunes a model from a block upwards; returns it with the averaged weights that were best on `val` (accuracy plus
/// macro F1), and their logits on it, computed in f32.
pub(crate) fn finetune(job: Job<'_>) -> Result<(FloatModel, Vec<[f32; 4]>)> {
    let Job { mut model, first_block, train, val, settings, seed, out, cache } = job;
    let device = crate::device::device();
    let split = model.trunk.iter().position(|conv| conv.block() >= Some(first_block)).context("no such block")?;
    let net = Net {
        stack: Stack::new(&model, split..model.trunk.len(), settings.precision, &device),
        head: Layer::new(model.trained_head(out)?, &device),
    };
    let run = Run {
        settings,
        seed,
        frozen: Frozen::open(&model, split, [&train, val], settings, seed, cache)?,
        loss: CrossEntropyLossConfig::new().with_smoothing(Some(settings.label_smoothing)).init(&device),
        device,
    };
    let checkpoint = checkpoint_path(out);
    let fingerprint = fingerprint(&model, split, [&train, val], settings, seed);
    let mut state = run.begin(net, &checkpoint, &fingerprint)?;
    let steps_an_epoch = train.inputs.len().div_ceil(settings.fine_batch);
    let total = steps_an_epoch * settings.fine_epochs;
    let (batch, balance, augmentation, copies) =
        (settings.fine_batch, settings.balance, settings.augmentation, settings.copies);
    let plan = Plan { batch, balance, augmentation, copies, seed };
    let batches = loader(train, plan, state.done..total, run.frozen.cache());
    let before = state.minutes;
    let mut started = Instant::now();
    let mut saved = Instant::now();
    let mut first_step = true;
    let mut over = state.done >= total;

    while !over {
        let epoch = state.done / steps_an_epoch;
        let left = (epoch + 1) * steps_an_epoch - state.done;
        let progress = Progress::start(&format!("epoch {}", epoch + 1), left * batch);
        while !over && state.done < (epoch + 1) * steps_an_epoch {
            let clock = settings.minutes.map_or(0.0, |most| state.minutes / most);
            let part = clock.max(state.done as f64 / total as f64);
            if part >= 1.0 {
                over = true;
                break;
            }
            // Reading a number waits for a GPU: every tenth loss is enough to see a run go wrong.
            let watched = (state.done % steps_an_epoch).is_multiple_of(10);
            run.step(&mut state, batches.recv().context("the loader of images stopped")?, part, watched)?;
            if std::mem::take(&mut first_step) {
                // A GPU's kernels are compiled and chosen in the first step: minutes that say nothing about the rest.
                started = Instant::now();
            }
            state.minutes = before + started.elapsed().as_secs_f64() / 60.0;
            progress.advance(batch);
            // At the end of a pass the checkpoint comes after its figures, so that a resumed run cannot miss them.
            let within = !state.done.is_multiple_of(steps_an_epoch);
            if within && saved.elapsed().as_secs_f64() > 60.0 * settings.checkpoint_minutes {
                state.save(&checkpoint, &fingerprint)?;
                saved = Instant::now();
            }
        }
        progress.finish();
        if state.done == epoch * steps_an_epoch {
            // The clock ran out with the pass before: there is nothing new to judge.
            break;
        }
        over |= state.done >= total;
        run.finish_epoch(&mut state, epoch + 1, val)?;
        if let Some(chosen) = state.chosen.as_ref().filter(|chosen| chosen.epoch == epoch + 1) {
            take(&mut model, split, chosen)?;
            model.save(out)?;
        }
        if let Some(log) = &settings.log {
            crate::write_whole(log, history::csv(&state.history).as_bytes())?;
            crate::write_whole(&log.with_extension("svg"), curves::svg(&state.history).as_bytes())?;
        }
        state.save(&checkpoint, &fingerprint)?;
        saved = Instant::now();
    }

    let chosen = state.chosen.context("no pass was finished")?;
    println!("Chosen: the averaged weights after epoch {}", chosen.epoch);
    take(&mut model, split, &chosen)?;
    let exact = Run { frozen: Frozen::exact(&model, split), ..run };
    let logits = exact.judge(&chosen.net.with_precision(Precision::F32), val)?;
    Ok((model, logits))
}

/// Puts the chosen weights into the model.
fn take(model: &mut FloatModel, split: usize, chosen: &Chosen) -> Result<()> {
    for (conv, layer) in model.trunk[split..].iter_mut().chain(model.head.as_mut()).zip(chosen.net.layers()) {
        layer.store(conv)?;
    }
    model.notes.insert("fine_tuned_epoch".into(), chosen.epoch.to_string());
    Ok(())
}

impl Run<'_> {
    /// A state with nothing done, or that of the checkpoint.
    fn begin(&self, net: Net, checkpoint: &Path, fingerprint: &str) -> Result<State> {
        let decay = self.settings.fine_weight_decay;
        if !checkpoint.exists() {
            let optimizer = AdamW::new(&net, decay);
            return Ok(State {
                done: 0,
                minutes: 0.0,
                losses: (0.0, 0),
                history: Vec::new(),
                averaged: net.clone(),
                net,
                optimizer,
                chosen: None,
            });
        }
        ensure!(
            self.settings.resume,
            "{} is the checkpoint of a run that was not finished: go on with it by --resume, or delete it",
            checkpoint.display()
        );
        let state = State::load(checkpoint, fingerprint, &net, decay, &self.device)?;
        println!("Going on after step {} of {}", state.done, checkpoint.display());
        Ok(state)
    }

    /// One step of AdamW and of the average, when `part` (0..1) of the run is over; its loss is read if it is `watched`.
    fn step(&self, state: &mut State, step: Step, part: f64, watched: bool) -> Result<()> {
        let x = self.frozen.forward(&step.inputs, &step.records)?;
        let labels: Vec<i32> = step.labels.iter().map(|&label| label as i32).collect();
        let y = Burn::<1, Int>::from_data(TensorData::new(labels, [step.labels.len()]), &self.device);
        let tracked = state.net.tracked();
        let logits = tracked.forward(x.autodiff(), self.dropout(&tracked, state.done, step.labels.len()));
        let value = self.loss.forward(logits, y.autodiff());
        if watched {
            let value = f64::from(numbers(value.clone().inner().reshape([1]))?[0]);
            ensure!(value.is_finite(), "the loss is no number any more: try a smaller --fine-lr");
            state.losses = (state.losses.0 + value, state.losses.1 + 1);
        }
        let gradients = tracked.gradients(value.backward()).context("burn gave no gradient for a layer")?;
        let rate = learning_rate(self.settings.fine_lr, part);
        state.net = state.optimizer.step(&state.net, &gradients, rate);
        // Early averages would hold on to the start for too long.
        let decay = self.settings.average.min((1.0 + state.done as f64) / (10.0 + state.done as f64));
        state.averaged = state.averaged.blend(&state.net, decay);
        state.done += 1;
        Ok(())
    }

    /// Judges the averaged weights on `val`, tells and records it, and keeps them if they are the best so far.
    fn finish_epoch(&self, state: &mut State, epoch: usize, val: &Images) -> Result<()> {
        let logits = self.judge(&state.averaged, val)?;
        let metrics = Metrics::count(val.labels.iter().copied().zip(logits.iter().map(best)));
        let (sum, count) = std::mem::take(&mut state.losses);
        let figures = Epoch {
            epoch,
            loss: sum / count.max(1) as f64,
            accuracy: metrics.accuracy,
            macro_f1: metrics.macro_f1,
            nll: negative_log_likelihood(&logits, &val.labels, 1.0),
            minutes: state.minutes,
        };
        println!(
            "epoch {epoch:3}: loss {:.4}, val accuracy {:.4}, macro F1 {:.4}, nll {:.4}, recall {:?}, {:.1} min",
            figures.loss,
            figures.accuracy,
            figures.macro_f1,
            figures.nll,
            metrics.classes.iter().map(|class| (class.recall * 1000.0).round() / 1000.0).collect::<Vec<_>>(),
            figures.minutes
        );
        state.history.push(figures);
        let score = metrics.accuracy + metrics.macro_f1;
        if state.chosen.as_ref().is_none_or(|chosen| score >= chosen.score) {
            state.chosen = Some(Chosen { score, epoch, net: state.averaged.clone() });
        }
        Ok(())
    }

    /// Logits of every image.
    fn judge(&self, net: &Net, images: &Images) -> Result<Vec<[f32; 4]>> {
        let mut all = Vec::with_capacity(images.inputs.len());
        for (index, chunk) in images.inputs.chunks(self.settings.fine_batch).enumerate() {
            let (inputs, records) = self.frozen.val(index * self.settings.fine_batch, chunk);
            let logits = numbers(net.forward(self.frozen.forward(&inputs, &records)?, None))?;
            all.extend(logits.as_chunks::<4>().0);
        }
        Ok(all)
    }

    /// What the last feature map of a step is multiplied with.
    fn dropout(&self, net: &Net, step: usize, batch: usize) -> Option<Burn<4>> {
        let [_, channels, ..] = net.head.weight.dims();
        let side = INPUT_SIZE >> crate::weights::BLOCKS;
        let shape = [batch, channels, side, side];
        let dropped = self.settings.dropout;
        (dropped > 0.0).then(|| {
            let kept = kept(self.seed, step, shape.iter().product(), dropped);
            Burn::<4>::from_data(TensorData::new(kept, shape), &self.device).autodiff()
        })
    }
}

/// What tells one run from another: SHA-256 (hex) of everything that shapes its steps, but not of what only rounds.
fn fingerprint(model: &FloatModel, split: usize, sets: [&Images; 2], settings: &Settings, seed: u64) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{split} {seed} {} {:?} {}", settings.fine_epochs, settings.minutes, settings.words()));
    hash.update(model.trunk_sha256());
    // val too: the best pass is chosen by it.
    for images in sets {
        hash.update((images.inputs.len() as u64).to_le_bytes());
        for (input, label) in images.inputs.iter().zip(&images.labels) {
            hash.update(input);
            hash.update([*label as u8]);
        }
    }
    crate::hex(&hash.finalize())
}

/// The step size when `part` (0..1) of the run is over: warm-up over the first twentieth, then half a cosine down to a
/// hundredth.
fn learning_rate(greatest: f64, part: f64) -> f64 {
    const WARM: f64 = 0.05;
    if part < WARM {
        return greatest * (0.02 + 0.98 * part / WARM);
    }
    let part = (part - WARM) / (1.0 - WARM);
    greatest * (0.01 + 0.99 * 0.5 * (1.0 + (std::f64::consts::PI * part.min(1.0)).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_size_warms_up_and_falls() {
        let rate = |at: u32| learning_rate(1.0, f64::from(at) / 1000.0);
        assert!(rate(0) < 0.05 && (rate(50) - 1.0).abs() < 1e-3 && rate(1000) < 0.02);
        assert!((0..50).all(|at| rate(at + 1) >= rate(at)) && (50..1000).all(|at| rate(at + 1) <= rate(at)));
    }
}

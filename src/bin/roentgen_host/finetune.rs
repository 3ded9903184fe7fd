//! Fine-tuning: the upper blocks of the trunk and the head together, on augmented images. Not the head alone on a frozen
//! trunk (see `training`), which comes first and is where this starts from.

use crate::augment::{Strength, augment};
use crate::dataset::Sample;
use crate::metrics::{Metrics, best, negative_log_likelihood};
use crate::model::{conv2d, numbers};
use crate::progress::Progress;
use crate::random::SplitMix;
use crate::weights::{FloatConv, FloatModel};
use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Dropout, DropoutConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Int, Tensor as Burn, TensorData, activation::relu};
use rayon::prelude::*;
use roentgen::report::Label;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

/// How to fine-tune.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Settings {
    /// Passes of fine-tuning over as many images as the training split has
    #[arg(long, default_value_t = 14)]
    pub(crate) fine_epochs: usize,
    /// Greatest step size of AdamW while fine-tuning, reached after the warm-up and lowered along a cosine
    #[arg(long, default_value_t = 6e-5)]
    pub(crate) fine_lr: f64,
    /// AdamW's weight decay while fine-tuning
    #[arg(long, default_value_t = 0.02)]
    pub(crate) fine_weight_decay: f32,
    /// Images a step while fine-tuning
    #[arg(long, default_value_t = 64)]
    pub(crate) fine_batch: usize,
    /// Share of the truth that is spread over all classes, 0..1
    #[arg(long, default_value_t = 0.05)]
    pub(crate) label_smoothing: f32,
    /// Share of the last features that are dropped at random, 0..1
    #[arg(long, default_value_t = 0.3)]
    pub(crate) dropout: f64,
    /// How far classes are evened out when images are drawn: 0 as they are, 1 every class equally often
    #[arg(long, default_value_t = 0.5)]
    pub(crate) balance: f64,
    /// How slowly the averaged weights follow the trained ones, 0..1 (exponential moving average a step)
    #[arg(long, default_value_t = 0.998)]
    pub(crate) average: f64,
    /// How strongly training images are changed, 0..1: more is harder to learn and withstands more
    #[arg(long, default_value_t = 0.5)]
    pub(crate) augmentation: f32,
    /// Fit the run into so many minutes: the schedule follows the clock where that is ahead of the passes
    #[arg(long)]
    pub(crate) minutes: Option<f64>,
    /// Where a line of figures is written after every pass (CSV)
    #[arg(long)]
    pub(crate) log: Option<std::path::PathBuf>,
}

impl Settings {
    /// The settings that shape the model, for its notes.
    pub(crate) fn words(&self) -> String {
        format!(
            "AdamW, lr {}, weight decay {}, batch {}, label smoothing {}, dropout {}, balance {}, average {}, \
             augmentation {}",
            self.fine_lr,
            self.fine_weight_decay,
            self.fine_batch,
            self.label_smoothing,
            self.dropout,
            self.balance,
            self.average,
            self.augmentation
        )
    }
}

/// The part that is trained: upper convolutions and head.
#[derive(Module, Debug)]
struct Net {
    convs: Vec<Conv2d>,
    dropout: Dropout,
    head: Conv2d,
    #[module(skip)]
    pools: Vec<bool>,
}

impl Net {
    /// Logits (batch × 4) of what the frozen part gives.
    fn forward(&self, x: Burn<4>) -> Burn<2> {
        let features = self.dropout.forward(convolve(&self.convs, &self.pools, x));
        let map = self.head.forward(features);
        let [batch, classes, rows, columns] = map.dims();
        map.reshape([batch, classes, rows * columns]).mean_dim(2).reshape([batch, classes])
    }
}

fn convolve(convs: &[Conv2d], pools: &[bool], mut x: Burn<4>) -> Burn<4> {
    for (conv, &pool) in convs.iter().zip(pools) {
        x = relu(conv.forward(x));
        if pool {
            x = max_pool2d(x, MaxPoolOptions::new([2, 2]));
        }
    }
    x
}

/// The part below, which is only run.
struct Frozen {
    convs: Vec<Conv2d>,
    pools: Vec<bool>,
    device: Device,
}

impl Frozen {
    fn forward(&self, images: &[Vec<u8>]) -> Burn<4> {
        let views: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        convolve(&self.convs, &self.pools, crate::model::batch(&views, &self.device))
    }
}

/// Labelled images in memory.
pub(crate) struct Images {
    inputs: Vec<Vec<u8>>,
    labels: Vec<Label>,
}

impl Images {
    /// Reads and preprocesses every sample.
    pub(crate) fn read(samples: &[Sample]) -> Result<Self> {
        let inputs = samples.par_iter().map(Sample::input).collect::<Result<_>>()?;
        Ok(Self { inputs, labels: samples.iter().map(|sample| sample.label).collect() })
    }
}

/// One step's images, augmented, with their labels.
struct Step {
    images: Vec<Vec<u8>>,
    labels: Vec<Label>,
}

/// Fine-tunes `model` from block `first_block` (1 to 5) upwards; returns the averaged weights that were best on `val`,
/// and their logits on it.
pub(crate) fn finetune(
    mut model: FloatModel,
    first_block: usize,
    train: Images,
    val: &Images,
    settings: &Settings,
    seed: u64,
    out: &Path,
) -> Result<(FloatModel, Vec<[f32; 4]>)> {
    ensure!((0.0..=1.0).contains(&settings.augmentation), "--augmentation goes from 0 to 1");
    ensure!(settings.fine_batch > 0 && settings.fine_epochs > 0, "--fine-batch and --fine-epochs must be at least 1");
    let plain = crate::device::device();
    let device = plain.clone().autodiff();
    let split = model.trunk.iter().position(|conv| conv.block() >= Some(first_block)).context("no such block")?;
    let pools: Vec<bool> = (0..model.trunk.len()).map(|index| model.pools_after(index)).collect();
    let head = model.trained_head(out)?.clone();
    let frozen = Frozen {
        convs: model.trunk[..split].iter().map(|conv| conv2d(conv, &plain)).collect(),
        pools: pools[..split].to_vec(),
        device: plain.clone(),
    };
    let mut net = Net {
        convs: model.trunk[split..].iter().map(|conv| conv2d(conv, &device)).collect(),
        dropout: DropoutConfig::new(settings.dropout).init(),
        head: conv2d(&head, &device),
        pools: pools[split..].to_vec(),
    };
    let mut averaged = net.valid();
    let steps_an_epoch = train.inputs.len().div_ceil(settings.fine_batch);
    let total = steps_an_epoch * settings.fine_epochs;
    let batches = loader(train, settings, seed, total);
    let loss = CrossEntropyLossConfig::new().with_smoothing(Some(settings.label_smoothing)).init(&device);
    let mut optimizer = AdamWConfig::new().with_weight_decay(settings.fine_weight_decay).init();
    let mut log = settings.log.as_deref().map(start_log).transpose()?;
    let mut started = Instant::now();
    let mut part = 0.0;
    let mut chosen: Option<(f64, Vec<[f32; 4]>)> = None;

    for epoch in 0..settings.fine_epochs {
        let progress = Progress::start(&format!("epoch {}", epoch + 1), steps_an_epoch);
        let mut losses = Vec::new();
        for index in 0..steps_an_epoch {
            let at = epoch * steps_an_epoch + index;
            if at == 1 {
                // A GPU's kernels are compiled and chosen in the first step: minutes that say nothing about the rest.
                started = Instant::now();
            }
            let clock = settings.minutes.map_or(0.0, |most| started.elapsed().as_secs_f64() / 60.0 / most);
            part = clock.max(at as f64 / total as f64);
            if part >= 1.0 {
                break;
            }
            let Step { images, labels } = batches.recv().context("the loader of images stopped")?;
            let x = frozen.forward(&images).autodiff();
            let y: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
            let y = Burn::<1, Int>::from_data(TensorData::new(y, [labels.len()]), &device);
            let value = loss.forward(net.forward(x), y);
            // Reading a number waits for the GPU: every tenth is enough to see a run go wrong.
            if at.is_multiple_of(10) {
                losses.push(numbers(value.clone().inner().reshape([1]))?[0]);
            }
            let gradients = GradientsParams::from_grads(value.backward(), &net);
            net = optimizer.step(learning_rate(settings.fine_lr, part), net, gradients);
            // Early averages would hold on to the start for too long.
            let decay = settings.average.min((1.0 + at as f64) / (10.0 + at as f64));
            averaged = average(averaged, &net, decay);
            progress.advance(1);
        }
        progress.finish();
        let logits = judge(&frozen, &averaged, val, settings.fine_batch)?;
        let metrics = Metrics::count(val.labels.iter().copied().zip(logits.iter().map(best)));
        let nll = negative_log_likelihood(&logits, &val.labels, 1.0);
        let mean_loss = losses.iter().sum::<f32>() / losses.len().max(1) as f32;
        let minutes = started.elapsed().as_secs_f64() / 60.0;
        println!(
            "epoch {:3}: loss {mean_loss:.4}, val accuracy {:.4}, macro F1 {:.4}, nll {nll:.4}, recall {:?}, {minutes:.1} min",
            epoch + 1,
            metrics.accuracy,
            metrics.macro_f1,
            metrics.classes.iter().map(|class| (class.recall * 1000.0).round() / 1000.0).collect::<Vec<_>>(),
        );
        if let Some(log) = &mut log {
            writeln!(log, "{},{mean_loss},{},{},{nll},{minutes}", epoch + 1, metrics.accuracy, metrics.macro_f1)
                .context("cannot write the log")?;
        }
        ensure!(mean_loss.is_finite(), "the loss is no number any more: try a smaller --fine-lr");
        let score = metrics.accuracy + metrics.macro_f1;
        if chosen.as_ref().is_none_or(|(best, _)| score >= *best) {
            chosen = Some((score, logits));
            for (conv, trained) in model.trunk[split..].iter_mut().zip(&averaged.convs) {
                take(conv, trained)?;
            }
            let mut new_head = head.clone();
            take(&mut new_head, &averaged.head)?;
            model.head = Some(new_head);
            model.notes.insert("fine_tuned_epoch".into(), (epoch + 1).to_string());
            model.save(out)?;
        }
        if part >= 1.0 {
            break;
        }
    }
    let (_, logits) = chosen.context("no pass was finished")?;
    Ok((model, logits))
}

fn start_log(path: &Path) -> Result<std::fs::File> {
    let mut file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(file, "epoch,loss,val_accuracy,val_macro_f1,val_nll,minutes").context("cannot write the log")?;
    Ok(file)
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

/// Makes augmented steps ahead of the training, on all cores.
fn loader(train: Images, settings: &Settings, seed: u64, total: usize) -> Receiver<Step> {
    let (sender, receiver) = sync_channel(4);
    let (batch, balance) = (settings.fine_batch, settings.balance);
    let strength = Strength::scaled(settings.augmentation);
    std::thread::spawn(move || {
        let mut random = SplitMix::of(&[seed, 0xa6]);
        let mut queues = Draw::new(&train.labels, balance);
        for step in 0..total {
            let chosen: Vec<usize> = (0..batch).map(|_| queues.next(&mut random)).collect();
            let images = chosen
                .par_iter()
                .enumerate()
                .map(|(place, &index)| {
                    let mut random = SplitMix::of(&[seed, step as u64, place as u64]);
                    augment(&train.inputs[index], &strength, &mut random)
                })
                .collect();
            let labels = chosen.iter().map(|&index| train.labels[index]).collect();
            if sender.send(Step { images, labels }).is_err() {
                // The training ended early.
                return;
            }
        }
    });
    receiver
}

/// Draws images: the class by chance, then the next image of the class's shuffled pile.
struct Draw {
    piles: Vec<Vec<usize>>,
    left: Vec<Vec<usize>>,
    shares: Vec<f64>,
}

impl Draw {
    fn new(labels: &[Label], balance: f64) -> Self {
        let piles: Vec<Vec<usize>> = Label::ALL
            .into_iter()
            .map(|label| (0..labels.len()).filter(|&index| labels[index] == label).collect::<Vec<_>>())
            .filter(|pile| !pile.is_empty())
            .collect();
        let shares = piles.iter().map(|pile| (pile.len() as f64).powf(1.0 - balance)).collect();
        let left = vec![Vec::new(); piles.len()];
        Self { piles, left, shares }
    }

    fn next(&mut self, random: &mut SplitMix) -> usize {
        let sum: f64 = self.shares.iter().sum();
        let mut at = f64::from(random.uniform(0.0, 1.0)) * sum;
        let mut class = 0;
        while class + 1 < self.shares.len() && at >= self.shares[class] {
            at -= self.shares[class];
            class += 1;
        }
        if self.left[class].is_empty() {
            self.left[class] = self.piles[class].clone();
            random.shuffle(&mut self.left[class]);
        }
        self.left[class].pop().unwrap_or_default()
    }
}

/// Moves the averaged weights towards the trained ones.
fn average(averaged: Net, trained: &Net, decay: f64) -> Net {
    let trained = trained.valid();
    let blend = |old: Conv2d, new: &Conv2d| {
        let mut conv = old;
        conv.weight = conv.weight.map(|w| w.mul_scalar(decay) + new.weight.val().mul_scalar(1.0 - decay));
        if let (Some(old), Some(new)) = (conv.bias.take(), &new.bias) {
            conv.bias = Some(old.map(|b| b.mul_scalar(decay) + new.val().mul_scalar(1.0 - decay)));
        }
        conv
    };
    Net {
        convs: averaged.convs.into_iter().zip(&trained.convs).map(|(old, new)| blend(old, new)).collect(),
        dropout: averaged.dropout,
        head: blend(averaged.head, &trained.head),
        pools: averaged.pools,
    }
}

fn judge(frozen: &Frozen, net: &Net, images: &Images, batch: usize) -> Result<Vec<[f32; 4]>> {
    let mut all = Vec::with_capacity(images.inputs.len());
    for chunk in images.inputs.chunks(batch) {
        let logits = numbers(net.forward(frozen.forward(chunk)))?;
        all.extend(logits.as_chunks::<4>().0);
    }
    Ok(all)
}

fn take(conv: &mut FloatConv, trained: &Conv2d) -> Result<()> {
    conv.weights = numbers(trained.weight.val())?;
    conv.bias = numbers(trained.bias.as_ref().context("a convolution lost its bias")?.val())?;
    Ok(())
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

    #[test]
    fn drawing_evens_classes_out_as_told_and_sees_every_image() {
        let labels: Vec<Label> = (0..1000).map(|i| if i < 900 { Label::Normal } else { Label::Covid }).collect();
        for (balance, expected) in [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)] {
            let mut draw = Draw::new(&labels, balance);
            let mut random = SplitMix::new(7);
            let drawn: Vec<usize> = (0..20_000).map(|_| draw.next(&mut random)).collect();
            let share = drawn.iter().filter(|&&index| index >= 900).count() as f64 / drawn.len() as f64;
            assert!((share - expected).abs() < 0.02, "{balance}: {share}");
            assert_eq!(drawn.into_iter().collect::<std::collections::BTreeSet<_>>().len(), 1000);
        }
    }
}

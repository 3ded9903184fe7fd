//! `roentgen-host train`: the head on the features of the frozen trunk, then its temperature. Not the trunk's training.
//!
//! The head is a 1 × 1 convolution on the 7 × 7 feature map, averaged over its cells. Convolution and average are both
//! linear, so that is the same function as a linear layer on the averaged features, and it is trained as such: on one
//! vector of features an image.

use crate::dataset::{Dataset, Sample, Split, thin};
use crate::device::device;
use crate::draw::Images;
use crate::features::{self, Cache};
use crate::finetune::{self, Job, finetune};
use crate::metrics::{Metrics, best, negative_log_likelihood};
use crate::model::logits;
use crate::progress::Progress;
use crate::random::SplitMix;
use crate::settings::Settings;
use crate::standardize::Standardize;
use crate::start::Start;
use crate::weights::FloatConv;
use anyhow::{Context, Result, ensure};
use burn::module::{Initializer, Module};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor as Burn, TensorData};
use roentgen::preprocess;
use roentgen::report::Label;
use std::path::PathBuf;

/// What `train` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    start: Start,
    /// Images: train/, val/ and test/ above the class folders, or class folders alone (split by --seed), such as the
    /// COVID-19 Radiography Database's own CLASS/images
    #[arg(long)]
    data: PathBuf,
    /// Where to write the trained model
    #[arg(long, default_value = "trained.safetensors")]
    out: PathBuf,
    /// Where computed features are kept; beside the model by default
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Passes over the training images, at most
    #[arg(long, default_value_t = 600)]
    epochs: usize,
    /// Step size of AdamW
    #[arg(long, default_value_t = 3e-4)]
    lr: f64,
    /// AdamW's weight decay: strong, since 512 features tell more about few hundred images of a class than is so
    #[arg(long, default_value_t = 1.0)]
    weight_decay: f32,
    /// Images a step
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Order of the images, and the split where the data has none
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop after so many epochs without a better loss on val
    #[arg(long, default_value_t = 30)]
    patience: usize,
    /// Whether rare classes count more
    #[arg(long, value_enum, default_value_t = ClassWeights::Balanced)]
    class_weights: ClassWeights,
    /// Use at most so many images of every class and split: for a quick trial
    #[arg(long)]
    limit: Option<usize>,
    /// What to fine-tune after the head: everything from this block upwards
    #[arg(long, value_enum, default_value_t = Unfreeze::None)]
    unfreeze: Unfreeze,
    #[command(flatten)]
    fine: Settings,
}

/// From where the trunk is fine-tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Unfreeze {
    /// The head alone.
    None,
    /// Block 5 and the head.
    Block5,
    /// Blocks 4 and up.
    Block4,
    /// Blocks 3 and up.
    Block3,
    /// Blocks 2 and up.
    Block2,
    /// Everything.
    All,
}

impl Unfreeze {
    /// The lowest block that is trained, if any.
    fn first_block(self) -> Option<usize> {
        match self {
            Unfreeze::None => None,
            Unfreeze::Block5 => Some(5),
            Unfreeze::Block4 => Some(4),
            Unfreeze::Block3 => Some(3),
            Unfreeze::Block2 => Some(2),
            Unfreeze::All => Some(1),
        }
    }
}

/// Whether rare classes count more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ClassWeights {
    /// Every class counts the same, however many images it has.
    Balanced,
    /// Every image counts the same.
    None,
}

impl ClassWeights {
    /// As typed.
    fn name(self) -> &'static str {
        match self {
            ClassWeights::Balanced => "balanced",
            ClassWeights::None => "none",
        }
    }
}

/// The head while it is trained: on standardized features.
#[derive(Module, Debug)]
struct Head {
    linear: Linear,
}

/// Features and labels of one split.
struct Examples {
    features: Vec<Vec<f32>>,
    labels: Vec<Label>,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.batch > 0 && args.epochs > 0, "--batch and --epochs must be at least 1");
    ensure!(args.lr > 0.0 && args.lr.is_finite(), "--lr must be above 0");
    ensure!(args.weight_decay >= 0.0 && args.weight_decay.is_finite(), "--weight-decay must not be below 0");
    if args.unfreeze.first_block().is_some() {
        args.fine.check()?;
    }
    let mut model = args.start.model(args.seed)?;
    let mut data = Dataset::open(&args.data)?;
    data.assign_splits(args.seed);
    let cache = Cache::open(&features::folder(args.cache.as_deref(), args.start.file(&args.out)), &model)?;
    let samples = |split: Split| -> Result<Vec<Sample>> {
        let all = data.of(split);
        let samples: Vec<Sample> = args.limit.map_or_else(|| all.clone(), |limit| thin(&all, limit));
        ensure!(!samples.is_empty(), "{} holds no image for {split}", args.data.display());
        Ok(samples)
    };
    let (train_samples, val_samples) = (samples(Split::Train)?, samples(Split::Val)?);
    let examples = |split: Split, samples: &[Sample]| -> Result<Examples> {
        let features = features::features(&model, samples, &cache, &format!("features of {split}"))?;
        Ok(Examples { features, labels: samples.iter().map(|sample| sample.label).collect() })
    };
    let (train, val) = (examples(Split::Train, &train_samples)?, examples(Split::Val, &val_samples)?);

    let head = train_head(args, &train, &val)?;
    let mut on_val: Vec<[f32; 4]> = val.features.iter().map(|features| logits(&head, features)).collect();
    model.head = Some(head);
    if let Some(first_block) = args.unfreeze.first_block() {
        println!(
            "val, head alone: {}",
            Metrics::count(val.labels.iter().copied().zip(on_val.iter().map(best))).table()
        );
        let (train, val) = (Images::read(&train_samples)?, Images::read(&val_samples)?);
        let cache = cache.folder();
        let (settings, seed, out) = (&args.fine, args.seed, &args.out);
        (model, on_val) = finetune(Job { model, first_block, train, val: &val, settings, seed, out, cache })?;
    }
    let temperature = fit_temperature(&on_val, &val.labels);
    let metrics = Metrics::count(val.labels.iter().copied().zip(on_val.iter().map(best)));
    println!("val: {}", metrics.table());
    println!(
        "temperature {temperature:.3}: negative log-likelihood on val {:.4} → {:.4}",
        negative_log_likelihood(&on_val, &val.labels, 1.0),
        negative_log_likelihood(&on_val, &val.labels, temperature)
    );

    let notes = [
        ("temperature", temperature.to_string()),
        ("preprocessing", preprocess::VERSION.to_owned()),
        ("training_images", train.labels.len().to_string()),
        ("val_images", val.labels.len().to_string()),
        ("val_accuracy", format!("{:.4}", metrics.accuracy)),
        (
            "training",
            match args.unfreeze.first_block() {
                None => format!(
                    "head only, on the frozen trunk: AdamW, lr {}, weight decay {}, batch {}, seed {}, class weights {}",
                    args.lr,
                    args.weight_decay,
                    args.batch,
                    args.seed,
                    args.class_weights.name()
                ),
                Some(block) => format!("fine-tuned from block {block} up, seed {}: {}", args.seed, args.fine.words()),
            },
        ),
    ];
    model.notes.extend(notes.map(|(key, value)| (key.to_owned(), value)));
    model.save(&args.out)?;
    let checkpoint = finetune::checkpoint_path(&args.out);
    if args.unfreeze.first_block().is_some() {
        std::fs::remove_file(&checkpoint).with_context(|| format!("cannot delete {}", checkpoint.display()))?;
    }
    println!("Trained model written to {}. Next: roentgen-host quantize --model {0} …", args.out.display());
    Ok(())
}

/// Trains until the loss on `val` has not improved for `patience` epochs; returns the best head, for plain features.
fn train_head(args: &Args, train: &Examples, val: &Examples) -> Result<FloatConv> {
    let counts = Label::ALL.map(|label| train.labels.iter().filter(|&&l| l == label).count());
    for (label, count) in Label::ALL.into_iter().zip(counts) {
        ensure!(count > 0, "no training image of class {label}; the model must see every class");
    }
    let device = device().autodiff();
    let standardize = Standardize::fit(&train.features).context("no training image")?;
    let channels = train.features[0].len();
    let xs: Vec<Vec<f32>> = train.features.iter().map(|x| standardize.apply(x)).collect();
    let class_weights = counts.map(|count| match args.class_weights {
        ClassWeights::Balanced => train.labels.len() as f32 / (4 * count) as f32,
        ClassWeights::None => 1.0,
    });
    let loss = CrossEntropyLossConfig::new().with_weights(Some(class_weights.to_vec())).init(&device);
    let mut optimizer = AdamWConfig::new().with_weight_decay(args.weight_decay).init();
    // The loss is convex in the head: it starts at zero, and only the order of the images is random.
    let mut head = Head {
        linear: LinearConfig::new(channels, Label::ALL.len()).with_initializer(Initializer::Zeros).init(&device),
    };
    let mut order: Vec<usize> = (0..xs.len()).collect();
    let mut random = SplitMix::new(args.seed);
    let mut chosen: Option<(f64, usize, FloatConv)> = None;
    let progress = Progress::start("training the head", args.epochs);
    for epoch in 0..args.epochs {
        random.shuffle(&mut order);
        for step in order.chunks(args.batch) {
            let (x, y) = step_tensors(step, &xs, &train.labels, &device);
            let gradients = loss.forward(head.linear.forward(x), y).backward();
            let gradients = GradientsParams::from_grads(gradients, &head);
            head = optimizer.step(args.lr, head, gradients);
        }
        let candidate = standardize.unfold(&plain(&head)?);
        let on_val: Vec<[f32; 4]> = val.features.iter().map(|features| logits(&candidate, features)).collect();
        let nll = negative_log_likelihood(&on_val, &val.labels, 1.0);
        progress.advance(1);
        if chosen.as_ref().is_none_or(|(best, ..)| nll < *best) {
            chosen = Some((nll, epoch, candidate));
        } else if chosen.as_ref().is_some_and(|(_, best, _)| epoch - best >= args.patience) {
            break;
        }
    }
    progress.finish();
    let (nll, epoch, head) = chosen.context("the loss on val was never a number; try a smaller --lr")?;
    println!("Best after epoch {} of {}: negative log-likelihood {nll:.4} on val", epoch + 1, args.epochs);
    Ok(head)
}

/// One step's features and labels on the device.
fn step_tensors(step: &[usize], xs: &[Vec<f32>], labels: &[Label], device: &Device) -> (Burn<2>, Burn<1, Int>) {
    let x: Vec<f32> = step.iter().flat_map(|&index| xs[index].iter().copied()).collect();
    let y: Vec<i32> = step.iter().map(|&index| labels[index] as i32).collect();
    let width = x.len() / step.len().max(1);
    (
        Burn::from_data(TensorData::new(x, [step.len(), width]), device),
        Burn::from_data(TensorData::new(y, [step.len()]), device),
    )
}

/// The burn head as a 1 × 1 convolution (burn keeps a linear layer's weights as input × output).
fn plain(head: &Head) -> Result<FloatConv> {
    let head = head.valid();
    let [in_channels, out_channels] = head.linear.weight.dims();
    let bias = head.linear.bias.as_ref().context("the head has no bias")?;
    Ok(FloatConv {
        name: "head".into(),
        out_channels,
        in_channels,
        kernel: 1,
        weights: crate::model::numbers(head.linear.weight.val().transpose())?,
        bias: crate::model::numbers(bias.val())?,
    })
}

/// The temperature that makes the negative log-likelihood least (Guo et al. 2017), by golden section on its logarithm.
pub(crate) fn fit_temperature(logits: &[[f32; 4]], truth: &[Label]) -> f64 {
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let cost = |log: f64| negative_log_likelihood(logits, truth, log.exp());
    let (mut low, mut high) = (0.05f64.ln(), 20f64.ln());
    for _ in 0..60 {
        let (a, b) = (high - golden * (high - low), low + golden * (high - low));
        if cost(a) < cost(b) {
            high = b;
        } else {
            low = a;
        }
    }
    f64::midpoint(low, high).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overconfident_logits_get_the_temperature_they_need() {
        // Three of four right with equal logits: the best probability is 3/4, so logit / T = ln(9) with four classes.
        let logits = vec![[20.0, 0.0, 0.0, 0.0]; 400];
        let truth: Vec<Label> = (0..400).map(|i| if i % 4 == 0 { Label::Normal } else { Label::Covid }).collect();
        let temperature = fit_temperature(&logits, &truth);
        // 100 of 400 go to one of three other classes: p = 3/4 needs e^(20/T) / (e^(20/T) + 3) = 3/4.
        assert!((20.0 / temperature - 9f64.ln()).abs() < 0.01, "{temperature}");
    }
}

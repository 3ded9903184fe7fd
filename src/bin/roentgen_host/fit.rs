//! Fits what a bundle says beside its network: the temperature, the gates of abstention and the least probability that is
//! reported. And `roentgen-host fit`, which does that again for a bundle that is there.
//!
//! The gates are fitted on train: views of the images themselves and of slightly moved copies for what must pass, turned,
//! inverted and halved copies for the pose; the int8 network's own features for the distance from the classes. Every limit
//! is such that of val, and of train judged by gates that were fitted to the other two thirds of it, no more than the stated
//! share is turned away: a set of 500 alone says little about its last few images. Only val decides about temperature and
//! probability, since the network has learned train by heart.

mod copies;
mod pose;
mod principal;

use crate::dataset::{Dataset, Sample, Split, thin};
use crate::judge::{self, Verdict};
use crate::progress::Progress;
use crate::random::SplitMix;
use crate::training::fit_temperature;
use anyhow::{Context, Result, anyhow, ensure};
use principal::Principal;
use rayon::prelude::*;
use roentgen::assess::gates::{Gates, Pose, Subspace, direction, energy};
use roentgen::assess::view::View;
use roentgen::assess::{findings, quality};
use roentgen::bundle::{Bundle, BundleWriter, Calibration, GATES_FILE, GATES_SCHEMA, GateLimits, Manifest, Thresholds};
use roentgen::preprocess::preprocess;
use roentgen::report::{Label, ReasonCode};
use semver::Version;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Principal components of pixels, gradients and features.
const COMPONENTS: [usize; 3] = [32, 48, 32];
/// Slightly moved copies of a training image.
const MOVED: usize = 2;
/// At most so many training images are copied into every other pose.
const POSED: usize = 2000;
/// Parts of train of which each is judged by gates fitted to the others.
const FOLDS: usize = 3;
/// The energy's share of the false abstentions: it catches little that the distance does not.
const ENERGY: f64 = 0.4;
/// Even where every val image is surely upright, the pose gate closes only below this.
const MOST_UPRIGHT: f64 = 0.3;
/// The least probability that is reported, whatever the images: above chance.
const LEAST_PROBABILITY: f32 = 0.3;

/// How to fit.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Share of ordinary radiographs that each gate may turn away
    #[arg(long, default_value_t = 0.005)]
    false_abstention: f64,
    /// Share of val on which the box may abstain for any reason: sets the least probability that is reported. A clinic is
    /// promised 5 %; of 500 images 3 % is the greatest share whose 95 % interval (Wilson) ends below that
    #[arg(long, default_value_t = 0.03)]
    abstention: f64,
    /// Abstain where the best label is less probable than this, instead
    #[arg(long)]
    min_probability: Option<f32>,
    /// Training images whose features the int8 network is run for, all classes alike
    #[arg(long, default_value_t = 1200)]
    gate_images: usize,
}

impl Options {
    /// Refuses what cannot be meant, before any work.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!((0.0..1.0).contains(&self.false_abstention), "--false-abstention goes from 0 to less than 1");
        ensure!((0.0..1.0).contains(&self.abstention), "--abstention goes from 0 to less than 1");
        let least = self.min_probability.unwrap_or(0.0);
        ensure!((0.0..=1.0).contains(&least), "--min-probability goes from 0 to 1");
        ensure!(self.gate_images >= Label::ALL.len(), "--gate-images must be at least one of each class");
        Ok(())
    }

    /// What was done with them, in words, for the bundle's provenance.
    pub(crate) fn provenance(&self) -> String {
        let least = match self.min_probability {
            Some(least) => format!("the least probability reported is set to {least}"),
            None => format!("the least probability reported lets the box abstain on {} of val", self.abstention),
        };
        let rate = self.false_abstention;
        format!(
            "temperature, gates and threshold fitted on the int8 network; each gate may turn away {rate} of val, those by \
             distance also no more of train by gates fitted to the rest of it (the greater limit counts); {least}"
        )
    }
}

/// What `fit` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The bundle; it is read and not changed
    #[arg(long)]
    bundle: PathBuf,
    /// Labelled images, those it was trained on or a clinic's own: train fits the gates, val sets limits, temperature and
    /// threshold
    #[arg(long)]
    data: PathBuf,
    /// Where to write the fitted bundle, unsigned
    #[arg(long)]
    out: PathBuf,
    /// The fitted bundle's version, later than that of --bundle: a box takes no other bundle of the same version
    #[arg(long)]
    version: String,
    /// The seed given to train: divides data that has no splits
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    options: Options,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.options.check()?;
    let bundle = Bundle::open(&args.bundle)?;
    check_version(&args.version, &bundle.manifest().version)?;
    let mut data = Dataset::open(&args.data)?;
    data.assign_splits(args.seed);
    let fitted = fit(&bundle, &data, &args.options)?;
    let count = |split| data.of(split).len();
    let provenance = BTreeMap::from([
        ("abstention".to_owned(), args.options.provenance()),
        (
            "abstention_images".to_owned(),
            format!(
                "fitted again on {} images of train and {} of val, not on those counted here; the figures in its report and \
                 card are of version {}, before that",
                count(Split::Train),
                count(Split::Val),
                bundle.manifest().version
            ),
        ),
    ]);
    let writer = BundleWriter::of(&bundle)?.versioned(&args.version, provenance);
    let written = fitted.into(writer)?.write(&args.out)?;
    println!("Bundle written to {}, SHA-256 {}", args.out.display(), written.sha256());
    println!("Its report and card still hold the figures of before: measure it with `roentgen-host evaluate`.");
    Ok(())
}

/// Refuses a version that a box which has the bundle would not take as a later one.
fn check_version(version: &str, before: &str) -> Result<()> {
    let told = || format!("--version {version:?} is no semantic version, like 1.2.0");
    let later = Version::parse(version).with_context(told)?;
    if let Ok(before) = Version::parse(before) {
        ensure!(later > before, "--version {version} must be later than {before}, the version of --bundle");
    }
    Ok(())
}

/// What was fitted.
pub(crate) struct Fitted {
    calibration: Calibration,
    thresholds: Thresholds,
    gates: Gates,
}

impl Fitted {
    /// Puts it into a bundle that is to be written.
    pub(crate) fn into(self, writer: BundleWriter) -> Result<BundleWriter> {
        let file = self.gates.encode().map_err(|reason| anyhow!("the gates cannot be written: {reason}"))?;
        let limits = self.gates.limits;
        Ok(writer.fitted(self.calibration, self.thresholds, Some(limits)).file(GATES_FILE, file))
    }
}

/// What is known of one val image.
struct Known {
    view: View,
    /// The codes of its quality.
    quality: Vec<ReasonCode>,
    verdict: Verdict,
    truth: Label,
}

/// Fits everything for the network of `bundle`, whose own calibration and gates play no part.
pub(crate) fn fit(bundle: &Bundle, data: &Dataset, options: &Options) -> Result<Fitted> {
    let (train, val) = (data.of(Split::Train), data.of(Split::Val));
    ensure!(!train.is_empty() && !val.is_empty(), "the gates need images in train and in val");
    let val = known(bundle, &val)?;
    let logits: Vec<[f32; 4]> = val.iter().map(|known| known.verdict.logits).collect();
    let truths: Vec<Label> = val.iter().map(|known| known.truth).collect();
    let temperature = fit_temperature(&logits, &truths) as f32;
    println!("temperature {temperature:.4}, fitted on the int8 logits of {} val images", val.len());
    let gates = gates(bundle, &train, &val, temperature, options)?;
    let thresholds = thresholds(&gates, &val, temperature, options);
    Ok(Fitted { calibration: Calibration { temperature }, thresholds, gates })
}

fn known(bundle: &Bundle, samples: &[Sample]) -> Result<Vec<Known>> {
    let judged = judge::int8(bundle, samples)?;
    let pairs: Vec<(Sample, Verdict)> = judged.samples.into_iter().zip(judged.verdicts).collect();
    pairs
        .into_par_iter()
        .map(|(sample, verdict)| {
            let radiograph = sample.radiograph()?;
            let view = View::of(&preprocess(&radiograph));
            let quality = quality::reasons(&radiograph, &view).into_iter().map(|reason| reason.code).collect();
            Ok(Known { view, quality, verdict, truth: sample.label })
        })
        .collect()
}

/// The vectors of train, three copies an image one after another: itself, then moved.
struct Views {
    pixels: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    /// Gradients in the other poses, and which.
    posed: Vec<(Vec<f32>, Pose)>,
}

fn views(manifest: &Manifest, train: &[Sample]) -> Result<Views> {
    let side = manifest.input.rows;
    let step = train.len().div_ceil(POSED);
    let progress = Progress::start("views of train", train.len());
    type Copies = (Vec<View>, Vec<(View, Pose)>);
    let all: Vec<Copies> = train
        .par_iter()
        .enumerate()
        .map(|(index, sample)| {
            let levels = sample.input()?;
            let mut random = SplitMix::of(&[index as u64]);
            let mut copies = vec![View::new(&levels, side, side)];
            copies.extend((0..MOVED).map(|_| copies::moved(&levels, side, &mut random)));
            let [_, others @ ..] = Pose::ALL;
            let posed = |pose| (copies::posed(&levels, side, pose, index / step), pose);
            let posed = if index.is_multiple_of(step) { others.map(posed).into() } else { Vec::new() };
            progress.advance(1);
            Ok((copies, posed))
        })
        .collect::<Result<_>>()?;
    progress.finish();
    let copies = || all.iter().flat_map(|(copies, _)| copies);
    Ok(Views {
        pixels: copies().map(|view| single(&view.pixels)).collect(),
        gradients: copies().map(|view| single(&view.gradients)).collect(),
        posed: all.iter().flat_map(|(_, posed)| posed).map(|(view, pose)| (single(&view.gradients), *pose)).collect(),
    })
}

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

fn gates(bundle: &Bundle, train: &[Sample], val: &[Known], temperature: f32, options: &Options) -> Result<Gates> {
    let rate = options.false_abstention;
    let views = views(bundle.manifest(), train)?;
    let shown: Vec<Vec<f64>> = val.iter().map(|known| known.view.pixels.clone()).collect();
    let (pixels, max_pixels) = distance(&Group::copies(&views.pixels), COMPONENTS[0], &shown, rate)?;
    let shown: Vec<Vec<f64>> = val.iter().map(|known| known.view.gradients.clone()).collect();
    let (gradients, max_gradients) = distance(&Group::copies(&views.gradients), COMPONENTS[1], &shown, rate)?;

    let upright = views.gradients.iter().map(|row| (row.clone(), Pose::Upright));
    let (rows, poses): (Vec<_>, Vec<_>) = upright.chain(views.posed).unzip();
    let pose = pose::fit(&rows, &poses)?;
    let doubts: Vec<f64> = val.iter().map(|known| -pose.judge(&known.view.gradients).0).collect();
    let min_upright = (-quantile(doubts, rate)).min(MOST_UPRIGHT) as f32;

    let thinned = thin(train, options.gate_images.div_ceil(Label::ALL.len()));
    let judged = judge::int8(bundle, &thinned)?;
    let rows: Vec<Vec<f32>> = judged.verdicts.iter().map(|verdict| single(&direction(&verdict.features))).collect();
    let classes = judged.samples.iter().map(|sample| sample.label as usize).collect();
    let group = Group { rows: &rows, classes, count: Label::ALL.len(), copies: 1 };
    let shown: Vec<Vec<f64>> = val.iter().map(|known| direction(&known.verdict.features)).collect();
    let (features, max_features) = distance(&group, COMPONENTS[2], &shown, rate)?;
    let energies = val.iter().map(|known| energy(&known.verdict.logits, f64::from(temperature))).collect();
    let limits = GateLimits {
        schema: GATES_SCHEMA.into(),
        file: GATES_FILE.into(),
        false_abstention: rate as f32,
        min_upright,
        max_pixels: max_pixels as f32,
        max_gradients: max_gradients as f32,
        max_features: max_features as f32,
        max_energy: quantile(energies, rate * ENERGY) as f32,
    };
    Ok(Gates { pixels, gradients, features, pose, limits })
}

/// Vectors to fit a distance to.
struct Group<'a> {
    rows: &'a [Vec<f32>],
    classes: Vec<usize>,
    count: usize,
    /// Rows that belong together and go to the same fold; the first of them is the image itself.
    copies: usize,
}

impl<'a> Group<'a> {
    /// One class, with moved copies.
    fn copies(rows: &'a [Vec<f32>]) -> Self {
        Self { rows, classes: vec![0; rows.len()], count: 1, copies: 1 + MOVED }
    }
}

/// Fits a subspace, and the limit beyond which no more than `rate` of val lie, and no more of train as judged by subspaces
/// fitted to the rest of train.
fn distance(group: &Group, components: usize, val: &[Vec<f64>], rate: f64) -> Result<(Subspace, f64)> {
    let of = |chosen: &dyn Fn(usize) -> bool| -> Result<Subspace> {
        let kept = || (0..group.rows.len()).filter(|index| chosen(index / group.copies % FOLDS));
        let rows: Vec<Vec<f32>> = kept().map(|index| group.rows[index].clone()).collect();
        let classes: Vec<usize> = kept().map(|index| group.classes[index]).collect();
        Principal::of(&rows, &classes, group.count, components)?.subspace()
    };
    let all = of(&|_| true)?;
    let mut unseen = Vec::new();
    if group.rows.len() / group.copies >= 2 * FOLDS {
        for fold in 0..FOLDS {
            let others = of(&|found| found != fold)?;
            let images = group.rows.par_iter().step_by(group.copies).enumerate();
            let distances = images.filter(|(image, _)| image % FOLDS == fold).map(|(_, row)| {
                let row: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
                others.distance(&row)
            });
            unseen.extend(distances.collect::<Vec<f64>>());
        }
    }
    let shown: Vec<f64> = val.par_iter().map(|row| all.distance(row)).collect();
    let limit = quantile(shown, rate).max(if unseen.is_empty() { 0.0 } else { quantile(unseen, rate) });
    // As the box holds it: f32, and not below what it came from.
    Ok((all, limit * (1.0 + 1e-6)))
}

/// The least value that at most the share `rate` of all exceed; not a number for none.
fn quantile(mut values: Vec<f64>, rate: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let above = (rate * values.len() as f64) as usize;
    values.len().checked_sub(1 + above).and_then(|index| values.get(index)).copied().unwrap_or(f64::NAN)
}

/// The least probability that is reported: so great that with it the box abstains on no more than the stated share of val.
/// Prints what the gates do on val.
fn thresholds(gates: &Gates, val: &[Known], temperature: f32, options: &Options) -> Thresholds {
    let mut counts: BTreeMap<ReasonCode, usize> = BTreeMap::new();
    let mut sure = Vec::new();
    for known in val {
        let Verdict { features, logits, .. } = &known.verdict;
        let measured = gates.measure(&known.view, features, logits, temperature);
        let mut codes = known.quality.clone();
        codes.extend(gates.reasons(&measured).into_iter().map(|reason| reason.code));
        if codes.is_empty() {
            sure.push(findings(logits, temperature).iter().map(|finding| finding.probability).fold(0.0, f32::max));
        }
        codes.into_iter().for_each(|code| *counts.entry(code).or_default() += 1);
    }
    sure.sort_by(f32::total_cmp);
    let gated = val.len() - sure.len();
    let allowed = ((options.abstention * val.len() as f64) as usize).saturating_sub(gated);
    let fitted = sure.get(allowed).copied().unwrap_or(LEAST_PROBABILITY).max(LEAST_PROBABILITY);
    let min_probability = options.min_probability.unwrap_or(fitted);
    let unsure = sure.iter().filter(|&&probability| probability < min_probability).count();
    println!("gates on val: {counts:?}, in all {gated} of {}", val.len());
    println!("least probability {min_probability:.4}: {unsure} more, {:.1} % of val", share(gated + unsure, val.len()));
    Thresholds { min_probability }
}

fn share(part: usize, all: usize) -> f64 {
    100.0 * part as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_must_be_later() {
        assert!(check_version("1.2.1", "1.2.0").is_ok() && check_version("0.1.0", "of old").is_ok());
        for wrong in ["1.2.0", "1.1.9", "1.2.0-rc.1", "two", ""] {
            assert!(check_version(wrong, "1.2.0").unwrap_err().to_string().contains("--version"), "{wrong}");
        }
    }

    #[test]
    fn options_that_cannot_be_meant_are_refused() {
        let sound = || Options { false_abstention: 0.005, abstention: 0.03, min_probability: None, gate_images: 1200 };
        assert!(sound().check().is_ok());
        for (wrong, named) in [
            (Options { false_abstention: 2.0, ..sound() }, "--false-abstention"),
            (Options { false_abstention: f64::NAN, ..sound() }, "--false-abstention"),
            (Options { abstention: -0.1, ..sound() }, "--abstention"),
            (Options { min_probability: Some(2.0), ..sound() }, "--min-probability"),
            (Options { gate_images: 3, ..sound() }, "--gate-images"),
        ] {
            assert!(wrong.check().unwrap_err().to_string().contains(named), "{wrong:?}");
        }
    }

    #[test]
    fn no_more_than_the_rate_exceeds_the_quantile() {
        let values: Vec<f64> = (0..1000).map(f64::from).collect();
        assert_eq!(quantile(values.clone(), 0.005), 994.0);
        assert_eq!(quantile(values, 0.0), 999.0);
        assert_eq!(quantile(vec![3.0, 1.0], 0.4), 3.0);
        assert!(quantile(Vec::new(), 0.1).is_nan());
    }
}

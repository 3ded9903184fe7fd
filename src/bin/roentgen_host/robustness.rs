//! How the int8 model fares on changed images: what should not matter, and what should (the shortcut tests). On a seeded
//! subset that mirrors the whole, since each pass costs as much as the plain one. Not the changes themselves.

pub(crate) mod perturb;

use crate::dataset::Sample;
use crate::evaluation::intervals::{self, Bootstrap, Interval};
use crate::judge::{self, Int8, Verdict};
use crate::metrics::{Metrics, ratio};
use crate::random::SplitMix;
use anyhow::Result;
use perturb::{Perturbation, ROBUSTNESS, SHORTCUTS};
use roentgen::bundle::Bundle;
use roentgen::report::{Decision, Label};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Images of a robustness test, unless all are asked for.
const FOR_ROBUSTNESS: usize = 120;

/// Images of a shortcut test, unless all are asked for: more, since these decide how far the other figures can be trusted.
const FOR_SHORTCUTS: usize = 240;

/// The seed that chooses the subset, and the noise.
const SEED: u64 = 1;

/// A set of changes, each tried on the same images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Suite {
    /// Images of the subset.
    pub(crate) n: usize,
    /// Images it was drawn from.
    pub(crate) of: usize,
    /// What drew it.
    pub(crate) seed: u64,
    /// Share of the subset's most frequent class: the accuracy of always saying the same.
    pub(crate) chance: f64,
    /// Balanced accuracy of whoever does not look at the image, however it guesses: one over the number of classes.
    pub(crate) balanced_chance: f64,
    /// The same images unchanged.
    pub(crate) undisturbed: Outcome,
    /// One entry a change.
    pub(crate) tests: Vec<Outcome>,
}

/// What int8 made of one change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// A short name, e.g. `blur_2`; `undisturbed` for the images as they are.
    pub(crate) id: String,
    /// What was done, in words.
    pub(crate) title: String,
    /// Share judged right, whether or not the box would report it.
    pub(crate) accuracy: f64,
    /// Wilson interval of it.
    pub(crate) accuracy_ci95: Interval,
    /// Accuracy minus that of the same images unchanged, in percentage points.
    pub(crate) accuracy_points: f64,
    /// Bootstrap interval of it, paired by image.
    pub(crate) accuracy_points_ci95: Option<Interval>,
    /// Mean recall of the classes.
    pub(crate) balanced_accuracy: f64,
    /// Bootstrap interval of it.
    pub(crate) balanced_accuracy_ci95: Option<Interval>,
    /// Recall of each class, in the order of the network's outputs; absent where there is no image of it.
    pub(crate) recalls: [Option<f64>; 4],
    /// Share that the box abstains on.
    pub(crate) abstained: f64,
    /// Share of the others that is judged right; absent where it abstains on all.
    pub(crate) reported_accuracy: Option<f64>,
}

/// Runs both suites, robustness first, on what was judged unchanged already; `full` takes every image.
pub(crate) fn run(bundle: &Bundle, unchanged: &Int8, full: bool) -> Result<(Suite, Suite)> {
    let robust = chosen(&unchanged.samples, full);
    let short = if full { robust.clone() } else { subset(&unchanged.samples, FOR_SHORTCUTS) };
    let jobs: Vec<(Perturbation, usize)> = pairs(&ROBUSTNESS, &robust).chain(pairs(&SHORTCUTS, &short)).collect();
    let verdicts = judge::radiographs(bundle, jobs.len(), "changed images", |job| {
        let (perturbation, index) = jobs[job];
        perturbation.apply(&unchanged.samples[index].radiograph()?, noise_seed(index))
    })?;
    let verdicts = verdicts.into_iter().collect::<Result<Vec<Verdict>>>()?;
    let (first, second) = verdicts.split_at(ROBUSTNESS.len() * robust.len());
    Ok((suite(unchanged, &robust, &ROBUSTNESS, first), suite(unchanged, &short, &SHORTCUTS, second)))
}

fn pairs<'a>(changes: &'a [Perturbation], images: &'a [usize]) -> impl Iterator<Item = (Perturbation, usize)> + 'a {
    changes.iter().flat_map(move |&change| images.iter().map(move |&index| (change, index)))
}

/// The numbers of the images that robustness is measured on, rising; `full` takes every one.
pub(crate) fn chosen(samples: &[Sample], full: bool) -> Vec<usize> {
    if full { (0..samples.len()).collect() } else { subset(samples, FOR_ROBUSTNESS) }
}

/// What the noise in an image follows from.
pub(crate) fn noise_seed(index: usize) -> u64 {
    SplitMix::of(&[SEED, index as u64]).next()
}

/// About `count` images in which every class, population within it and so on has the share that it has among all; the
/// numbers, rising.
fn subset(samples: &[Sample], count: usize) -> Vec<usize> {
    let mut strata: BTreeMap<(Label, Option<&str>), Vec<usize>> = BTreeMap::new();
    for (index, sample) in samples.iter().enumerate() {
        strata.entry((sample.label, sample.population.as_deref())).or_default().push(index);
    }
    let mut chosen = Vec::new();
    for (number, mut stratum) in strata.into_values().enumerate() {
        let exact = stratum.len() as f64 * count as f64 / samples.len() as f64;
        SplitMix::of(&[SEED, number as u64]).shuffle(&mut stratum);
        stratum.truncate((exact.round() as usize).max(1));
        chosen.extend(stratum);
    }
    chosen.sort_unstable();
    chosen
}

fn suite(unchanged: &Int8, images: &[usize], changes: &[Perturbation], verdicts: &[Verdict]) -> Suite {
    let truth: Vec<Label> = images.iter().map(|&index| unchanged.samples[index].label).collect();
    let before: Vec<&Verdict> = images.iter().map(|&index| &unchanged.verdicts[index]).collect();
    let bootstrap = Bootstrap::new(images.len(), intervals::SEED);
    let outcome =
        |id: String, title: String, after: &[&Verdict]| outcome(id, title, &truth, &before, after, &bootstrap);
    let most = Label::ALL.map(|label| truth.iter().filter(|&&truth| truth == label).count());
    let tests = changes.iter().zip(verdicts.chunks(images.len().max(1)));
    Suite {
        n: images.len(),
        of: unchanged.samples.len(),
        seed: SEED,
        chance: ratio(most.into_iter().max().unwrap_or(0), images.len()),
        balanced_chance: 1.0 / most.iter().filter(|&&count| count > 0).count().max(1) as f64,
        undisturbed: outcome("undisturbed".into(), "Undisturbed".into(), &before),
        tests: tests
            .map(|(change, after)| outcome(change.id(), change.title(), &after.iter().collect::<Vec<_>>()))
            .collect(),
    }
}

fn outcome(
    id: String,
    title: String,
    truth: &[Label],
    before: &[&Verdict],
    after: &[&Verdict],
    bootstrap: &Bootstrap,
) -> Outcome {
    let right = |verdicts: &[&Verdict]| -> Vec<bool> {
        verdicts.iter().zip(truth).map(|(v, truth)| v.said() == *truth).collect()
    };
    let (right_before, right_after) = (right(before), right(after));
    let metrics = Metrics::count(truth.iter().copied().zip(after.iter().map(|verdict| verdict.said())));
    let gain = |weights: &[u16]| {
        let gained = right_after.iter().zip(&right_before).zip(weights);
        let sum: i64 = gained.map(|((a, b), &weight)| (i64::from(*a) - i64::from(*b)) * i64::from(weight)).sum();
        let drawn: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        100.0 * sum as f64 / drawn.max(1) as f64
    };
    let balanced = |weights: &[u16]| {
        let mut confusion = [[0usize; 4]; 4];
        for ((&truth, verdict), &weight) in truth.iter().zip(after).zip(weights) {
            confusion[truth as usize][verdict.said() as usize] += usize::from(weight);
        }
        Metrics::of(confusion).balanced_accuracy()
    };
    let reported = |index: &usize| matches!(after[*index].decision, Decision::Reported { .. });
    let reported: Vec<usize> = (0..after.len()).filter(reported).collect();
    let reported_right = reported.iter().filter(|&&index| right_after[index]).count();
    Outcome {
        id,
        title,
        accuracy: metrics.accuracy,
        accuracy_ci95: metrics.accuracy_ci95,
        accuracy_points: gain(&vec![1; truth.len()]),
        accuracy_points_ci95: bootstrap.interval(|weights| Some(gain(weights))),
        balanced_accuracy: metrics.balanced_accuracy(),
        balanced_accuracy_ci95: bootstrap.interval(|weights| Some(balanced(weights))),
        recalls: Label::ALL.map(|label| {
            let class = &metrics.classes[label as usize];
            (class.n > 0).then_some(class.recall)
        }),
        abstained: ratio(after.len() - reported.len(), after.len()),
        reported_accuracy: (!reported.is_empty()).then(|| ratio(reported_right, reported.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_subset_mirrors_the_whole_and_repeats() {
        let sample = |index: usize| Sample {
            path: PathBuf::from(format!("{index}")),
            label: if index < 300 { Label::Normal } else { Label::Covid },
            split: None,
            population: Some(if index.is_multiple_of(3) { "paediatric" } else { "adult" }.to_owned()),
        };
        let samples: Vec<Sample> = (0..400).map(sample).collect();
        let chosen = subset(&samples, 100);
        assert_eq!(chosen, subset(&samples, 100));
        assert!(chosen.is_sorted_by(|a, b| a < b));
        let count = |wanted: fn(&Sample) -> bool| chosen.iter().filter(|&&index| wanted(&samples[index])).count();
        assert_eq!(count(|sample| sample.label == Label::Normal), 75);
        assert_eq!(count(|sample| sample.label == Label::Normal && sample.population.as_deref() == Some("adult")), 50);
        assert_eq!(subset(&samples, 1000).len(), 400, "no more than there are");
        assert_eq!(subset(&samples, 1).len(), 4, "at least one of each");
    }
}

//! Whether a probability of 0.8 is right eight times in ten: expected calibration error and the bins of a reliability
//! diagram (Guo, Pleiss, Sun & Weinberger, *On calibration of modern neural networks*, 2017). Not the fitting of
//! a calibration.

use super::intervals::{Bootstrap, Interval};
use roentgen::report::Label;
use serde::{Deserialize, Serialize};

/// Bins of equal width over 0..=1.
pub(crate) const BINS: usize = 15;

/// How far probabilities are from frequencies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reliability {
    /// Expected calibration error of the most probable label: Σ over bins of share × |accuracy − mean probability|.
    pub(crate) ece: f64,
    /// Its bootstrap interval. Resampling adds scatter, so that it lies a little above the figure.
    pub(crate) ece_ci95: Option<Interval>,
    /// The same for the probability of each class, whether or not it wins, in the order of the network's outputs.
    pub(crate) class_ece: [f64; 4],
    /// Mean negative log-likelihood of the truth, in nats.
    pub(crate) negative_log_likelihood: f64,
    /// Mean over images of the squared distance between probabilities and truth (Brier 1950): 0 is perfect, 2 the worst.
    pub(crate) brier: f64,
    /// The bins of the most probable label that hold an image.
    pub(crate) bins: Vec<Bin>,
}

/// The images whose probability lies in one bin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bin {
    /// From this probability on.
    pub(crate) from: f64,
    /// Up to this one; in the last bin, with it.
    pub(crate) to: f64,
    /// Images.
    pub(crate) n: usize,
    /// Their mean probability.
    pub(crate) confidence: f64,
    /// The share of them that is right.
    pub(crate) accuracy: f64,
}

impl Reliability {
    /// Of the probabilities of images whose labels are `truth`.
    pub(crate) fn new(probabilities: &[[f64; 4]], truth: &[Label], bootstrap: &Bootstrap) -> Self {
        let pairs = || probabilities.iter().zip(truth);
        let n = truth.len().max(1) as f64;
        let top: Vec<(f64, bool)> = pairs().map(|(p, truth)| top(p, *truth)).collect();
        let once = vec![1; top.len()];
        let class = |label: Label| -> Vec<(f64, bool)> {
            pairs().map(|(p, truth)| (p[label as usize], *truth == label)).collect()
        };
        let brier = |p: &[f64; 4], truth: Label| -> f64 {
            Label::ALL.iter().map(|&label| (p[label as usize] - f64::from(u8::from(label == truth))).powi(2)).sum()
        };
        Self {
            ece: ece(&top, &once),
            ece_ci95: bootstrap.interval(|weights| Some(ece(&top, weights))),
            class_ece: Label::ALL.map(|label| ece(&class(label), &once)),
            // A probability of exactly 0 is the rounding of a small one.
            negative_log_likelihood: pairs().map(|(p, truth)| 0.0 - p[*truth as usize].max(1e-12).ln()).sum::<f64>()
                / n,
            brier: pairs().map(|(p, truth)| brier(p, *truth)).sum::<f64>() / n,
            bins: bins(&top),
        }
    }
}

/// The greatest probability (the first of equals), and whether it is that of the truth.
fn top(probabilities: &[f64; 4], truth: Label) -> (f64, bool) {
    let mut best = 0;
    for index in 1..probabilities.len() {
        if probabilities[index] > probabilities[best] {
            best = index;
        }
    }
    (probabilities[best], best == truth as usize)
}

fn bin_of(probability: f64) -> usize {
    ((probability * BINS as f64) as usize).min(BINS - 1)
}

/// Expected calibration error of (probability, came true), each counted `weights` times.
fn ece(pairs: &[(f64, bool)], weights: &[u16]) -> f64 {
    // In a bin of n images n × |accuracy − mean probability| is |right ones − sum of probabilities|.
    let mut gaps = [0f64; BINS];
    for (&(probability, right), &weight) in pairs.iter().zip(weights) {
        gaps[bin_of(probability)] += f64::from(weight) * (f64::from(u8::from(right)) - probability);
    }
    let n: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    gaps.iter().map(|gap| gap.abs()).sum::<f64>() / n.max(1) as f64
}

fn bins(pairs: &[(f64, bool)]) -> Vec<Bin> {
    let of = |index: usize| {
        let inside: Vec<_> = pairs.iter().filter(|(probability, _)| bin_of(*probability) == index).collect();
        let n = inside.len();
        (n > 0).then(|| Bin {
            from: index as f64 / BINS as f64,
            to: (index + 1) as f64 / BINS as f64,
            n,
            confidence: inside.iter().map(|(probability, _)| probability).sum::<f64>() / n as f64,
            accuracy: inside.iter().filter(|(_, right)| *right).count() as f64 / n as f64,
        })
    };
    (0..BINS).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_error_is_that_of_the_bins(pairs in prop::collection::vec((0f64..=1.0, any::<bool>()), 1..200)) {
            let bins = bins(&pairs);
            prop_assert_eq!(bins.iter().map(|bin| bin.n).sum::<usize>(), pairs.len());
            let mut naive = 0.0;
            for bin in &bins {
                prop_assert!(bin.from <= bin.confidence + 1e-12 && bin.confidence <= bin.to + 1e-12);
                naive += bin.n as f64 / pairs.len() as f64 * (bin.accuracy - bin.confidence).abs();
            }
            prop_assert!((ece(&pairs, &vec![1; pairs.len()]) - naive).abs() < 1e-12);
            let twice: Vec<_> = pairs.iter().chain(&pairs).copied().collect();
            prop_assert!((ece(&twice, &vec![1; twice.len()]) - ece(&pairs, &vec![2; pairs.len()])).abs() < 1e-12);
        }
    }

    #[test]
    fn the_figures_follow_their_definitions() {
        let truth = [Label::Covid, Label::Normal];
        let certain = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];
        let bootstrap = Bootstrap::new(2, 1);
        let perfect = Reliability::new(&certain, &truth, &bootstrap);
        assert_eq!((perfect.ece, perfect.brier, perfect.negative_log_likelihood), (0.0, 0.0, 0.0));
        assert_eq!((perfect.bins.len(), perfect.bins[0].n, perfect.bins[0].to), (1, 2, 1.0));
        let wrong = Reliability::new(&[certain[1], certain[0]], &truth, &bootstrap);
        assert_eq!((wrong.ece, wrong.brier, wrong.class_ece), (1.0, 2.0, [1.0, 0.0, 1.0, 0.0]));
        assert!(wrong.negative_log_likelihood.is_finite());
        let unsure = Reliability::new(&[[0.25; 4]; 2], &truth, &bootstrap);
        assert!((unsure.ece - 0.25).abs() < 1e-12, "one of two right at a probability of a quarter");
    }
}

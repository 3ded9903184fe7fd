//! How well the probability of one class ranks its images before the others: ROC and precision-recall curves, the areas
//! under them, operating points. One class against the rest; says nothing of which label wins.

use super::intervals::{Bootstrap, Interval, wilson};
use serde::{Deserialize, Serialize};

/// Most points of a curve that is written down.
const MOST_POINTS: usize = 160;

/// The specificities and sensitivities that operating points are looked for at.
pub(crate) const ASKED: [f64; 3] = [0.90, 0.95, 0.99];

/// What ranking by one class's probability is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RankingFigures {
    /// Area under the ROC curve; absent where all images are of the class or none is.
    pub(crate) auc: Option<f64>,
    /// Its bootstrap interval.
    pub(crate) auc_ci95: Option<Interval>,
    /// Average precision: Σ (recall gained) × (precision there), without interpolation; absent where no image is of the class.
    pub(crate) average_precision: Option<f64>,
    /// Its bootstrap interval.
    pub(crate) average_precision_ci95: Option<Interval>,
    /// Vertices of the ROC curve: false-positive rate, sensitivity.
    pub(crate) roc: Vec<[f64; 2]>,
    /// Vertices of the precision-recall curve: recall, precision.
    pub(crate) precision_recall: Vec<[f64; 2]>,
    /// The greatest sensitivity at a specificity of at least `asked`.
    pub(crate) sensitivity_at_specificity: Vec<OperatingPoint>,
    /// The greatest specificity at a sensitivity of at least `asked`.
    pub(crate) specificity_at_sensitivity: Vec<OperatingPoint>,
}

/// A threshold on one class's probability, and what follows from it. It was chosen on the very images that it is measured
/// on: on others expect a little less.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct OperatingPoint {
    /// The specificity or sensitivity asked for.
    pub(crate) asked: f64,
    /// The class is said to be there from this probability on; absent where it is never said.
    pub(crate) threshold: Option<f64>,
    /// Of the images of the class, the share that is found.
    pub(crate) sensitivity: f64,
    /// Wilson interval of it.
    pub(crate) sensitivity_ci95: Interval,
    /// Of the other images, the share that is left alone.
    pub(crate) specificity: f64,
    /// Wilson interval of it.
    pub(crate) specificity_ci95: Interval,
}

/// Images in the order of falling probability of one class.
pub(crate) struct Ranking {
    /// Probability, whether the image is of the class, and its number among the images.
    falling: Vec<(f64, bool, usize)>,
}

/// How many images of either kind reach a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reach {
    threshold: f64,
    of_class: u64,
    others: u64,
}

impl Ranking {
    /// Ranks images by `scores`; `of_class` says of each whether it is of the class.
    pub(crate) fn new(scores: &[f64], of_class: &[bool]) -> Self {
        let numbered = scores.iter().zip(of_class).enumerate();
        let mut falling: Vec<_> = numbered.map(|(index, (&score, &yes))| (score, yes, index)).collect();
        falling.sort_by(|a, b| b.0.total_cmp(&a.0));
        Self { falling }
    }

    /// All figures, with intervals.
    pub(crate) fn figures(&self, bootstrap: &Bootstrap) -> RankingFigures {
        let once = vec![1; self.falling.len()];
        let reaches = self.reaches(&once);
        let points = |choose: fn(&[Reach], f64) -> OperatingPoint| ASKED.map(|asked| choose(&reaches, asked)).to_vec();
        RankingFigures {
            auc: self.auc(&once),
            auc_ci95: bootstrap.interval(|weights| self.auc(weights)),
            average_precision: self.average_precision(&once),
            average_precision_ci95: bootstrap.interval(|weights| self.average_precision(weights)),
            roc: thinned(roc(&reaches)),
            precision_recall: thinned(precision_recall(&reaches)),
            sensitivity_at_specificity: points(at_specificity),
            specificity_at_sensitivity: points(at_sensitivity),
        }
    }

    /// What each distinct probability reaches, falling; images of one probability are counted together.
    fn reaches(&self, weights: &[u16]) -> Vec<Reach> {
        let mut reaches: Vec<Reach> = Vec::new();
        let (mut of_class, mut others) = (0, 0);
        for group in self.falling.chunk_by(|a, b| a.0 == b.0) {
            for &(_, yes, index) in group {
                *if yes { &mut of_class } else { &mut others } += u64::from(weights[index]);
            }
            reaches.push(Reach { threshold: group[0].0, of_class, others });
        }
        reaches
    }

    /// The share of pairs (image of the class, other image) in which the first has the greater probability; equal ones
    /// count half.
    pub(crate) fn auc(&self, weights: &[u16]) -> Option<f64> {
        let (mut of_class, mut others, mut area) = (0u64, 0u64, 0f64);
        for group in self.falling.chunk_by(|a, b| a.0 == b.0) {
            let count = |wanted| -> u64 {
                group.iter().filter(|(_, yes, _)| *yes == wanted).map(|&(_, _, index)| u64::from(weights[index])).sum()
            };
            let (more, wrong) = (count(true), count(false));
            area += wrong as f64 * (of_class as f64 + more as f64 / 2.0);
            of_class += more;
            others += wrong;
        }
        (of_class > 0 && others > 0).then(|| area / (of_class as f64 * others as f64))
    }

    /// Σ (recall gained) × (precision there), over the distinct probabilities.
    pub(crate) fn average_precision(&self, weights: &[u16]) -> Option<f64> {
        let reaches = self.reaches(weights);
        let all = reaches.last().map_or(0, |reach| reach.of_class);
        let (mut sum, mut before) = (0.0, 0);
        for reach in &reaches {
            if reach.of_class > before {
                sum += (reach.of_class - before) as f64 * precision(reach);
                before = reach.of_class;
            }
        }
        (all > 0).then(|| sum / all as f64)
    }
}

fn precision(reach: &Reach) -> f64 {
    reach.of_class as f64 / (reach.of_class + reach.others).max(1) as f64
}

/// From (0, 0) to (1, 1); vertices in the middle of a straight line are left out.
fn roc(reaches: &[Reach]) -> Vec<[f64; 2]> {
    let Some(last) = reaches.last() else { return Vec::new() };
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let steps: Vec<(u64, u64)> =
        std::iter::once((0, 0)).chain(reaches.iter().map(|reach| (reach.others, reach.of_class))).collect();
    let bends = |index: usize| -> bool {
        let (Some(&before), &here, Some(&after)) =
            (index.checked_sub(1).and_then(|at| steps.get(at)), &steps[index], steps.get(index + 1))
        else {
            return true;
        };
        (here.0 - before.0) * (after.1 - here.1) != (after.0 - here.0) * (here.1 - before.1)
    };
    let kept = (0..steps.len()).filter(|&index| bends(index)).map(|index| steps[index]);
    kept.map(|(others, of_class)| [share(others, last.others), share(of_class, last.of_class)]).collect()
}

/// Recall and precision wherever recall rises.
fn precision_recall(reaches: &[Reach]) -> Vec<[f64; 2]> {
    let all = reaches.last().map_or(0, |reach| reach.of_class);
    let mut before = 0;
    let mut out = Vec::new();
    for reach in reaches.iter().filter(|_| all > 0) {
        if reach.of_class > before {
            before = reach.of_class;
            out.push([before as f64 / all as f64, precision(reach)]);
        }
    }
    out
}

/// At most [`MOST_POINTS`] of the points, the first and the last among them.
pub(crate) fn thinned(points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    if points.len() <= MOST_POINTS {
        return points;
    }
    (0..MOST_POINTS).map(|i| points[i * (points.len() - 1) / (MOST_POINTS - 1)]).collect()
}

fn at_specificity(reaches: &[Reach], asked: f64) -> OperatingPoint {
    // Sensitivity only rises as the threshold falls, specificity only falls: the last threshold that is specific enough.
    let all = all(reaches);
    point(asked, reaches.iter().rfind(|reach| specificity(reach, &all) >= asked), &all)
}

fn at_sensitivity(reaches: &[Reach], asked: f64) -> OperatingPoint {
    let all = all(reaches);
    point(asked, reaches.iter().find(|reach| sensitivity(reach, &all) >= asked), &all)
}

fn all(reaches: &[Reach]) -> Reach {
    reaches.last().copied().unwrap_or(Reach { threshold: 0.0, of_class: 0, others: 0 })
}

fn sensitivity(reach: &Reach, all: &Reach) -> f64 {
    reach.of_class as f64 / all.of_class.max(1) as f64
}

fn specificity(reach: &Reach, all: &Reach) -> f64 {
    1.0 - reach.others as f64 / all.others.max(1) as f64
}

/// The operating point of a threshold; of `None`, that which never says the class is there.
fn point(asked: f64, reach: Option<&Reach>, all: &Reach) -> OperatingPoint {
    let never = Reach { threshold: f64::INFINITY, of_class: 0, others: 0 };
    let at = reach.unwrap_or(&never);
    OperatingPoint {
        asked,
        threshold: reach.map(|reach| reach.threshold),
        sensitivity: sensitivity(at, all),
        sensitivity_ci95: wilson(at.of_class as usize, all.of_class as usize),
        specificity: specificity(at, all),
        specificity_ci95: wilson((all.others - at.others) as usize, all.others as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Scores on a coarse grid, so that many are equal.
    fn images() -> impl Strategy<Value = Vec<(u8, bool)>> {
        prop::collection::vec((0u8..12, any::<bool>()), 1..80)
    }

    fn ranking(images: &[(u8, bool)]) -> Ranking {
        let scores: Vec<f64> = images.iter().map(|(score, _)| f64::from(*score) / 12.0).collect();
        Ranking::new(&scores, &images.iter().map(|(_, yes)| *yes).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn the_area_is_the_share_of_pairs_in_order(images in images(), seed in any::<u64>()) {
            let mut random = crate::random::SplitMix::new(seed);
            let weights: Vec<u16> = images.iter().map(|_| random.below(3) as u16).collect();
            let (mut won, mut pairs) = (0.0, 0.0);
            for (a, wa) in images.iter().zip(&weights).filter(|((_, yes), _)| *yes) {
                for (b, wb) in images.iter().zip(&weights).filter(|((_, yes), _)| !*yes) {
                    let weight = f64::from(*wa) * f64::from(*wb);
                    pairs += weight;
                    won += weight * if a.0 > b.0 { 1.0 } else if a.0 == b.0 { 0.5 } else { 0.0 };
                }
            }
            match ranking(&images).auc(&weights) {
                Some(auc) => prop_assert!((auc - won / pairs).abs() < 1e-12),
                None => prop_assert!(pairs == 0.0),
            }
        }

        #[test]
        fn average_precision_is_the_sum_over_thresholds(images in images()) {
            let all = images.iter().filter(|(_, yes)| *yes).count();
            let mut naive = 0.0;
            let mut before = 0.0;
            for threshold in (0u8..12).rev() {
                let said: Vec<_> = images.iter().filter(|(score, _)| *score >= threshold).collect();
                let hits = said.iter().filter(|(_, yes)| *yes).count() as f64;
                if !said.is_empty() && all > 0 {
                    naive += (hits / all as f64 - before) * hits / said.len() as f64;
                    before = hits / all as f64;
                }
            }
            let found = ranking(&images).average_precision(&vec![1; images.len()]);
            prop_assert!(found.map_or(all == 0, |found| (found - naive).abs() < 1e-12), "{found:?} {naive}");
        }

        #[test]
        fn curves_are_monotone_and_operating_points_lie_on_them(images in images()) {
            let ranking = ranking(&images);
            let reaches = ranking.reaches(&vec![1; images.len()]);
            let roc = roc(&reaches);
            prop_assert!(roc.windows(2).all(|w| w[0][0] <= w[1][0] && w[0][1] <= w[1][1]), "{roc:?}");
            prop_assert_eq!(roc[0], [0.0, 0.0]);
            let recall = precision_recall(&reaches);
            prop_assert!(recall.windows(2).all(|w| w[0][0] < w[1][0]), "{recall:?}");
            let area: f64 = roc.windows(2).map(|w| (w[1][0] - w[0][0]) * (w[0][1] + w[1][1]) / 2.0).sum();
            if let Some(auc) = ranking.auc(&vec![1; images.len()]) {
                prop_assert!((area - auc).abs() < 1e-12, "leaving out straight vertices changes nothing");
            }
            let (yes, no): (Vec<_>, Vec<_>) = images.iter().partition(|(_, yes)| *yes);
            for asked in ASKED {
                // Every threshold tried out.
                let tried = (0..=12u8).map(|threshold| {
                    let share = |of: &[(u8, bool)]| {
                        of.iter().filter(|(score, _)| *score >= threshold).count() as f64 / of.len().max(1) as f64
                    };
                    (share(&yes), 1.0 - share(&no))
                });
                let best = tried.clone().filter(|(_, specificity)| *specificity >= asked).map(|(sensitivity, _)| sensitivity);
                prop_assert_eq!(at_specificity(&reaches, asked).sensitivity, best.fold(0.0, f64::max));
                if !yes.is_empty() {
                    let best = tried.filter(|(sensitivity, _)| *sensitivity >= asked).map(|(_, specificity)| specificity);
                    prop_assert_eq!(at_sensitivity(&reaches, asked).specificity, best.fold(0.0, f64::max));
                }
            }
        }
    }

    #[test]
    fn long_curves_keep_their_ends() {
        let long: Vec<[f64; 2]> = (0..1000).map(|i| [f64::from(i), 0.0]).collect();
        let kept = thinned(long);
        assert_eq!((kept.len(), kept[0][0], kept[MOST_POINTS - 1][0]), (MOST_POINTS, 0.0, 999.0));
    }
}

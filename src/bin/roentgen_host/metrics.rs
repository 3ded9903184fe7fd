//! How right a classifier was: the confusion matrix and what follows from it. Not the running of one.

use crate::evaluation::intervals::{Interval, wilson};
use roentgen::assess::softmax;
use roentgen::report::Label;
use serde::{Deserialize, Serialize};

/// What a classifier said about a set of labelled images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metrics {
    /// Images judged.
    pub(crate) n: usize,
    /// Share of them whose most probable label is the true one, 0..=1.
    pub(crate) accuracy: f64,
    /// Wilson interval of it.
    #[serde(default = "unknown")]
    pub(crate) accuracy_ci95: Interval,
    /// Mean of the classes' F1.
    pub(crate) macro_f1: f64,
    /// Bootstrap interval of it, where one was asked for.
    #[serde(default)]
    pub(crate) macro_f1_ci95: Option<Interval>,
    /// One entry a class, in the order of the network's outputs.
    pub(crate) classes: Vec<ClassMetrics>,
    /// `confusion[truth][said]`: counts of images.
    pub(crate) confusion: [[usize; 4]; 4],
}

/// The figures of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClassMetrics {
    /// Which class.
    pub(crate) label: Label,
    /// Images of that class.
    pub(crate) n: usize,
    /// Of the images said to be of the class, the share that is; 0 where none was said to be.
    pub(crate) precision: f64,
    /// Wilson interval of it.
    #[serde(default = "unknown")]
    pub(crate) precision_ci95: Interval,
    /// Of the images of the class, the share that was found (sensitivity); 0 where there is none.
    pub(crate) recall: f64,
    /// Wilson interval of it.
    #[serde(default = "unknown")]
    pub(crate) recall_ci95: Interval,
    /// Harmonic mean of the two.
    pub(crate) f1: f64,
    /// Bootstrap interval of it, where one was asked for.
    #[serde(default)]
    pub(crate) f1_ci95: Option<Interval>,
}

/// The interval of a figure that an older report gives without one.
fn unknown() -> Interval {
    wilson(0, 0)
}

impl Metrics {
    /// Counts pairs of (truth, said).
    pub(crate) fn count(pairs: impl IntoIterator<Item = (Label, Label)>) -> Self {
        let mut confusion = [[0usize; 4]; 4];
        for (truth, said) in pairs {
            confusion[truth as usize][said as usize] += 1;
        }
        Self::of(confusion)
    }

    /// The figures of a confusion matrix `[truth][said]`.
    pub(crate) fn of(confusion: [[usize; 4]; 4]) -> Self {
        let n: usize = confusion.iter().flatten().sum();
        let right: usize = (0..4).map(|i| confusion[i][i]).sum();
        let classes: Vec<ClassMetrics> = Label::ALL
            .into_iter()
            .map(|label| {
                let index = label as usize;
                let hits = confusion[index][index];
                let of_class: usize = confusion[index].iter().sum();
                let said: usize = confusion.iter().map(|row| row[index]).sum();
                ClassMetrics {
                    label,
                    n: of_class,
                    precision: ratio(hits, said),
                    precision_ci95: wilson(hits, said),
                    recall: ratio(hits, of_class),
                    recall_ci95: wilson(hits, of_class),
                    f1: ratio(2 * hits, said + of_class),
                    f1_ci95: None,
                }
            })
            .collect();
        // Classes without a single image say nothing: they are left out of the mean.
        let present: Vec<f64> = classes.iter().filter(|class| class.n > 0).map(|class| class.f1).collect();
        let macro_f1 = if present.is_empty() { 0.0 } else { present.iter().sum::<f64>() / present.len() as f64 };
        let (accuracy, accuracy_ci95) = (ratio(right, n), wilson(right, n));
        Self { n, accuracy, accuracy_ci95, macro_f1, macro_f1_ci95: None, classes, confusion }
    }

    /// With the intervals that follow from the counts, for figures read from a report of before they stood there.
    pub(crate) fn recounted(self) -> Self {
        let mut counted = Self::of(self.confusion);
        counted.macro_f1_ci95 = self.macro_f1_ci95;
        for (counted, read) in counted.classes.iter_mut().zip(self.classes) {
            counted.f1_ci95 = read.f1_ci95;
        }
        counted
    }

    /// Mean recall of the classes that have images: what a model that always says the same label cannot raise.
    pub(crate) fn balanced_accuracy(&self) -> f64 {
        let present: Vec<f64> = self.classes.iter().filter(|class| class.n > 0).map(|class| class.recall).collect();
        present.iter().sum::<f64>() / present.len().max(1) as f64
    }

    /// A table that a person reads.
    pub(crate) fn table(&self) -> String {
        let mut out = format!("accuracy {:.4}  macro F1 {:.4}  n {}\n", self.accuracy, self.macro_f1, self.n);
        out += &format!("{:16} {:>6} {:>9} {:>7} {:>7}   said to be", "", "n", "precision", "recall", "F1");
        for label in Label::ALL {
            out += &format!(" {:>15}", label.name());
        }
        for (class, row) in self.classes.iter().zip(&self.confusion) {
            let name = class.label.name();
            let (precision, recall, f1) = (class.precision, class.recall, class.f1);
            out += &format!("\n{name:16} {:>6} {precision:>9.4} {recall:>7.4} {f1:>7.4}   {:10}", class.n, "");
            for count in row {
                out += &format!(" {count:>15}");
            }
        }
        out + "\n"
    }
}

/// A share; 0 of nothing.
pub(crate) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The label of the greatest logit or probability; the first one where several are equal.
pub(crate) fn best<T: PartialOrd>(logits: &[T; 4]) -> Label {
    let mut best = Label::ALL[0];
    for label in Label::ALL {
        if logits[label as usize] > logits[best as usize] {
            best = label;
        }
    }
    best
}

/// Mean negative log-likelihood of the truth.
pub(crate) fn negative_log_likelihood(logits: &[[f32; 4]], truth: &[Label], temperature: f64) -> f64 {
    let sum: f64 = logits
        .iter()
        .zip(truth)
        .map(|(logits, &label)| -softmax(logits, temperature)[label as usize].max(1e-300).ln())
        .sum();
    sum / logits.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use Label::{Covid, LungOpacity, Normal};

    #[test]
    fn the_figures_follow_their_definitions() {
        let pairs = [(Covid, Covid), (Covid, Covid), (Covid, Normal), (Normal, Normal), (LungOpacity, Normal)];
        let metrics = Metrics::count(pairs);
        assert_eq!((metrics.n, metrics.accuracy), (5, 0.6));
        let covid = &metrics.classes[0];
        assert_eq!((covid.n, covid.precision, covid.recall, covid.f1), (3, 1.0, 2.0 / 3.0, 0.8));
        let opacity = &metrics.classes[1];
        assert_eq!((opacity.n, opacity.precision, opacity.recall, opacity.f1), (1, 0.0, 0.0, 0.0));
        let normal = &metrics.classes[2];
        assert_eq!((normal.precision, normal.recall, normal.f1), (1.0 / 3.0, 1.0, 0.5));
        assert_eq!(metrics.confusion[1], [0, 0, 1, 0]);
        assert!((metrics.macro_f1 - (0.8 + 0.0 + 0.5) / 3.0).abs() < 1e-12);
        assert_eq!(Metrics::count([]).accuracy, 0.0);
    }

    #[test]
    fn softmax_sums_to_one_and_temperature_flattens_it() {
        let logits = [1000.0, 998.0, -1000.0, 0.0];
        let sharp = softmax(&logits, 1.0);
        let flat = softmax(&logits, 4.0);
        assert!((sharp.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(flat[0] < sharp[0] && flat[1] > sharp[1]);
        assert_eq!(best(&logits), Covid);
        assert!(negative_log_likelihood(&[logits], &[Label::ViralPneumonia], 1.0).is_finite());
    }
}

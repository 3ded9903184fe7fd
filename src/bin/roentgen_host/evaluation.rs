//! What a model said about a set of images, float and int8 side by side, as JSON and as a table. Not the running of it.

use crate::dataset::Sample;
use crate::metrics::{Metrics, best};
use roentgen::assess::softmax;
use roentgen::bundle::Manifest;
use roentgen::report::{Label, NOTICE};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The schema name of `report.json` and of `evaluate --json`.
pub(crate) const SCHEMA: &str = "roentgen.evaluation/1";

/// A model's figures on one set of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evaluation {
    /// Always [`SCHEMA`].
    pub(crate) schema: String,
    /// The bundle's name.
    pub(crate) model: String,
    /// The bundle's version.
    pub(crate) version: String,
    /// The preprocessing that both saw.
    pub(crate) preprocessing: String,
    /// What ran the int8 network.
    pub(crate) backend: String,
    /// Which split; absent where the images have none.
    pub(crate) split: Option<String>,
    /// Images judged.
    pub(crate) n: usize,
    /// The bundle's integers.
    pub(crate) int8: Metrics,
    /// The real numbers they came from.
    pub(crate) float: Option<FloatFigures>,
    /// Int8 against float on the same images.
    pub(crate) cost: Option<Cost>,
    /// Share of the images on which the int8 model would abstain at the bundle's threshold.
    pub(crate) abstained: f64,
    /// By the population that the data names, where it does: int8.
    pub(crate) populations: BTreeMap<String, Population>,
    /// Images that could not be read, with the reason; not among `n`.
    pub(crate) refused: Vec<String>,
    /// Always [`NOTICE`].
    pub(crate) notice: String,
}

/// The float model's figures, and how they are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FloatFigures {
    /// Measured now, or taken from the bundle's own report.
    pub(crate) source: Source,
    /// The figures, beside `source` in the JSON as those of int8 stand there.
    #[serde(flatten)]
    pub(crate) metrics: Metrics,
}

/// How figures are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// On the images of this evaluation.
    Measured,
    /// When the bundle was made, on its own test images, which need not be these.
    Recorded,
}

/// What int8 cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Share of the images on which both have the same most probable label.
    pub(crate) label_agreement: f64,
    /// Int8 accuracy minus float accuracy, in percentage points.
    pub(crate) accuracy_points: f64,
    /// Mean over images of the greatest difference of a probability.
    pub(crate) mean_probability_difference: f64,
    /// The greatest of them.
    pub(crate) max_probability_difference: f64,
}

/// The int8 figures of one population.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Population {
    /// Its images.
    pub(crate) n: usize,
    /// Share of them judged right.
    pub(crate) accuracy: f64,
}

/// Class logits of the same samples by both models.
pub(crate) struct Judged<'a> {
    /// The images.
    pub(crate) samples: &'a [Sample],
    /// The bundle's logits, one per sample.
    pub(crate) int8: &'a [[f32; 4]],
    /// The float model's, where it was run.
    pub(crate) float: Option<&'a [[f32; 4]]>,
}

impl Evaluation {
    /// Derives all figures from the logits.
    pub(crate) fn new(judged: &Judged, manifest: &Manifest, backend: &str, split: Option<String>) -> Self {
        let truths = || judged.samples.iter().map(|sample| sample.label);
        let metrics = |logits: &[[f32; 4]]| Metrics::count(truths().zip(logits.iter().map(best)));
        let temperature = f64::from(manifest.calibration.temperature);
        let probabilities = |logits: &[f32; 4]| softmax(logits, temperature);
        let greatest = |logits| probabilities(logits).into_iter().fold(0f64, f64::max);
        let int8 = metrics(judged.int8);
        let float = judged.float.map(metrics);
        let cost = judged.float.zip(float.as_ref()).map(|(logits, float)| {
            let pairs = || judged.int8.iter().zip(logits);
            let differences: Vec<f64> = pairs()
                .map(|(a, b)| {
                    let (a, b) = (probabilities(a), probabilities(b));
                    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f64, f64::max)
                })
                .collect();
            let n = differences.len().max(1) as f64;
            Cost {
                label_agreement: pairs().filter(|(a, b)| best(a) == best(b)).count() as f64 / n,
                accuracy_points: 100.0 * (int8.accuracy - float.accuracy),
                mean_probability_difference: differences.iter().sum::<f64>() / n,
                max_probability_difference: differences.iter().copied().fold(0f64, f64::max),
            }
        });
        let threshold = f64::from(manifest.thresholds.min_probability);
        let unsure = judged.int8.iter().filter(|logits| greatest(logits) < threshold).count();
        let mut groups: BTreeMap<String, Vec<(Label, Label)>> = BTreeMap::new();
        for (sample, logits) in judged.samples.iter().zip(judged.int8) {
            if let Some(population) = &sample.population {
                groups.entry(population.clone()).or_default().push((sample.label, best(logits)));
            }
        }
        let populations = groups.into_iter().map(|(name, pairs)| {
            let metrics = Metrics::count(pairs);
            (name, Population { n: metrics.n, accuracy: metrics.accuracy })
        });
        Self {
            schema: SCHEMA.into(),
            model: manifest.name.clone(),
            version: manifest.version.clone(),
            preprocessing: manifest.input.preprocessing.clone(),
            backend: backend.into(),
            split,
            n: int8.n,
            abstained: unsure as f64 / int8.n.max(1) as f64,
            float: float.map(|metrics| FloatFigures { source: Source::Measured, metrics }),
            int8,
            cost,
            populations: populations.collect(),
            refused: Vec::new(),
            notice: NOTICE.into(),
        }
    }

    /// Tables that a person reads.
    pub(crate) fn table(&self) -> String {
        let split = self.split.as_deref().map_or_else(String::new, |split| format!(", split {split}"));
        let mut out = format!("{} {}: {} images{split}\n", self.model, self.version, self.n);
        out += &format!("\nint8 ({})  {}", self.backend, self.int8.table());
        match &self.float {
            Some(FloatFigures { source: Source::Measured, metrics }) => {
                out += &format!("\nfloat, measured on the same images  {}", metrics.table());
            }
            Some(FloatFigures { source: Source::Recorded, metrics }) => {
                out += &format!(
                    "\nfloat, as recorded when the bundle was made, on its own test images (not measured now; give \
                     --model to measure)  {}",
                    metrics.table()
                );
            }
            None => out += "\nfloat: unknown; give --model to measure it\n",
        }
        if let Some(cost) = &self.cost {
            out += &format!(
                "\nint8 against float: accuracy {:+.2} points, same label on {:.2} % of the images, probabilities differ \
                 by {:.4} on average and {:.4} at most\n",
                cost.accuracy_points,
                100.0 * cost.label_agreement,
                cost.mean_probability_difference,
                cost.max_probability_difference
            );
        }
        for (name, population) in &self.populations {
            out += &format!("population {name}: accuracy {:.4}, n {}\n", population.accuracy, population.n);
        }
        out += &format!("abstained on {:.2} % of the images\n", 100.0 * self.abstained);
        for refused in &self.refused {
            out += &format!("not judged: {refused}\n");
        }
        out + NOTICE + "\n"
    }
}

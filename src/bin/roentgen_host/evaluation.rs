//! What a model said about a set of images, float and int8 side by side, as JSON. Not the running of it, and not the
//! tables and pages that people read.

pub(crate) mod abstention;
pub(crate) mod groups;
pub(crate) mod intervals;
pub(crate) mod numbers;
pub(crate) mod ranking;
pub(crate) mod reliability;
mod statements;
mod table;

use crate::dataset::Sample;
use crate::judge::Verdict;
use crate::metrics::{Metrics, best, ratio};
use crate::out_of_domain::Rejection;
use crate::robustness::Suite;
use abstention::Abstention;
use groups::{Group, Rate, SourceAlone};
use intervals::{Bootstrap, Interval, wilson};
use ranking::{Ranking, RankingFigures};
use reliability::Reliability;
use roentgen::assess::{findings, softmax};
use roentgen::bundle::{MODEL_FILE, Manifest};
use roentgen::report::{Label, NOTICE};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(crate) use statements::Statement;

/// The schema name of `report.json` and of `evaluate --json`. Fields are only ever added to it.
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
    /// SHA-256 of the bundle's `model.onnx`. (The bundle's own hash covers this report, which so cannot name it.)
    pub(crate) network_sha256: String,
    /// The preprocessing that both saw.
    pub(crate) preprocessing: String,
    /// What ran the int8 network.
    pub(crate) backend: String,
    /// Which split; absent where the images have none.
    pub(crate) split: Option<String>,
    /// Images judged.
    pub(crate) n: usize,
    /// What the figures mean for who uses the model, in plain words.
    pub(crate) statements: Vec<Statement>,
    /// The bundle's integers.
    pub(crate) int8: Metrics,
    /// The real numbers they came from.
    pub(crate) float: Option<FloatFigures>,
    /// Int8 against float on the same images.
    pub(crate) cost: Option<Cost>,
    /// What the probabilities of int8 are worth.
    pub(crate) int8_probabilities: Probabilities,
    /// What those of float are worth, where it was run.
    pub(crate) float_probabilities: Option<Probabilities>,
    /// Share of the images on which the box would abstain.
    pub(crate) abstained: f64,
    /// What that is worth.
    pub(crate) abstention: Abstention,
    /// By the population that the data names, where it does.
    pub(crate) populations: BTreeMap<String, Group>,
    /// By the source that the data names, where it does.
    pub(crate) sources: BTreeMap<String, Group>,
    /// What naming the source's most frequent class would reach.
    pub(crate) source_alone: Option<SourceAlone>,
    /// Normal radiographs of children that are called viral pneumonia.
    pub(crate) paediatric_normals: Option<Rate>,
    /// Int8 on images changed in ways that should not matter; absent after `--quick`.
    pub(crate) robustness: Option<Suite>,
    /// Int8 on images without what a reader reads; absent after `--quick`.
    pub(crate) shortcuts: Option<Suite>,
    /// What the box makes of pictures that it should not judge; empty after `--quick` without `--negatives`.
    #[serde(default)]
    pub(crate) out_of_domain: Vec<Rejection>,
    /// The bundle's `quantization.json`, where it has one.
    pub(crate) quantization: Option<serde_json::Value>,
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
    /// Wilson interval of it.
    pub(crate) label_agreement_ci95: Interval,
    /// Int8 accuracy minus float accuracy, in percentage points.
    pub(crate) accuracy_points: f64,
    /// Bootstrap interval of it, paired by image.
    pub(crate) accuracy_points_ci95: Option<Interval>,
    /// Mean over images of the greatest difference of a probability.
    pub(crate) mean_probability_difference: f64,
    /// The greatest of them.
    pub(crate) max_probability_difference: f64,
}

/// What a model's probabilities are worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Probabilities {
    /// As the box gives them.
    pub(crate) calibrated: Reliability,
    /// Softmax of the logits as they are.
    pub(crate) uncalibrated: Reliability,
    /// One entry a class, in the order of the network's outputs: how well its probability ranks.
    pub(crate) classes: Vec<RankingFigures>,
}

/// What both models said of the same samples.
pub(crate) struct Judged<'a> {
    /// The images.
    pub(crate) samples: &'a [Sample],
    /// Their sources, as far as the data names them.
    pub(crate) sources: &'a [Option<String>],
    /// What the box says of each.
    pub(crate) int8: &'a [Verdict],
    /// The float model's logits, where it was run.
    pub(crate) float: Option<&'a [[f32; 4]]>,
}

/// The labels of the same samples.
pub(crate) struct Answers {
    /// The true ones.
    pub(crate) truth: Vec<Label>,
    /// Those that int8 finds most probable.
    pub(crate) int8: Vec<Label>,
    /// Those that float finds most probable.
    pub(crate) float: Option<Vec<Label>>,
}

impl Evaluation {
    /// Derives all figures but those of changed images from what was said.
    pub(crate) fn new(judged: &Judged, manifest: &Manifest, backend: &str, split: Option<String>) -> Self {
        let temperature = manifest.calibration.temperature;
        let probabilities =
            |logits: &[f32; 4]| findings(logits, temperature).map(|finding| f64::from(finding.probability));
        let int8_probabilities: Vec<[f64; 4]> = judged.int8.iter().map(Verdict::probabilities).collect();
        let int8_logits: Vec<[f32; 4]> = judged.int8.iter().map(|verdict| verdict.logits).collect();
        let float_probabilities: Option<Vec<[f64; 4]>> =
            judged.float.map(|logits| logits.iter().map(probabilities).collect());
        let answers = Answers {
            truth: judged.samples.iter().map(|sample| sample.label).collect(),
            int8: judged.int8.iter().map(Verdict::said).collect(),
            float: float_probabilities.as_ref().map(|all| all.iter().map(best).collect()),
        };
        let populations: Vec<Option<String>> = judged.samples.iter().map(|sample| sample.population.clone()).collect();
        let bootstrap = Bootstrap::new(answers.truth.len(), intervals::SEED);
        let worth = |probabilities: &[[f64; 4]], logits: &[[f32; 4]]| {
            Probabilities::new(probabilities, logits, &answers.truth, &bootstrap)
        };
        let float = answers.float.as_deref().map(|said| metrics(&answers.truth, said, &bootstrap));
        let cost = answers
            .float
            .as_deref()
            .zip(float_probabilities.as_deref())
            .map(|(said, probabilities)| cost(&answers, said, (&int8_probabilities, probabilities), &bootstrap));
        let abstention = Abstention::new(judged.int8, &answers.truth, &answers.int8);
        let n = answers.truth.len();
        Self {
            schema: SCHEMA.into(),
            model: manifest.name.clone(),
            version: manifest.version.clone(),
            network_sha256: manifest.files.get(MODEL_FILE).cloned().unwrap_or_default(),
            preprocessing: manifest.input.preprocessing.clone(),
            backend: backend.into(),
            split,
            n,
            statements: Vec::new(),
            int8: metrics(&answers.truth, &answers.int8, &bootstrap),
            float: float.map(|metrics| FloatFigures { source: Source::Measured, metrics }),
            cost,
            int8_probabilities: worth(&int8_probabilities, &int8_logits),
            float_probabilities: float_probabilities.as_deref().zip(judged.float).map(|(p, logits)| worth(p, logits)),
            abstained: ratio(abstention.abstained, n),
            abstention,
            populations: groups::groups(judged, &answers, &populations),
            sources: groups::groups(judged, &answers, judged.sources),
            source_alone: groups::source_alone(&answers.truth, judged.sources),
            paediatric_normals: groups::paediatric_normals(judged, &answers),
            robustness: None,
            shortcuts: None,
            out_of_domain: Vec::new(),
            quantization: None,
            refused: Vec::new(),
            notice: NOTICE.into(),
        }
    }

    /// With the plain words that follow from all figures, to be called when these are complete.
    pub(crate) fn stated(mut self) -> Self {
        self.statements = statements::statements(&self);
        self
    }
}

impl Probabilities {
    /// Of calibrated probabilities and of the logits behind them.
    fn new(probabilities: &[[f64; 4]], logits: &[[f32; 4]], truth: &[Label], bootstrap: &Bootstrap) -> Self {
        let plain: Vec<[f64; 4]> = logits.iter().map(|logits| softmax(logits, 1.0)).collect();
        let class = |label: Label| {
            let scores: Vec<f64> = probabilities.iter().map(|all| all[label as usize]).collect();
            let of_class: Vec<bool> = truth.iter().map(|&truth| truth == label).collect();
            Ranking::new(&scores, &of_class).figures(bootstrap)
        };
        Self {
            calibrated: Reliability::new(probabilities, truth, bootstrap),
            uncalibrated: Reliability::new(&plain, truth, bootstrap),
            classes: Label::ALL.map(class).to_vec(),
        }
    }
}

/// The figures of what was said, with bootstrap intervals.
fn metrics(truth: &[Label], said: &[Label], bootstrap: &Bootstrap) -> Metrics {
    let weighted = |weights: &[u16]| {
        let mut confusion = [[0usize; 4]; 4];
        for ((&truth, &said), &weight) in truth.iter().zip(said).zip(weights) {
            confusion[truth as usize][said as usize] += usize::from(weight);
        }
        Metrics::of(confusion)
    };
    let mut metrics = weighted(&vec![1; truth.len()]);
    metrics.macro_f1_ci95 = bootstrap.interval(|weights| Some(weighted(weights).macro_f1));
    for class in &mut metrics.classes {
        let f1 = |weights: &[u16]| Some(weighted(weights).classes[class.label as usize].f1);
        class.f1_ci95 = bootstrap.interval(f1);
    }
    metrics
}

/// Int8 against float, whose labels are `float`; `probabilities` are those of both.
fn cost(answers: &Answers, float: &[Label], probabilities: (&[[f64; 4]], &[[f64; 4]]), bootstrap: &Bootstrap) -> Cost {
    let greatest = |(a, b): (&[f64; 4], &[f64; 4])| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f64, f64::max);
    let differences: Vec<f64> = probabilities.0.iter().zip(probabilities.1).map(greatest).collect();
    let n = differences.len();
    let gain = |weights: &[u16]| {
        let (mut sum, mut drawn) = (0i64, 0i64);
        for (((truth, int8), float), &weight) in answers.truth.iter().zip(&answers.int8).zip(float).zip(weights) {
            sum += (i64::from(int8 == truth) - i64::from(float == truth)) * i64::from(weight);
            drawn += i64::from(weight);
        }
        100.0 * sum as f64 / drawn.max(1) as f64
    };
    let agree = answers.int8.iter().zip(float).filter(|(a, b)| a == b).count();
    Cost {
        label_agreement: ratio(agree, n),
        label_agreement_ci95: wilson(agree, n),
        accuracy_points: gain(&vec![1; n]),
        accuracy_points_ci95: bootstrap.interval(|weights| Some(gain(weights))),
        mean_probability_difference: differences.iter().sum::<f64>() / n.max(1) as f64,
        max_probability_difference: differences.iter().copied().fold(0f64, f64::max),
    }
}

//! `roentgen-host average`: several models that were fine-tuned from the same trunk → one whose every weight is the mean of
//! theirs ("model soup", Wortsman et al. 2022, arXiv:2203.05482, uniform). It costs a box nothing, unlike an ensemble. Not
//! for models of different beginnings: the mean of those is a model of nothing, which the figures on `val` then show.

use crate::dataset::{Dataset, Sample, Split};
use crate::features;
use crate::metrics::{Metrics, best, negative_log_likelihood};
use crate::model::logits;
use crate::training::fit_temperature;
use crate::weights::{FloatConv, FloatModel};
use anyhow::{Context, Result, ensure};
use roentgen::preprocess;
use roentgen::report::Label;
use std::path::{Path, PathBuf};

/// What `average` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A trained model; twice or more
    #[arg(long = "model", required = true, num_args = 1)]
    models: Vec<PathBuf>,
    /// The images that they were trained on: val says what each is worth, and their mean
    #[arg(long)]
    data: PathBuf,
    /// Where to write the mean
    #[arg(long)]
    out: PathBuf,
    /// Where features are kept; `features` beside the first model where absent
    #[arg(long)]
    cache: Option<PathBuf>,
    /// The seed given to train: divides data that has no splits
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.models.len() > 1, "one model has no mean with another: give --model twice or more");
    let models: Vec<FloatModel> = args.models.iter().map(|path| trained(path)).collect::<Result<_>>()?;
    let mut data = Dataset::open(&args.data)?;
    data.assign_splits(args.seed);
    let val = data.of(Split::Val);
    ensure!(!val.is_empty(), "{} holds no image for val", args.data.display());
    let cache = features::folder(args.cache.as_deref(), &args.models[0]);

    for (path, model) in args.models.iter().zip(&models) {
        let on_val = judge(model, &val, &cache)?;
        println!("{}: {}", path.display(), on_val.words());
    }
    let mut mean = mean(&models, &args.models)?;
    let on_val = judge(&mean, &val, &cache)?;
    println!("their mean: {}", on_val.words());

    let training: Vec<&str> =
        models.iter().map(|model| model.notes.get("training").map_or("unknown", String::as_str)).collect();
    let notes = [
        ("temperature", on_val.temperature.to_string()),
        ("preprocessing", preprocess::VERSION.to_owned()),
        ("val_images", val.len().to_string()),
        ("val_accuracy", format!("{:.4}", on_val.metrics.accuracy)),
        ("training", format!("mean of the weights of {} models: {}", models.len(), training.join("; "))),
    ];
    mean.notes.extend(notes.map(|(key, value)| (key.to_owned(), value)));
    mean.save(&args.out)?;
    println!("The mean is written to {}. Next: roentgen-host quantize --model {0} …", args.out.display());
    Ok(())
}

fn trained(path: &Path) -> Result<FloatModel> {
    let model = FloatModel::load(path)?;
    model.trained_head(path)?;
    Ok(model)
}

/// The mean of every weight and bias. The notes are those that all models share. `paths` name them in errors.
fn mean(models: &[FloatModel], paths: &[PathBuf]) -> Result<FloatModel> {
    let mut mean = models[0].clone();
    for (model, path) in models.iter().zip(paths).skip(1) {
        ensure!(
            shapes(model).eq(shapes(&mean)),
            "{} and {} have different layers; only models of one trunk have a mean",
            paths[0].display(),
            path.display()
        );
        mean.notes.retain(|key, value| model.notes.get(key) == Some(value));
    }
    for key in ["source_sha256", "convention"] {
        let of_first = models[0].notes.get(key);
        ensure!(
            mean.notes.get(key) == of_first,
            "{} and the others come from different trunks ({key} differs): their mean would be a model of nothing",
            paths[0].display()
        );
    }
    // In f64, so that the order of the models changes nothing that f32 would show.
    let share = 1.0 / models.len() as f64;
    for (index, conv) in mean.trunk.iter_mut().chain(&mut mean.head).enumerate() {
        let layers: Vec<&FloatConv> =
            models.iter().filter_map(|model| model.trunk.iter().chain(&model.head).nth(index)).collect();
        let of = |value: &dyn Fn(&FloatConv) -> f32| -> f32 {
            (layers.iter().map(|layer| f64::from(value(layer))).sum::<f64>() * share) as f32
        };
        for (at, weight) in conv.weights.iter_mut().enumerate() {
            *weight = of(&|layer| layer.weights[at]);
        }
        for (at, bias) in conv.bias.iter_mut().enumerate() {
            *bias = of(&|layer| layer.bias[at]);
        }
    }
    mean.check(1)?;
    Ok(mean)
}

/// Name and shape of every layer.
fn shapes(model: &FloatModel) -> impl Iterator<Item = (&str, usize, usize, usize)> {
    let layers = model.trunk.iter().chain(&model.head);
    layers.map(|conv| (conv.name.as_str(), conv.out_channels, conv.in_channels, conv.kernel))
}

/// What a model is worth on val.
struct OnVal {
    metrics: Metrics,
    temperature: f64,
    /// At that temperature.
    nll: f64,
}

impl OnVal {
    fn words(&self) -> String {
        let Metrics { accuracy, macro_f1, .. } = &self.metrics;
        format!("accuracy {accuracy:.4}, macro F1 {macro_f1:.4}, negative log-likelihood {:.4} on val", self.nll)
    }
}

fn judge(model: &FloatModel, val: &[Sample], cache: &Path) -> Result<OnVal> {
    let cache = features::Cache::open(cache, model)?;
    let pooled = features::features(model, val, &cache, "features of val")?;
    let head = model.head.as_ref().context("the mean of heads is a head")?;
    let said: Vec<[f32; 4]> = pooled.iter().map(|features| logits(head, features)).collect();
    let truth: Vec<Label> = val.iter().map(|sample| sample.label).collect();
    let temperature = fit_temperature(&said, &truth);
    let nll = negative_log_likelihood(&said, &truth, temperature);
    let metrics = Metrics::count(truth.iter().copied().zip(said.iter().map(best)));
    Ok(OnVal { metrics, temperature, nll })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn model(factor: f32, source: &str) -> FloatModel {
        let conv = |name: &str, in_channels: usize, kernel: usize| FloatConv {
            name: name.into(),
            out_channels: 4,
            in_channels,
            kernel,
            weights: (0..4 * in_channels * kernel * kernel).map(|i| i as f32 * factor).collect(),
            bias: vec![factor; 4],
        };
        let trunk = (1..=5).map(|block| conv(&format!("block{block}_conv1"), if block == 1 { 1 } else { 4 }, 3));
        let notes = [("source_sha256", source), ("convention", "caffe"), ("training", &factor.to_string())];
        FloatModel {
            trunk: trunk.collect(),
            head: Some(conv("head", 4, 1)),
            notes: notes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn every_weight_is_the_mean_and_only_shared_notes_stay() {
        let paths: Vec<PathBuf> = ["a", "b", "c"].map(PathBuf::from).into();
        let mean = mean(&[model(1.0, "x"), model(2.0, "x"), model(6.0, "x")], &paths).unwrap();
        let expected = model(3.0, "x");
        assert_eq!((&mean.trunk, &mean.head), (&expected.trunk, &expected.head));
        assert!(mean.notes.contains_key("source_sha256") && !mean.notes.contains_key("training"));
    }

    #[test]
    fn models_of_different_trunks_or_layers_have_no_mean() {
        let paths: Vec<PathBuf> = ["a", "b"].map(PathBuf::from).into();
        let error = mean(&[model(1.0, "x"), model(1.0, "y")], &paths).unwrap_err().to_string();
        assert!(error.contains("source_sha256"), "{error}");
        let mut wider = model(1.0, "x");
        wider.trunk[2].name = "block3_conv9".into();
        let error = mean(&[model(1.0, "x"), wider], &paths).unwrap_err().to_string();
        assert!(error.contains("different layers"), "{error}");
    }
}

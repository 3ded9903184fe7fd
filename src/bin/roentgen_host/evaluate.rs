//! `roentgen-host evaluate`: a bundle's figures on labelled images.

use crate::dataset::{Dataset, Sample, Split};
use crate::evaluation::{Evaluation, FloatFigures, Judged, Source};
use crate::features::{self, Cache};
use crate::model;
use crate::weights::FloatModel;
use crate::{judge, read};
use anyhow::{Context, Result, ensure};
use roentgen::bundle::Bundle;
use std::path::{Path, PathBuf};

/// The name of a bundle's own figures.
pub(crate) const REPORT_FILE: &str = "report.json";

/// What `evaluate` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The bundle to judge
    #[arg(long)]
    bundle: PathBuf,
    /// Images in class folders, with or without train/, val/ and test/ above them
    #[arg(long)]
    data: PathBuf,
    /// The float model that the bundle was made from, to measure what int8 cost
    #[arg(long)]
    model: Option<PathBuf>,
    /// Which split; by default test where the data has splits, and every image where it has none
    #[arg(long, value_enum)]
    split: Option<Split>,
    /// Divides data that has no splits, if --split asks for one: the seed given to train
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where computed features of the float model are kept; beside the model by default
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<()> {
    let bundle = Bundle::open(&args.bundle)?;
    let (samples, split) = choose(&args.data, args.split, args.seed)?;
    let float = args.model.as_deref().map(|path| Float::open(path, args.cache.as_deref())).transpose()?;
    let mut evaluation = evaluate(&bundle, &samples, split, float.as_ref())?;
    if evaluation.float.is_none() {
        evaluation.float = recorded(&args.bundle)?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&evaluation)?);
    } else {
        print!("{}", evaluation.table());
    }
    Ok(())
}

/// The images to judge, and the name of their split.
fn choose(data: &Path, split: Option<Split>, seed: u64) -> Result<(Vec<Sample>, Option<String>)> {
    let mut dataset = Dataset::open(data)?;
    if split.is_none() && !dataset.is_split() {
        return Ok((dataset.samples, None));
    }
    dataset.assign_splits(seed);
    let split = split.unwrap_or(Split::Test);
    let samples = dataset.of(split);
    ensure!(!samples.is_empty(), "{} holds no image for {split}", data.display());
    Ok((samples, Some(split.to_string())))
}

/// A float model to compare with.
pub(crate) struct Float {
    path: PathBuf,
    model: FloatModel,
    cache: Cache,
}

impl Float {
    /// Loads a trained model and its feature cache.
    fn open(path: &Path, cache: Option<&Path>) -> Result<Self> {
        Self::new(path, FloatModel::load(path)?, cache)
    }

    /// Takes a model that is loaded already; `path` is where it came from.
    pub(crate) fn new(path: &Path, model: FloatModel, cache: Option<&Path>) -> Result<Self> {
        model.trained_head(path)?;
        let cache = Cache::open(&features::folder(cache, path), &model)?;
        Ok(Self { path: path.to_owned(), model, cache })
    }

    fn logits(&self, samples: &[Sample]) -> Result<Vec<[f32; 4]>> {
        let head = self.model.trained_head(&self.path)?;
        let features = features::features(&self.model, samples, &self.cache, "float")?;
        Ok(features.iter().map(|pooled| model::logits(head, pooled)).collect())
    }
}

/// Judges the images by the bundle and, where given, by the float model.
pub(crate) fn evaluate(
    bundle: &Bundle,
    samples: &[Sample],
    split: Option<String>,
    float: Option<&Float>,
) -> Result<Evaluation> {
    let int8 = judge::int8(bundle, samples)?;
    let float = float.map(|float| float.logits(&int8.samples)).transpose()?;
    let logits: Vec<[f32; 4]> = int8.verdicts.iter().map(|verdict| verdict.logits).collect();
    let judged = Judged { samples: &int8.samples, int8: &logits, float: float.as_deref() };
    let mut evaluation = Evaluation::new(&judged, bundle.manifest(), "onnx", split);
    evaluation.refused = int8.refused;
    Ok(evaluation)
}

/// The float figures in the bundle's own report, marked as recorded.
fn recorded(bundle: &Path) -> Result<Option<FloatFigures>> {
    let path = bundle.join(REPORT_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let report: Evaluation = serde_json::from_slice(&read(&path)?)
        .with_context(|| format!("{} is no report of roentgen-host", path.display()))?;
    Ok(report.float.map(|figures| FloatFigures { source: Source::Recorded, ..figures }))
}

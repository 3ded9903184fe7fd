//! `roentgen-host evaluate`: a bundle's figures on labelled images, as a table, as JSON and as a page. Not their
//! definitions: see `evaluation`.

use crate::dataset::{Dataset, Sample, Split, manifest_column};
use crate::evaluation::{Evaluation, FloatFigures, Judged, Source};
use crate::features::{self, Cache};
use crate::model;
use crate::weights::FloatModel;
use crate::{card, judge, out_of_domain, page, read, robustness, write_whole};
use anyhow::{Context, Result, ensure};
use roentgen::bundle::Bundle;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The name of a bundle's own figures.
pub(crate) const REPORT_FILE: &str = "report.json";

/// The same as a page.
pub(crate) const PAGE_FILE: &str = "report.html";

/// The name of a bundle's quantization table.
const QUANTIZATION_FILE: &str = "quantization.json";

/// How much is measured.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Depth {
    /// Leave out the changed images: robustness, shortcut tests, turned and inverted images, which cost five times as
    /// much as all the rest
    #[arg(long, conflicts_with = "full")]
    pub(crate) quick: bool,
    /// Change every image, and not a seeded subset
    #[arg(long)]
    pub(crate) full: bool,
    /// A folder of pictures that are no frontal chest radiographs (other images, CT slices, photographs): how many of
    /// them are not judged
    #[arg(long, value_name = "DIR")]
    pub(crate) negatives: Option<PathBuf>,
}

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
    /// Write report.json and report.html into this folder
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    depth: Depth,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<()> {
    let bundle = Bundle::open(&args.bundle)?;
    let (samples, split) = choose(&args.data, args.split, args.seed)?;
    let float = args.model.as_deref().map(|path| Float::open(path, args.cache.as_deref())).transpose()?;
    let plan = Plan { data: &args.data, split, float: float.as_ref(), depth: &args.depth };
    let mut evaluation = evaluate(&bundle, &samples, &plan)?;
    if evaluation.float.is_none() {
        evaluation.float = recorded(&args.bundle)?;
    }
    if let Some(out) = &args.out {
        write_whole(&out.join(REPORT_FILE), &serde_json::to_vec_pretty(&evaluation)?)?;
        let page = page::html(&evaluation, bundle.manifest(), &card::of_bundle(&bundle)?);
        write_whole(&out.join(PAGE_FILE), page.as_bytes())?;
        eprintln!("written to {}", out.display());
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

/// What is to be measured.
pub(crate) struct Plan<'a> {
    /// The folder of the images, in whose `manifest.csv` their sources stand.
    pub(crate) data: &'a Path,
    /// The name of their split, where they have one.
    pub(crate) split: Option<String>,
    /// The float model to compare with.
    pub(crate) float: Option<&'a Float>,
    /// How much.
    pub(crate) depth: &'a Depth,
}

/// Judges the images by the bundle and, where given, by the float model.
pub(crate) fn evaluate(bundle: &Bundle, samples: &[Sample], plan: &Plan) -> Result<Evaluation> {
    let started = Instant::now();
    let int8 = judge::int8(bundle, samples)?;
    let float = plan.float.map(|float| float.logits(&int8.samples)).transpose()?;
    let by_path = manifest_column(plan.data, "source")?;
    let source = |sample: &Sample| by_path.get(sample.path.strip_prefix(plan.data).ok()?).cloned();
    let sources: Vec<Option<String>> = int8.samples.iter().map(source).collect();
    let judged = Judged { samples: &int8.samples, sources: &sources, int8: &int8.verdicts, float: float.as_deref() };
    let mut evaluation = Evaluation::new(&judged, bundle.manifest(), &int8.backend, plan.split.clone());
    if !plan.depth.quick {
        let (robustness, shortcuts) = robustness::run(bundle, &int8, plan.depth.full)?;
        (evaluation.robustness, evaluation.shortcuts) = (Some(robustness), Some(shortcuts));
    }
    evaluation.out_of_domain = out_of_domain::run(bundle, &int8, plan.depth)?;
    if bundle.manifest().files.contains_key(QUANTIZATION_FILE) {
        let table = serde_json::from_slice(&bundle.read(QUANTIZATION_FILE)?);
        evaluation.quantization = Some(
            table.with_context(|| format!("{QUANTIZATION_FILE} of the bundle is no JSON; make the bundle again"))?,
        );
    }
    evaluation.refused = int8.refused;
    eprintln!("measured in {:.0} s", started.elapsed().as_secs_f64());
    Ok(evaluation.stated())
}

/// The float figures in the bundle's own report, marked as recorded.
fn recorded(bundle: &Path) -> Result<Option<FloatFigures>> {
    let path = bundle.join(REPORT_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let report: Recorded = serde_json::from_slice(&read(&path)?)
        .with_context(|| format!("{} is no report of roentgen-host", path.display()))?;
    let recorded =
        |figures: FloatFigures| FloatFigures { source: Source::Recorded, metrics: figures.metrics.recounted() };
    Ok(report.float.map(recorded))
}

/// What is taken from a bundle's own report, of whatever version.
#[derive(Deserialize)]
struct Recorded {
    float: Option<FloatFigures>,
}

//! `roentgen-host quantize`: trained float model → bundle, with its golden vectors, its figures and its model card.

use crate::dataset::{Dataset, Sample, Split, thin};
use crate::evaluate::{Float, REPORT_FILE, evaluate};
use crate::evaluation::Evaluation;
use crate::weights::FloatModel;
use crate::{calibrate, correct, fit, quantize, read};
use anyhow::{Context, Result, bail, ensure};
use roentgen::bundle::{BundleWriter, Manifest};
use roentgen::preprocess::preprocess;
use roentgen::radiograph::phantom;
use roentgen::report::{Label, NOTICE};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How many phantoms become golden vectors.
const GOLDEN: u64 = 3;

/// How many of the calibration images correct the biases. Few are enough for a mean over all pixels, and the
/// activations of all of them are held in memory: 26 MB an image.
const CORRECTION: usize = 32;

/// What `quantize` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A model of `roentgen-host train`
    #[arg(long)]
    model: PathBuf,
    /// The images it was trained on: ranges are measured on train, figures on test
    #[arg(long)]
    data: PathBuf,
    /// The bundle's directory
    #[arg(long)]
    out: PathBuf,
    /// The bundle's name
    #[arg(long, default_value = "cxr-vgg16")]
    name: String,
    /// The bundle's version
    #[arg(long, default_value = "0.1.0")]
    version: String,
    /// Training images that ranges are measured on, all classes alike
    #[arg(long, default_value_t = 200)]
    calibration_images: usize,
    /// The seed given to train: divides data that has no splits
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where computed features are kept; beside the model by default
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Markdown that becomes the model card (README.md), before the figures
    #[arg(long)]
    card: Option<PathBuf>,
    /// A line of provenance, e.g. "data=whose images, under which terms"; may be repeated
    #[arg(long = "provenance", value_name = "KEY=TEXT")]
    provenance: Vec<String>,
    #[command(flatten)]
    fit: fit::Options,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<()> {
    let model = FloatModel::load(&args.model)?;
    let head = model.trained_head(&args.model)?.clone();
    let mut data = Dataset::open(&args.data)?;
    data.assign_splits(args.seed);
    let calibration = thin(&data.of(Split::Train), args.calibration_images.div_ceil(Label::ALL.len()));
    let test = data.of(Split::Test);
    for (samples, split) in [(&calibration, Split::Train), (&test, Split::Test)] {
        ensure!(!samples.is_empty(), "{} holds no image for {split}", args.data.display());
    }

    let ranges = calibrate::ranges(&model, &head, &calibration)?;
    let few = thin(&calibration, CORRECTION / Label::ALL.len());
    let inputs = few.iter().map(Sample::input).collect::<Result<Vec<_>>>()?;
    let (corrected, head) = correct::correct(&model, &head, &ranges, &inputs)?;
    let network = quantize::quantize(&corrected, &head, &ranges);
    let mut manifest = Manifest::for_network(&args.name, &args.version, &network);
    manifest.provenance = provenance(args, &model, &data.samples, calibration.len())?;
    let golden: Vec<_> = (1..=GOLDEN).map(|seed| preprocess(&phantom::radiograph(seed, 512))).collect();
    let writer = BundleWriter::new(manifest, &network, &golden)?;

    // Temperature, gates and figures are those of the very network that is packed: it is written without them and run.
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let draft = folder.path().join("draft");
    let fitted = fit::fit(&writer.clone().write(&draft)?, &data, &args.fit)?;
    let writer = fitted.into(writer)?;
    let draft = writer.clone().write(&draft)?;
    let float = Float::new(&args.model, model, args.cache.as_deref())?;
    let evaluation = evaluate(&draft, &test, Some(Split::Test.to_string()), Some(&float))?;
    let bundle = writer
        .file(REPORT_FILE, serde_json::to_vec_pretty(&evaluation)?)
        .file("README.md", card(args, draft.manifest(), &evaluation)?.into_bytes())
        .write(&args.out)?;
    print!("{}", evaluation.table());
    println!("Bundle written to {}, SHA-256 {}", args.out.display(), bundle.sha256());
    Ok(())
}

/// What is known of where the weights come from, one line a step.
fn provenance(
    args: &Args,
    model: &FloatModel,
    samples: &[Sample],
    calibration: usize,
) -> Result<BTreeMap<String, String>> {
    let mut lines = model.notes.clone();
    // It was the float model's; the int8 network's own stands in the manifest.
    lines.remove("temperature");
    for split in Split::ALL {
        let count = samples.iter().filter(|sample| sample.split == Some(split)).count();
        lines.insert(format!("images_{split}"), count.to_string());
    }
    lines.insert(
        "quantization".into(),
        format!(
            "int8 weights per channel, symmetric; u8 activations, clipped for the least mean squared error on \
             {calibration} training images; biases corrected on {CORRECTION} of them"
        ),
    );
    lines.insert("tool".into(), format!("roentgen-host {}", env!("CARGO_PKG_VERSION")));
    for line in &args.provenance {
        match line.split_once('=') {
            Some((key, text)) if !key.is_empty() => lines.insert(key.to_owned(), text.to_owned()),
            _ => bail!("--provenance {line:?} is not of the form KEY=TEXT"),
        };
    }
    Ok(lines)
}

/// The model card: the given text, then figures and provenance.
fn card(args: &Args, manifest: &Manifest, evaluation: &Evaluation) -> Result<String> {
    let text = match &args.card {
        Some(path) => String::from_utf8(read(path)?).with_context(|| format!("{} is no UTF-8", path.display()))?,
        None => format!("# {}\n\n{NOTICE}\n", manifest.name),
    };
    let mut out = format!("{}\n\n## Figures of version {}\n\n", text.trim_end(), manifest.version);
    out += &format!("```text\n{}```\n\n", evaluation.table());
    out += &format!(
        "Probabilities are softmax(logits / {:.4}); below a probability of {} for the best label the box abstains.\n\n",
        manifest.calibration.temperature, manifest.thresholds.min_probability
    );
    out += "## Provenance\n\n";
    for (key, line) in &manifest.provenance {
        out += &format!("- {key}: {line}\n");
    }
    Ok(out)
}

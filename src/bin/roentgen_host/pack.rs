//! `roentgen-host quantize`: trained float model → bundle, with its golden vectors, its figures and its model card.

use crate::dataset::{Dataset, Sample, Split};
use crate::equalise::Equalise;
use crate::evaluate::{Depth, Float, PAGE_FILE, Plan, REPORT_FILE, evaluate};
use crate::quantization::Quantized;
use crate::round::Rounding;
use crate::sign::SigningKey;
use crate::sqnr::{QUANTIZATION_FILE, Record};
use crate::weights::FloatModel;
use crate::{card, fit, page, quantization, tflite};
use anyhow::{Context, Result, bail, ensure};
use roentgen::bundle::{BundleWriter, Manifest, TFLITE_FILE};
use roentgen::preprocess::preprocess;
use roentgen::radiograph::phantom;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How many phantoms become golden vectors.
const GOLDEN: u64 = 3;

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
    /// How weights become integers
    #[arg(long, value_enum, default_value_t = Rounding::Learned)]
    rounding: Rounding,
    /// Whether channels are brought to like ranges first, which changes nothing in real numbers
    #[arg(long, value_enum, default_value_t = Equalise::On)]
    equalise: Equalise,
    /// The seed given to train: divides data that has no splits
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where computed features are kept; beside the model by default
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Markdown that becomes the model card (README.md), before the figures
    #[arg(long)]
    card: Option<PathBuf>,
    /// Sign the bundle with this secret key of `roentgen-host keygen` or `minisign -G`
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// A line of provenance, e.g. "data=whose images, under which terms"; may be repeated
    #[arg(long = "provenance", value_name = "KEY=TEXT")]
    provenance: Vec<String>,
    #[command(flatten)]
    fit: fit::Options,
    #[command(flatten)]
    depth: Depth,
}

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<()> {
    args.fit.check()?;
    ensure!(args.calibration_images > 0, "--calibration-images must be at least 1");
    // Asked for its password now, not after the work.
    let key = args.sign.as_deref().map(SigningKey::load).transpose()?;
    let model = FloatModel::load(&args.model)?;
    let head = model.trained_head(&args.model)?.clone();
    let mut data = Dataset::open(&args.data)?;
    data.assign_splits(args.seed);
    let (train, test) = (data.of(Split::Train), data.of(Split::Test));
    for (samples, split) in [(&train, Split::Train), (&test, Split::Test)] {
        ensure!(!samples.is_empty(), "{} holds no image for {split}", args.data.display());
    }

    let Quantized { network, mut record } =
        quantization::run(&model, &head, &train, args.calibration_images, (args.equalise, args.rounding))?;
    let mut manifest = Manifest::for_network(&args.name, &args.version, &network);
    manifest.provenance = provenance(args, &model, &data.samples, &record)?;
    let golden: Vec<_> = (1..=GOLDEN).map(|seed| preprocess(&phantom::radiograph(seed, 512))).collect();
    let writer = BundleWriter::new(manifest, &network, &golden)?.file(TFLITE_FILE, tflite::write(&network));

    // Temperature, gates and figures are those of the very network that is packed: it is written without them and run.
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let draft = folder.path().join("draft");
    let fitted = fit::fit(&writer.clone().write(&draft)?, &data, &args.fit)?;
    let writer = fitted.into(writer)?;
    let table = serde_json::to_vec_pretty(&record)?;
    let draft = writer.clone().file(QUANTIZATION_FILE, table).write(&draft)?;
    let float = Float::new(&args.model, model, args.cache.as_deref())?;
    let split = Some(Split::Test.to_string());
    let plan = Plan { data: &args.data, split, float: Some(&float), depth: &args.depth };
    let mut evaluation = evaluate(&draft, &test, &plan)?;
    record.label_agreement = evaluation.cost.as_ref().map(|cost| cost.label_agreement);
    record.label_agreement_images = evaluation.cost.as_ref().map(|_| evaluation.n);
    // Only now does the record say how often both agree. Read back from its text: a value made of the record itself
    // would have its f32 scales with the digits of f64.
    let table = serde_json::to_vec_pretty(&record)?;
    evaluation.quantization = Some(serde_json::from_slice(&table)?);
    let (text, manifest) = (card::text(args.card.as_deref(), &args.name)?, draft.manifest());
    let bundle = writer
        .file(QUANTIZATION_FILE, table)
        .file(REPORT_FILE, serde_json::to_vec_pretty(&evaluation)?)
        .file(PAGE_FILE, page::html(&evaluation, manifest, &text).into_bytes())
        .file(card::FILE, card::markdown(&text, manifest, &evaluation).into_bytes())
        .write(&args.out)?;
    if let Some(key) = &key {
        key.sign(&bundle, &args.out)?;
    }
    print!("{}\n{}", record.table(), evaluation.table());
    println!("Bundle written to {}, SHA-256 {}", args.out.display(), bundle.sha256());
    Ok(())
}

/// What is known of where the weights come from, one line a step.
fn provenance(
    args: &Args,
    model: &FloatModel,
    samples: &[Sample],
    record: &Record,
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
            "{}; int8 weights per channel, symmetric, rounded to the {}; u8 activations, ranges by {} on {} training \
             images; biases corrected on {} of them",
            record.equalisation,
            match args.rounding {
                Rounding::Nearest => "nearest",
                Rounding::Learned => "neighbour by which the layer errs least",
            },
            record.ranges,
            record.calibration_images,
            record.correction_images
        ),
    );
    lines.insert("abstention".into(), args.fit.provenance());
    lines.insert("tool".into(), format!("roentgen-host {}", env!("CARGO_PKG_VERSION")));
    for line in &args.provenance {
        match line.split_once('=') {
            Some((key, text)) if !key.is_empty() => lines.insert(key.to_owned(), text.to_owned()),
            _ => bail!("--provenance {line:?} is not of the form KEY=TEXT"),
        };
    }
    Ok(lines)
}

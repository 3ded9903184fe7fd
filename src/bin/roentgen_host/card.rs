//! The model card, `README.md` of a bundle: a person's text, then what was measured and what it means, then where the
//! weights come from. Not the page, which shows the same text and more figures.

use crate::evaluation::numbers::{percent, percent_range, points};
use crate::evaluation::{Evaluation, FloatFigures, Source};
use crate::metrics::Metrics;
use crate::read;
use anyhow::{Context, Result};
use roentgen::bundle::{Bundle, Manifest};
use roentgen::report::NOTICE;
use std::path::Path;

/// The card's name in a bundle.
pub(crate) const FILE: &str = "README.md";

/// What ends the person's text and begins the figures.
const FIGURES: &str = "\n## What was measured\n";

/// The text of a card file; without one, the least that must be said.
pub(crate) fn text(path: Option<&Path>, name: &str) -> Result<String> {
    match path {
        Some(path) => String::from_utf8(read(path)?).with_context(|| format!("{} is no UTF-8", path.display())),
        None => Ok(format!("# {name}\n\n{NOTICE}\n")),
    }
}

/// The person's text in a bundle's card; empty where it has none.
pub(crate) fn of_bundle(bundle: &Bundle) -> Result<String> {
    if !bundle.manifest().files.contains_key(FILE) {
        return Ok(String::new());
    }
    let card = String::from_utf8(bundle.read(FILE)?).with_context(|| format!("{FILE} of the bundle is no UTF-8"))?;
    Ok(card.split(FIGURES).next().unwrap_or_default().to_owned())
}

/// The whole card.
pub(crate) fn markdown(text: &str, manifest: &Manifest, evaluation: &Evaluation) -> String {
    let mut out = format!("{}\n{FIGURES}\n{NOTICE}\n\n", text.trim_end());
    let split = evaluation.split.as_deref().map_or_else(String::new, |split| format!(" of the `{split}` split"));
    out += &format!(
        "Version {}, on {} images{split}; 95 % intervals in brackets. `report.html` has every figure and curve, \
         `report.json` the same for programs.\n\n",
        manifest.version, evaluation.n
    );
    out += "| | accuracy | macro F1 | COVID-19 | lung opacity | normal | viral pneumonia |\n|---|---|---|---|---|---|---|\n";
    match &evaluation.float {
        Some(FloatFigures { source: Source::Measured, metrics }) => out += &row("float", metrics),
        Some(FloatFigures { source: Source::Recorded, metrics }) => out += &row("float, recorded", metrics),
        None => {}
    }
    out += &row("int8", &evaluation.int8);
    out += "\n(The last four columns are recall: the share of a class's images that is found.)\n\n";
    let probabilities = &evaluation.int8_probabilities;
    out += &format!(
        "- Expected calibration error of the int8 probabilities: {} ({} without calibration).\n",
        percent(probabilities.calibrated.ece),
        percent(probabilities.uncalibrated.ece)
    );
    let abstention = &evaluation.abstention;
    out += &format!(
        "- The box abstains on {} of these images; of the others {} are right ({}).\n",
        percent(evaluation.abstained),
        percent(abstention.reported_accuracy),
        percent_range(abstention.reported_accuracy_ci95)
    );
    if let Some(cost) = &evaluation.cost {
        out += &format!(
            "- Int8 against float: accuracy {} points, the same label on {} of the images.\n",
            points(cost.accuracy_points),
            percent(cost.label_agreement)
        );
    }
    for statement in &evaluation.statements {
        let mark = match (statement.concern, statement.unclear) {
            (true, _) => "**Mind:** ",
            (false, true) => "**Unclear:** ",
            (false, false) => "",
        };
        out += &format!("- {mark}{}\n", statement.text);
    }
    if evaluation.shortcuts.is_none() {
        out += "- Robustness and shortcut tests were left out (`--quick`).\n";
    }
    out += "\n## Provenance\n\n";
    for (key, line) in &manifest.provenance {
        out += &format!("- {key}: {line}\n");
    }
    out
}

/// One model's line of the table.
fn row(name: &str, metrics: &Metrics) -> String {
    let with = |share, interval| format!("{} ({})", percent(share), percent_range(interval));
    let macro_f1 = match metrics.macro_f1_ci95 {
        Some([low, high]) => format!("{:.3} ({low:.3}–{high:.3})", metrics.macro_f1),
        None => format!("{:.3}", metrics.macro_f1),
    };
    let classes: Vec<String> = metrics.classes.iter().map(|class| with(class.recall, class.recall_ci95)).collect();
    format!("| {name} | {} | {macro_f1} | {} |\n", with(metrics.accuracy, metrics.accuracy_ci95), classes.join(" | "))
}

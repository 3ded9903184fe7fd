//! Sections of figures: both models, confusion, groups, curves, operating points, quantization, card, method.

use super::html::{
    count, escape, figure, interval, markdown, number, number_interval, percent, percent_with, plate, points,
    points_interval, table,
};
use super::plots;
use crate::evaluation::groups::Group;
use crate::evaluation::intervals::RESAMPLES;
use crate::evaluation::ranking::OperatingPoint;
use crate::evaluation::{Evaluation, Source};
use crate::metrics::Metrics;
use roentgen::bundle::Manifest;
use roentgen::report::Label;
use serde_json::Value;
use std::collections::BTreeMap;

/// Both models, overall and by class.
pub(crate) fn float_int8(of: &Evaluation) -> String {
    let mut models = vec![("int8", &of.int8)];
    if let Some(float) = &of.float {
        models.insert(0, (if float.source == Source::Measured { "float" } else { "float (recorded)" }, &float.metrics));
    }
    let overall: Vec<Vec<String>> = models
        .iter()
        .map(|(name, metrics)| {
            vec![
                (*name).into(),
                count(metrics.n),
                percent_with(metrics.accuracy, metrics.accuracy_ci95),
                format!("{} {}", number(metrics.macro_f1, 3), number_interval(metrics.macro_f1_ci95, 3)),
            ]
        })
        .collect();
    let mut out = table(&["", "n", "Accuracy (95 %)", "Macro F1 (95 %)"], &overall);
    out += &match &of.float {
        None => "<p>The float model was not measured: give <code>--model</code>.</p>\n".to_owned(),
        Some(float) if float.source == Source::Recorded => "<p>The float figures are those of the bundle's own report, on \
             its own test images, which need not be these.</p>\n"
            .to_owned(),
        Some(_) => of.cost.as_ref().map_or_else(String::new, |cost| {
            format!(
                "<p>Int8 minus float, on the same images: {} points {}. Same label on {}. The probabilities of an image \
                 differ by {} on average and {} at most (greatest of the four).</p>\n",
                points(cost.accuracy_points),
                points_interval(cost.accuracy_points_ci95),
                percent_with(cost.label_agreement, cost.label_agreement_ci95),
                number(cost.mean_probability_difference, 4),
                number(cost.max_probability_difference, 4)
            )
        }),
    };
    let mut rows = Vec::new();
    for label in Label::ALL {
        for (name, metrics) in &models {
            let class = &metrics.classes[label as usize];
            rows.push(vec![
                escape(label.title()),
                (*name).into(),
                count(class.n),
                percent_with(class.precision, class.precision_ci95),
                percent_with(class.recall, class.recall_ci95),
                format!("{} {}", number(class.f1, 3), number_interval(class.f1_ci95, 3)),
            ]);
        }
    }
    out + "<h3>By class</h3>\n" + &table(&["Class", "Model", "n", "Precision", "Recall (sensitivity)", "F1"], &rows)
}

/// Counts and shares of the row, for both models.
pub(crate) fn confusion(of: &Evaluation) -> String {
    let mut out = String::from(
        "<p>Rows are the true class, columns what the model finds most probable; under each count its share of the row.</p>\n\
         <div class=\"plates\">\n",
    );
    out += &plate("int8", &matrix(&of.int8));
    if let Some(float) = &of.float {
        let caption = if float.source == Source::Measured { "float" } else { "float, recorded" };
        out += &plate(caption, &matrix(&float.metrics));
    }
    out + "</div>\n"
}

fn matrix(metrics: &Metrics) -> String {
    let mut out = String::from("<div class=\"scroll\"><table class=\"matrix\"><thead><tr><th scope=\"col\">true</th>");
    for label in Label::ALL {
        out += &format!("<th scope=\"col\">{}</th>", escape(label.title()));
    }
    out += "</tr></thead><tbody>\n";
    for (label, row) in Label::ALL.iter().zip(&metrics.confusion) {
        let all: usize = row.iter().sum();
        out += &format!("<tr><th scope=\"row\">{}</th>", escape(label.title()));
        for (column, &cell) in row.iter().enumerate() {
            let share = 100.0 * cell as f64 / all.max(1) as f64;
            let class = if column == *label as usize { "hit" } else { "miss" };
            out += &format!(
                "<td class=\"{class}\" style=\"--share:{share:.0}%\">{}<small>{share:.1} %</small></td>",
                count(cell)
            );
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}

/// By population and by source.
pub(crate) fn groups(of: &Evaluation) -> String {
    let mut out = String::new();
    for (what, groups) in [("Population", &of.populations), ("Source", &of.sources)] {
        match groups.is_empty() {
            true => out += &format!("<p>The data names no {}.</p>\n", what.to_lowercase()),
            false => out += &group_table(what, groups),
        }
    }
    if let Some(rate) = &of.paediatric_normals {
        out += &format!(
            "<p>Normal radiographs of children called viral pneumonia by int8 (whether or not the box would report it): {} of \
             {}, {} {}; at most {} is accepted.</p>\n",
            count(rate.hits),
            count(rate.n),
            percent(rate.share),
            interval(rate.share_ci95),
            percent(rate.limit)
        );
    }
    out
}

fn group_table(what: &str, groups: &BTreeMap<String, Group>) -> String {
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|(name, group)| {
            let classes: Vec<String> = group
                .classes
                .iter()
                .map(|class| {
                    let title = escape(class.label.title());
                    let float = class.float_recall.zip(class.float_recall_ci95);
                    format!(
                        "<span class=\"item\">{title} (n {}): {}{}</span>",
                        count(class.n),
                        percent_with(class.recall, class.recall_ci95),
                        float
                            .map_or_else(String::new, |(share, ends)| format!("; float {}", percent_with(share, ends)))
                    )
                })
                .collect();
            let float = group.float_accuracy.zip(group.float_accuracy_ci95);
            vec![
                escape(name),
                count(group.n),
                percent_with(group.accuracy, group.accuracy_ci95),
                float.map_or_else(|| "–".into(), |(share, ends)| percent_with(share, ends)),
                percent(group.abstained),
                classes.concat(),
            ]
        })
        .collect();
    table(&[what, "n", "Accuracy, int8", "Accuracy, float", "Abstains", "Recall by class, int8"], &rows)
}

/// ROC and precision-recall, both models.
pub(crate) fn curves(of: &Evaluation) -> String {
    let mut models = vec![("int8", &of.int8_probabilities)];
    models.extend(of.float_probabilities.as_ref().map(|float| ("float", float)));
    let mut out = String::from("<p>Each class against the other three, by its calibrated probability.</p>\n");
    let mut rows = Vec::new();
    for label in Label::ALL {
        for (name, probabilities) in &models {
            let class = &probabilities.classes[label as usize];
            let cell = |value: Option<f64>, ends| match value {
                Some(value) => format!("{} {}", number(value, 4), number_interval(ends, 4)),
                None => "–".into(),
            };
            rows.push(vec![
                escape(label.title()),
                (*name).into(),
                cell(class.auc, class.auc_ci95),
                cell(class.average_precision, class.average_precision_ci95),
            ]);
        }
    }
    out += &table(&["Class", "Model", "AUC (95 %)", "Average precision (95 %)"], &rows);
    out += "<div class=\"plates\">\n";
    for (name, probabilities) in &models {
        out += &plate(&format!("ROC, {name}"), &plots::roc(name, &probabilities.classes));
    }
    for (name, probabilities) in &models {
        out += &plate(&format!("Precision-recall, {name}"), &plots::precision_recall(name, &probabilities.classes));
    }
    out + "</div>\n"
}

/// Sensitivity at fixed specificity and the reverse, int8.
pub(crate) fn operating_points(of: &Evaluation) -> String {
    let classes = || Label::ALL.into_iter().zip(&of.int8_probabilities.classes);
    let rows = |points: fn(&crate::evaluation::ranking::RankingFigures) -> &[OperatingPoint],
                found: fn(&OperatingPoint) -> String| {
        let row = |(label, class): (Label, _)| {
            let mut row = vec![escape(Label::title(label))];
            row.extend(points(class).iter().map(|point| {
                let threshold = point.threshold.map_or_else(|| "never".into(), probability);
                format!("{}<br/><small>p ≥ {threshold}</small>", found(point))
            }));
            row
        };
        classes().map(row).collect::<Vec<_>>()
    };
    let mut out = String::from(
        "<p>int8, one class against the rest. <strong>Optimistic:</strong> each threshold was chosen on the very images \
         that it is measured on, and the intervals do not know of that choice. On other images expect less; before use \
         choose a threshold on images of the clinic, and measure it on others.</p>\n\
         <h3>Sensitivity at a specificity of at least …</h3>\n",
    );
    let sensitivity = |point: &OperatingPoint| percent_with(point.sensitivity, point.sensitivity_ci95);
    let specificity = |point: &OperatingPoint| percent_with(point.specificity, point.specificity_ci95);
    let head = ["Class", "90 %", "95 %", "99 %"];
    out += &table(&head, &rows(|class| &class.sensitivity_at_specificity, sensitivity));
    out += "<h3>Specificity at a sensitivity of at least …</h3>\n";
    out + &table(&head, &rows(|class| &class.specificity_at_sensitivity, specificity))
}

/// A threshold, with more decimals where they are needed to tell it from 0 and 1.
fn probability(value: f64) -> String {
    number(value, if (0.01..=0.99).contains(&value) { 3 } else { 5 })
}

/// The bundle's own table, whatever it holds.
pub(crate) fn quantization(of: &Evaluation) -> String {
    match &of.quantization {
        Some(value) => json(value),
        None => "<p>The bundle holds no table of the signal-to-noise ratio of its layers.</p>\n".into(),
    }
}

/// JSON as tables: objects as names with values, lists of objects as rows.
fn json(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let (nested, plain): (Vec<_>, Vec<_>) =
                fields.iter().partition(|(_, value)| value.is_object() || value.is_array());
            let rows: Vec<Vec<String>> =
                plain.into_iter().map(|(name, value)| vec![words(name), scalar(value)]).collect();
            let mut out = if rows.is_empty() { String::new() } else { table(&["", ""], &rows) };
            for (name, value) in nested {
                out += &format!("<h3>{}</h3>\n{}", words(name), json(value));
            }
            out
        }
        Value::Array(items) if items.iter().all(Value::is_object) && !items.is_empty() => {
            let mut names: Vec<&String> = Vec::new();
            for name in items.iter().filter_map(Value::as_object).flat_map(|fields| fields.keys()) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            let cell = |item: &Value, name: &String| item.get(name).map_or_else(String::new, scalar);
            // The column that names the rows comes first.
            names.sort_by_key(|name| !matches!(name.as_str(), "name" | "layer"));
            let rows: Vec<Vec<String>> =
                items.iter().map(|item| names.iter().map(|name| cell(item, name)).collect()).collect();
            let head: Vec<String> = names.iter().map(|name| name.replace('_', " ")).collect();
            table(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
        }
        value => format!("<p>{}</p>\n", scalar(value)),
    }
}

fn words(name: &str) -> String {
    escape(&name.replace('_', " "))
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::String(text) => escape(text),
        Value::Number(n) => match (n.as_u64(), n.as_f64()) {
            (Some(_), Some(value)) => figure(value, &value.to_string()),
            (None, Some(value)) if value.abs() >= 0.01 => number(value, 2),
            (_, value) => value.map_or_else(|| escape(&n.to_string()), |value| number(value, 5)),
        },
        Value::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(", "),
        value => escape(&value.to_string()),
    }
}

/// The person's text and the provenance.
pub(crate) fn card(text: &str, manifest: &Manifest) -> String {
    let text = if text.is_empty() { "The bundle holds no model card." } else { text };
    let rows: Vec<Vec<String>> = manifest.provenance.iter().map(|(key, line)| vec![words(key), escape(line)]).collect();
    let provenance = if rows.is_empty() { "<p>Unknown.</p>\n".into() } else { table(&["", ""], &rows) };
    format!("<div class=\"prose\">{}</div>\n<h3>Provenance</h3>\n{provenance}", markdown(text))
}

/// What the figures are.
pub(crate) fn method(of: &Evaluation) -> String {
    let mut rows = vec![
        vec!["Images".into(), format!("{} judged, {} refused", count(of.n), of.refused.len())],
        vec!["Network".into(), format!("SHA-256 <code>{}</code>, run by {}", escape(&of.network_sha256), escape(&of.backend))],
        vec!["Preprocessing".into(), escape(&of.preprocessing)],
        vec![
            "Intervals".into(),
            format!(
                "95 %. Proportions: Wilson's score interval. Macro F1, F1, AUC, average precision, calibration error and \
                 differences: percentiles of {RESAMPLES} bootstrap resamples of the images, seeded, the same for every \
                 figure. They tell of chance alone, not of bias in the choice of images, and take the images as independent. Where every \
                 image is right the bootstrap has no scatter to show: look at Wilson's interval of the accuracy then."
            ),
        ],
        vec![
            "Accuracy".into(),
            "Share of images whose most probable label is the true one, whether or not the box would report it; where it \
             abstains is a figure of its own."
                .into(),
        ],
    ];
    for (what, suite) in [("Robustness", &of.robustness), ("Shortcut tests", &of.shortcuts)] {
        let text = match suite {
            Some(suite) if suite.n == suite.of => "int8, on all images.".into(),
            Some(suite) => format!(
                "int8, on {} of the {} images: a subset by seed {} in which class and population have the shares that they \
                 have among all.",
                count(suite.n),
                count(suite.of),
                suite.seed
            ),
            None => "Left out (<code>--quick</code>).".into(),
        };
        rows.push(vec![what.into(), text]);
    }
    rows.push(vec![
        "Schema".into(),
        format!("{}; the same figures are in <code>report.json</code>", escape(&of.schema)),
    ]);
    let mut out = table(&["", ""], &rows);
    if !of.refused.is_empty() {
        out += "<h3>Images that could not be judged</h3>\n<ul>";
        for refused in &of.refused {
            out += &format!("<li>{}</li>", escape(refused));
        }
        out += "</ul>\n";
    }
    out
}

//! The first screen: what the model is, what it must not be used for, the headline figures, and what the shortcut tests
//! say of them.

use super::html::{count, escape, interval, number, number_interval, percent, percent_with, points};
use crate::evaluation::{Evaluation, Source};
use roentgen::report::NOTICE;

/// What the model must not be used for.
const NOT_FOR: [&str; 4] = [
    "To diagnose, to rule out a disease, or to choose a treatment.",
    "Without a qualified reader who judges every radiograph.",
    "On anything but frontal chest radiographs, or for findings other than its four classes.",
    "To compare hospitals, scanners or patients: its probabilities hold for images like those it was fitted on.",
];

/// All of it.
pub(crate) fn screen(of: &Evaluation) -> String {
    let split = of.split.as_deref().map_or_else(String::new, |split| format!(", split “{}”", escape(split)));
    let mut out = format!(
        "<header>\n<h1>{} <small>{}</small></h1>\n<p class=\"lead\">An int8 VGG16 that screens frontal chest radiographs \
         for four classes: COVID-19, lung opacity, normal, viral pneumonia. Measured on {} images{split}.</p>\n",
        escape(&of.model),
        escape(&of.version),
        count(of.n)
    );
    out += &format!("<p class=\"notice\" role=\"note\"><strong>{}</strong></p>\n", escape(NOTICE));
    out += "<div class=\"first\">\n";
    out += &headline(of);
    out += &findings(of);
    out += "</div>\n<div class=\"not-for\"><h2>It must not be used</h2>\n<ul>";
    for line in NOT_FOR {
        out += &format!("<li>{line}</li>");
    }
    out + "</ul></div>\n</header>\n"
}

fn headline(of: &Evaluation) -> String {
    let mut cards = Vec::new();
    let float = of.float.as_ref();
    let recorded = |source| if source == Source::Recorded { ", recorded" } else { "" };
    let beside = |figure: fn(&crate::metrics::Metrics) -> String| {
        float.map_or_else(String::new, |float| format!("float: {}{}", figure(&float.metrics), recorded(float.source)))
    };
    cards.push((
        "Accuracy",
        percent(of.int8.accuracy),
        format!("95 %: {}", interval(of.int8.accuracy_ci95)),
        beside(|metrics| percent_with(metrics.accuracy, metrics.accuracy_ci95)),
    ));
    cards.push((
        "Macro F1",
        number(of.int8.macro_f1, 3),
        format!("95 %: {}", number_interval(of.int8.macro_f1_ci95, 3)),
        beside(|metrics| format!("{} {}", number(metrics.macro_f1, 3), number_interval(metrics.macro_f1_ci95, 3))),
    ));
    let abstention = &of.abstention;
    cards.push((
        "Accuracy where it reports",
        percent(abstention.reported_accuracy),
        format!("95 %: {}", interval(abstention.reported_accuracy_ci95)),
        format!("it abstains on {}", percent(of.abstained)),
    ));
    let calibrated = &of.int8_probabilities.calibrated;
    cards.push((
        "Expected calibration error",
        number(calibrated.ece, 3),
        format!("95 %: {}", number_interval(calibrated.ece_ci95, 3)),
        "0 is perfect".into(),
    ));
    if let Some(cost) = &of.cost {
        cards.push((
            "Int8 against float",
            format!("{} points", points(cost.accuracy_points)),
            "of accuracy".into(),
            format!("same label on {}", percent(cost.label_agreement)),
        ));
    }
    let lung_opacity = &of.int8.classes.iter().filter(|class| class.n > 0).min_by(|a, b| a.recall.total_cmp(&b.recall));
    if let Some(class) = lung_opacity {
        cards.push((
            "Weakest class",
            percent(class.recall),
            format!("95 %: {}", interval(class.recall_ci95)),
            format!("recall of {}", escape(class.label.title())),
        ));
    }
    let mut out = String::from("<dl class=\"headline\">\n");
    for (name, value, range, more) in cards {
        out += &format!("<div><dt>{name}</dt><dd class=\"big\">{value}</dd><dd>{range}</dd><dd>{more}</dd></div>\n");
    }
    out + "</dl>\n"
}

/// The statements, those that should worry marked.
fn findings(of: &Evaluation) -> String {
    let mut out = String::from("<div class=\"findings\"><h2>Before you believe these figures</h2>\n<ul>\n");
    for statement in &of.statements {
        let (class, mark) = match (statement.concern, statement.unclear) {
            (true, _) => ("concern", "Mind"),
            (false, true) => ("unclear", "Unclear"),
            (false, false) => ("calm", "Good"),
        };
        out += &format!("<li class=\"{class}\"><b>{mark}</b> {}</li>\n", escape(&statement.text));
    }
    if of.shortcuts.is_none() {
        out += "<li class=\"concern\"><b>Mind</b> The shortcut tests were left out: nothing here says whether the model \
                reads the lungs or recognises the source.</li>\n";
    }
    out + "</ul></div>\n"
}

//! Sections on how far the figures can be trusted: shortcut tests, robustness, calibration, abstention, pictures that
//! must not be judged.

use super::html::{
    count, escape, interval, number, number_interval, percent, percent_with, plate, points, points_interval, table,
};
use super::plots;
use crate::evaluation::Evaluation;
use crate::evaluation::reliability::Reliability;
use crate::metrics::ratio;
use crate::out_of_domain::Rejection;
use crate::robustness::{Outcome, Suite};
use roentgen::report::Label;

const LEFT_OUT: &str = "<p>Left out: this evaluation was a quick one (<code>--quick</code>).</p>\n";

/// What the model makes of images without what a reader reads.
pub(crate) fn shortcuts(of: &Evaluation) -> String {
    let mut out = String::from(
        "<p>A model that is right without the lungs, or on pictures in which nothing can be read, recognises the source of a \
         picture. Chance is always naming the most frequent class; balanced accuracy, the mean recall of the classes, is \
         25 % for whoever does that.</p>\n",
    );
    let Some(suite) = &of.shortcuts else { return out + LEFT_OUT };
    out += &format!("<p>{} Chance: {}.</p>\n", subset(suite), percent(suite.chance));
    let caption = "Accuracy with 95 % interval; dotted: undisturbed and chance";
    out += &plate(caption, &plots::suite("Shortcut tests", suite, true));
    let mut head = vec!["", "Accuracy", "Balanced", "Abstains"];
    head.extend(Label::ALL.map(Label::title));
    let rows: Vec<Vec<String>> = all(suite)
        .map(|test| {
            let mut row = vec![
                escape(&test.title),
                percent_with(test.accuracy, test.accuracy_ci95),
                test.balanced_accuracy_ci95
                    .map_or_else(|| percent(test.balanced_accuracy), |ends| percent_with(test.balanced_accuracy, ends)),
                percent(test.abstained),
            ];
            row.extend(test.recalls.iter().map(|recall| recall.map_or_else(|| "–".into(), percent)));
            row
        })
        .collect();
    out += &table(&head, &rows);
    out += "<p>The last four columns are the recall of each class.</p>\n";
    if let Some(alone) = &of.source_alone {
        out += &format!(
            "<p>{} of the {} sources hold one class only; naming each source's most frequent class would be right for {}.</p>\n",
            count(alone.of_one_class),
            count(alone.sources),
            percent(alone.accuracy)
        );
    }
    out
}

/// What it makes of changes that should not matter.
pub(crate) fn robustness(of: &Evaluation) -> String {
    let Some(suite) = &of.robustness else { return LEFT_OUT.into() };
    let mut out = format!(
        "<p>{} Changes are made to the 224 × 224 grey levels that the network reads. “Points” is the difference to the same \
         images undisturbed, its interval paired by image.</p>\n",
        subset(suite)
    );
    let caption = "Accuracy with 95 % interval; dotted: undisturbed";
    out += &plate(caption, &plots::suite("Robustness", suite, false));
    let rows: Vec<Vec<String>> = all(suite)
        .map(|test| {
            vec![
                escape(&test.title),
                percent_with(test.accuracy, test.accuracy_ci95),
                format!("{} {}", points(test.accuracy_points), points_interval(test.accuracy_points_ci95)),
                percent(test.abstained),
                test.reported_accuracy.map_or_else(|| "–".into(), percent),
            ]
        })
        .collect();
    out += &table(&["Change", "Accuracy", "Points", "Abstains", "Accuracy where it reports"], &rows);
    out
}

fn subset(suite: &Suite) -> String {
    match suite.n == suite.of {
        true => format!("int8, on all {} images.", count(suite.n)),
        false => format!(
            "int8, on {} of the {} images (a seeded subset with the same shares).",
            count(suite.n),
            count(suite.of)
        ),
    }
}

fn all(suite: &Suite) -> impl Iterator<Item = &Outcome> {
    std::iter::once(&suite.undisturbed).chain(&suite.tests)
}

/// Before and after, both models.
pub(crate) fn calibration(of: &Evaluation) -> String {
    let mut models = vec![("int8", &of.int8_probabilities)];
    models.extend(of.float_probabilities.as_ref().map(|float| ("float", float)));
    let row = |name: &str, when: &str, of: &Reliability| {
        let mut row = vec![
            format!("{name}, {when}"),
            format!("{} {}", number(of.ece, 4), number_interval(of.ece_ci95, 4)),
            number(of.negative_log_likelihood, 4),
            number(of.brier, 4),
        ];
        row.extend(of.class_ece.map(|ece| number(ece, 4)));
        row
    };
    let rows: Vec<Vec<String>> = models
        .iter()
        .flat_map(|(name, of)| [row(name, "as they are", &of.uncalibrated), row(name, "calibrated", &of.calibrated)])
        .collect();
    let mut head = vec!["Probabilities", "ECE (95 %)", "Neg. log-likelihood", "Brier"];
    head.extend(Label::ALL.map(Label::title));
    let mut out = String::from(
        "<p>Expected calibration error (ECE) of the most probable label, 15 bins of equal width; the last four columns are \
         the ECE of each class's own probability. 0 is perfect in all columns.</p>\n",
    );
    out += &table(&head, &rows);
    out += "<div class=\"plates\">\n";
    for (title, of) in [
        ("Reliability of int8, calibrated: what the box reports", &of.int8_probabilities.calibrated),
        ("Reliability of int8, as the logits are", &of.int8_probabilities.uncalibrated),
    ] {
        out += &plate(title, &plots::reliability(title, of));
    }
    out + "</div>\n<p>Spots lie at a bin's mean probability, their area goes with its images; lines are 95 % intervals. On the \
           dotted line probabilities are frequencies; below it the model is too sure.</p>\n"
}

/// The curve, the bundle's own point, the reasons.
pub(crate) fn abstention(of: &Evaluation) -> String {
    let abstention = &of.abstention;
    let mut out = format!(
        "<p>The box reports {} of the {} images ({} {}); of these {} {} are right. It abstains on {}, of which it would have \
         judged {} right.</p>\n",
        count(abstention.reported),
        count(of.n),
        percent(abstention.coverage),
        interval(abstention.coverage_ci95),
        percent(abstention.reported_accuracy),
        interval(abstention.reported_accuracy_ci95),
        count(abstention.abstained),
        count(abstention.abstained_right)
    );
    out += &plate("Accuracy against coverage", &plots::abstention(abstention));
    let rows: Vec<Vec<String>> = abstention
        .reasons
        .iter()
        .map(|(code, &n)| {
            vec![format!("<code>{}</code>", escape(code)), count(n), format!("{:.1} %", 100.0 * ratio(n, of.n))]
        })
        .collect();
    out += &match rows.is_empty() {
        true => "<p>No image was abstained on.</p>\n".to_owned(),
        false => table(&["Reason", "Images", "Share of all"], &rows) + "<p>An image may have several reasons.</p>\n",
    };
    out
}

/// Pictures that are no upright frontal chest radiographs.
pub(crate) fn out_of_domain(of: &Evaluation) -> String {
    if of.out_of_domain.is_empty() {
        return "<p>Left out: this evaluation was a quick one (<code>--quick</code>), and no folder of other pictures was \
                given (<code>--negatives</code>).</p>\n"
            .into();
    }
    let row = |kind: &Rejection| {
        let reason = |(code, &n): (&String, &usize)| {
            format!("<span class=\"item\"><code>{}</code>: {}</span>", escape(code), count(n))
        };
        vec![
            escape(&kind.title),
            count(kind.n),
            percent_with(kind.share, kind.share_ci95),
            percent(kind.at_least),
            count(kind.refused),
            count(kind.abstained),
            kind.reasons.iter().map(reason).collect(),
        ]
    };
    let rows: Vec<Vec<String>> = of.out_of_domain.iter().map(row).collect();
    let head = ["", "n", "Not judged", "Asked for", "Refused", "Abstained on", "Reasons"];
    let mut out = String::from(
        "<p>A box must not judge these: it refuses the file, or it abstains. A picture may have several reasons.</p>\n",
    );
    out += &table(&head, &rows);
    for kind in of.out_of_domain.iter().filter(|kind| !kind.judged.is_empty()) {
        let judged: Vec<String> = kind.judged.iter().map(|file| escape(file)).collect();
        out += &format!("<p>Judged all the same: {}.</p>\n", judged.join(", "));
    }
    if !of.out_of_domain.iter().any(|kind| kind.id == "negatives") {
        out += "<p>Pictures of other things were not measured: give <code>--negatives</code>.</p>\n";
    }
    out
}

//! Which marks make which plot: curves, reliability diagram, abstention curve, robustness. Not the drawing.

use super::svg::{self, Axis, Mark, Row};
use crate::evaluation::abstention::Abstention;
use crate::evaluation::intervals::wilson;
use crate::evaluation::numbers;
use crate::evaluation::ranking::RankingFigures;
use crate::evaluation::reliability::Reliability;
use crate::robustness::Suite;
use roentgen::report::Label;

/// The style sheet's class of a label.
fn class(label: Label) -> String {
    format!("s{}", label as usize)
}

/// The four labels with their lines.
fn labels() -> String {
    svg::legend(Label::ALL.map(|label| (class(label), label.title())))
}

/// ROC curves, one class against the rest.
pub(crate) fn roc(model: &str, classes: &[RankingFigures]) -> String {
    let curves = Label::ALL.into_iter().zip(classes).map(|(label, figures)| (label, figures.roc.clone()));
    let diagonal = Mark::Line { points: vec![[0.0, 0.0], [1.0, 1.0]], class: "guide".into() };
    let marks: Vec<Mark> = std::iter::once(diagonal).chain(lines(curves)).collect();
    let (x, y) = (Axis::whole("False-positive rate (1 − specificity)"), Axis::whole("Sensitivity"));
    svg::plot(&format!("ROC curves, {model}"), &x, &y, &marks) + &labels()
}

/// Precision-recall curves, one class against the rest.
pub(crate) fn precision_recall(model: &str, classes: &[RankingFigures]) -> String {
    // Below the first recall that is reached, precision is drawn as it is there.
    let from_zero =
        |points: &[[f64; 2]]| points.first().map(|first| [0.0, first[1]]).into_iter().chain(points.to_vec());
    let curves = Label::ALL
        .into_iter()
        .zip(classes)
        .map(|(label, figures)| (label, from_zero(&figures.precision_recall).collect()));
    let marks: Vec<Mark> = lines(curves).collect();
    let (x, y) = (Axis::whole("Recall (sensitivity)"), Axis::whole("Precision"));
    svg::plot(&format!("Precision-recall curves, {model}"), &x, &y, &marks) + &labels()
}

fn lines(curves: impl Iterator<Item = (Label, Vec<[f64; 2]>)>) -> impl Iterator<Item = Mark> {
    curves.map(|(label, points)| Mark::Line { points, class: class(label) })
}

/// How often the most probable label is right, by its probability. The area of a spot goes with the images of its bin.
pub(crate) fn reliability(title: &str, of: &Reliability) -> String {
    let mut marks: Vec<Mark> = of
        .bins
        .iter()
        .map(|bin| Mark::Bar { from: bin.from, to: bin.to, height: bin.accuracy, class: "bar".into() })
        .collect();
    marks.push(Mark::Line { points: vec![[0.0, 0.0], [1.0, 1.0]], class: "guide".into() });
    let n: usize = of.bins.iter().map(|bin| bin.n).sum();
    for bin in &of.bins {
        let hits = (bin.accuracy * bin.n as f64).round() as usize;
        let interval = wilson(hits, bin.n);
        marks.push(Mark::Whisker { x: bin.confidence, interval, class: "whisker s1".into() });
        let radius = 2.0 + 10.0 * (bin.n as f64 / n.max(1) as f64).sqrt();
        marks.push(Mark::Dot { at: [bin.confidence, bin.accuracy], radius, class: "dot s1".into() });
    }
    let (x, y) = (Axis::whole("Probability of the most probable label"), Axis::whole("Share that is right"));
    svg::plot(title, &x, &y, &marks)
}

/// Accuracy against coverage, with where the bundle stands.
pub(crate) fn abstention(of: &Abstention) -> String {
    let own = [of.coverage, of.reported_accuracy];
    let accuracies = of.curve.iter().map(|point| point[1]).chain([own[1], of.reported_accuracy_ci95[0]]);
    let y = Axis::around("Accuracy on the reported", accuracies);
    let marks = [
        Mark::Line { points: of.curve.clone(), class: "s1".into() },
        Mark::Whisker { x: own[0], interval: of.reported_accuracy_ci95, class: "whisker s0".into() },
        Mark::Dot { at: own, radius: 5.5, class: "dot s0".into() },
        Mark::Note {
            at: [own[0], y.ends[0] + 0.16 * (y.ends[1] - y.ends[0])],
            text: format!("the bundle: {} of {}", numbers::percent(own[1]), numbers::percent(own[0])),
        },
    ];
    let x = Axis::whole("Coverage (images reported)");
    svg::plot("Accuracy against coverage", &x, &y, &marks)
        + &svg::legend([
            ("s1".to_owned(), "leaving out the least probable labels"),
            ("s0".to_owned(), "the bundle's own thresholds and gates"),
        ])
}

/// Accuracy of every change with its interval; a guide at the unchanged images and, where asked, one at chance.
pub(crate) fn suite(title: &str, of: &Suite, chance: bool) -> String {
    let all = || std::iter::once(&of.undisturbed).chain(&of.tests);
    let mut guides = vec![(of.undisturbed.accuracy, "guide")];
    if chance {
        guides.push((of.chance, "guide chance"));
    }
    let lowest = all().map(|test| test.accuracy_ci95[0]).chain(chance.then_some(of.chance));
    let x = Axis::around("Accuracy", lowest);
    let rows: Vec<Row> = all()
        .map(|test| Row {
            label: test.title.clone(),
            value: test.accuracy,
            interval: test.accuracy_ci95,
            class: if test.id == of.undisturbed.id { "s2" } else { "s1" },
        })
        .collect();
    svg::rows(title, &x, &rows, &guides)
}

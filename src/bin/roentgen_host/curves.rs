//! Learning curves as one self-contained SVG: loss above, accuracy and macro F1 on `val` below. Not the figures
//! themselves (see `history`).

use crate::history::Epoch;
use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 560.0;
/// Left and right edge of both panels.
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 132.0;
/// The ink of axes and words.
const INK: &str = "#333";
/// Okabe and Ito's colours (2008), which people with any colour vision tell apart: blue, orange, green.
const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];

/// One line of a panel: its name, its colour and its value at every pass.
type Curve<'a> = (&'a str, &'a str, Vec<f64>);

/// Where a panel lies and which values it spans.
struct Panel {
    top: f64,
    bottom: f64,
    low: f64,
    high: f64,
    step: f64,
    epochs: usize,
}

impl Panel {
    /// A panel that spans all finite values of its curves.
    fn around(curves: &[Curve<'_>], top: f64, bottom: f64, epochs: usize) -> Self {
        let values = || curves.iter().flat_map(|(.., values)| values).copied().filter(|value| value.is_finite());
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let step = step((high - low).max(1e-3) / 5.0);
        Self {
            top,
            bottom,
            low: (low / step).floor() * step,
            high: ((high / step).ceil() * step).max((low / step).floor() * step + step),
            step,
            epochs,
        }
    }

    fn x(&self, epoch: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (epoch - 1.0) / (self.epochs.max(2) - 1) as f64
    }

    fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * (value - self.low) / (self.high - self.low)
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|&step| step >= least).unwrap_or(10.0 * power)
}

/// The curves of a run so far.
pub(crate) fn svg(history: &[Epoch]) -> String {
    let of = |value: fn(&Epoch) -> f64| history.iter().map(value).collect::<Vec<f64>>();
    let loss = [("training loss", COLOURS[0], of(|epoch| epoch.loss)), ("val NLL", COLOURS[1], of(|epoch| epoch.nll))];
    let quality = [
        ("val accuracy", COLOURS[2], of(|epoch| epoch.accuracy)),
        ("val macro F1", COLOURS[1], of(|epoch| epoch.macro_f1)),
    ];
    let epochs = history.last().map_or(1, |epoch| epoch.epoch);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"{INK}\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let middle = HEIGHT / 2.0;
    draw(&mut out, &Panel::around(&loss, 24.0, middle - 24.0, epochs), history, &loss);
    draw(&mut out, &Panel::around(&quality, middle + 8.0, HEIGHT - 44.0, epochs), history, &quality);
    let centre = f64::midpoint(LEFT, RIGHT);
    push(&mut out, format_args!("<text x=\"{centre}\" y=\"{}\" text-anchor=\"middle\">epoch</text>", HEIGHT - 8.0));
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel, history: &[Epoch], curves: &[Curve<'_>]) {
    let lines = ((panel.high - panel.low) / panel.step).round() as usize;
    let decimals = (-panel.step.log10().floor()).max(0.0) as usize;
    for value in (0..=lines).map(|index| panel.low + index as f64 * panel.step) {
        let y = panel.y(value);
        push(out, format_args!("<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#ddd\"/>"));
        let (x, y) = (LEFT - 8.0, y + 4.0);
        push(out, format_args!("<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{value:.decimals$}</text>"));
    }
    let every = panel.epochs.div_ceil(16).max(1);
    for epoch in (1..=panel.epochs).step_by(every) {
        let (x, y) = (panel.x(epoch as f64), panel.bottom + 16.0);
        push(out, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{epoch}</text>"));
    }
    // Names stand at the ends of their curves, moved apart where these meet.
    let mut ends: Vec<(f64, usize)> = Vec::new();
    for (index, (_, colour, values)) in curves.iter().enumerate() {
        let mut path = String::new();
        for (epoch, value) in history.iter().zip(values).filter(|(_, value)| value.is_finite()) {
            let (x, y) = (panel.x(epoch.epoch as f64), panel.y(*value));
            let letter = if path.is_empty() { 'M' } else { 'L' };
            path += &format!("{letter}{x:.1} {y:.1}");
            push(out, format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>"));
        }
        if let Some(last) = values.iter().rev().find(|value| value.is_finite()) {
            push(out, format_args!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"));
            ends.push((panel.y(*last) + 4.0, index));
        }
    }
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = f64::NEG_INFINITY;
    for (y, index) in ends {
        lowest = (lowest + 14.0).max(y);
        let (name, colour, _) = &curves[index];
        let x = RIGHT + 10.0;
        push(out, format_args!("<text x=\"{x}\" y=\"{lowest:.1}\" fill=\"{colour}\">{name}</text>"));
    }
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(values: &[f64]) -> Vec<Epoch> {
        let epoch = |(index, &value): (usize, &f64)| Epoch {
            epoch: index + 1,
            loss: value,
            accuracy: 1.0 - value / 2.0,
            macro_f1: 0.9 - value / 2.0,
            nll: value / 2.0,
            minutes: index as f64,
        };
        values.iter().enumerate().map(epoch).collect()
    }

    #[test]
    fn every_pass_is_a_point_of_every_curve_inside_the_picture() {
        let svg = svg(&history(&[0.9, 0.6, 0.41, 0.4]));
        assert_eq!(svg.matches("<circle").count(), 4 * 4);
        let number = |line: &str, key: &str| -> f64 {
            let rest = line.split(key).nth(1).unwrap();
            rest.split('"').next().unwrap().parse().unwrap()
        };
        for circle in svg.lines().filter(|line| line.starts_with("<circle")) {
            let (x, y) = (number(circle, "cx=\""), number(circle, "cy=\""));
            assert!((LEFT..=RIGHT).contains(&x) && (0.0..=HEIGHT).contains(&y), "{circle}");
        }
        for name in ["training loss", "val NLL", "val accuracy", "val macro F1"] {
            assert!(svg.contains(name), "{name}");
        }
    }

    #[test]
    fn a_single_pass_a_flat_curve_and_no_pass_are_drawn_too() {
        for values in [&[0.5][..], &[0.5, 0.5, 0.5], &[], &[f64::NAN, 0.5]] {
            let svg = svg(&history(values));
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn steps_are_round() {
        for (least, expected) in [(0.013, 0.02), (0.02, 0.02), (0.3, 0.5), (0.6, 1.0), (7.0, 10.0)] {
            assert!((step(least) - expected).abs() < 1e-12, "{least}");
        }
    }
}

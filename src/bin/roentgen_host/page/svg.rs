//! Plots as inline SVG: axes, ticks, marks, and rows of intervals. Colours and dashes are classes of the page's style
//! sheet, so that a plot follows light, dark and print. Not what is plotted.

use super::html::escape;

/// Width of every plot, in its own units; on a page it takes the width that there is.
const WIDTH: f64 = 440.0;
/// Height of a plot with two axes.
const HEIGHT: f64 = 320.0;
/// Room for the tick labels and the name of the vertical axis.
const LEFT: f64 = 58.0;
/// Room for half of the last tick label.
const RIGHT: f64 = 18.0;
/// Room above.
const TOP: f64 = 10.0;
/// Room for the tick labels and the name of the horizontal axis.
const BOTTOM: f64 = 48.0;
/// Height of a row of intervals.
const ROW: f64 = 21.0;
/// Room for the labels of rows.
const LABELS: f64 = 190.0;

/// One axis, of shares that are written as percentages.
pub(crate) struct Axis<'a> {
    /// What it measures.
    pub(crate) label: &'a str,
    /// Its ends.
    pub(crate) ends: [f64; 2],
    /// Distance between ticks; above 0.
    pub(crate) step: f64,
}

/// Something drawn between the axes. `class` is one of the style sheet's.
pub(crate) enum Mark {
    /// Straight lines from point to point.
    Line { points: Vec<[f64; 2]>, class: String },
    /// A round spot; `radius` in the plot's units.
    Dot { at: [f64; 2], radius: f64, class: String },
    /// A vertical interval.
    Whisker { x: f64, interval: [f64; 2], class: String },
    /// A bar that stands on the lower end of the vertical axis.
    Bar { from: f64, to: f64, height: f64, class: String },
    /// Words whose right end stands left of a point and under it.
    Note { at: [f64; 2], text: String },
}

impl Axis<'_> {
    /// All from 0 to 1.
    pub(crate) fn whole(label: &str) -> Axis<'_> {
        Axis { label, ends: [0.0, 1.0], step: 0.2 }
    }

    /// From a little below the least of `values` to 1.
    pub(crate) fn around(label: &str, values: impl Iterator<Item = f64>) -> Axis<'_> {
        let least = values.fold(1f64, f64::min);
        let step = match least {
            0.9.. => 0.02,
            0.75.. => 0.05,
            0.5.. => 0.1,
            _ => 0.2,
        };
        // Rounded down to a tick, and not onto the least value itself.
        let from = ((least - step / 4.0) / step).floor() * step;
        Axis { label, ends: [from.max(0.0), 1.0], step }
    }

    /// Where a value lies, 0..=1; beyond the ends, at the end.
    fn place(&self, value: f64) -> f64 {
        ((value - self.ends[0]) / (self.ends[1] - self.ends[0])).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        let count = ((self.ends[1] - self.ends[0]) / self.step + 1e-9).floor() as usize;
        (0..=count).map(|tick| self.ends[0] + tick as f64 * self.step)
    }
}

/// The text of a tick.
fn tick(value: f64) -> String {
    format!("{:.0}", value * 100.0)
}

/// Opens an SVG of a height, named for who cannot see it.
fn open(title: &str, height: f64) -> String {
    let title = escape(title);
    format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>\n"
    )
}

fn text(x: f64, y: f64, class: &str, words: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>\n", escape(words))
}

fn line(from: [f64; 2], to: [f64; 2], class: &str) -> String {
    let ([x1, y1], [x2, y2]) = (from, to);
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>\n")
}

/// A plot with two axes; marks are drawn in their order.
pub(crate) fn plot(title: &str, x: &Axis, y: &Axis, marks: &[Mark]) -> String {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let px = |value: f64| LEFT + x.place(value) * (right - LEFT);
    let py = |value: f64| bottom - y.place(value) * (bottom - TOP);
    let mut out = open(title, HEIGHT);
    for value in x.ticks() {
        out += &line([px(value), TOP], [px(value), bottom], "grid");
        out += &text(px(value), bottom + 17.0, "tick middle", &tick(value));
    }
    for value in y.ticks() {
        out += &line([LEFT, py(value)], [right, py(value)], "grid");
        out += &text(LEFT - 7.0, py(value) + 4.0, "tick end", &tick(value));
    }
    out += &text((LEFT + right) / 2.0, HEIGHT - 10.0, "axis middle", &format!("{}, %", x.label));
    let middle = (TOP + bottom) / 2.0;
    out += &format!(
        "<text x=\"14\" y=\"{middle:.1}\" class=\"axis middle\" transform=\"rotate(-90 14 {middle:.1})\">{}, %</text>\n",
        escape(y.label)
    );
    for mark in marks {
        out += &match mark {
            Mark::Line { points, class } => {
                let points: Vec<String> = points.iter().map(|&[a, b]| format!("{:.1},{:.1}", px(a), py(b))).collect();
                format!("<polyline points=\"{}\" class=\"line {class}\"/>\n", points.join(" "))
            }
            Mark::Dot { at: [a, b], radius, class } => {
                format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\" class=\"{class}\"/>\n", px(*a), py(*b))
            }
            Mark::Whisker { x, interval: [low, high], class } => line([px(*x), py(*low)], [px(*x), py(*high)], class),
            Mark::Bar { from, to, height, class } => format!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" class=\"{class}\"/>\n",
                px(*from) + 0.5,
                py(*height),
                (px(*to) - px(*from) - 1.0).max(0.0),
                bottom - py(*height)
            ),
            Mark::Note { at: [a, b], text: words } => text(px(*a) - 9.0, py(*b) + 16.0, "note end", words),
        };
    }
    out + "</svg>\n"
}

/// One row: a label, a value and its interval.
pub(crate) struct Row {
    /// What it is.
    pub(crate) label: String,
    /// Where the spot lies.
    pub(crate) value: f64,
    /// The line through it.
    pub(crate) interval: [f64; 2],
    /// A class of the style sheet.
    pub(crate) class: &'static str,
}

/// Rows of intervals on one horizontal axis, with guides at `guides` (value, class).
pub(crate) fn rows(title: &str, x: &Axis, rows: &[Row], guides: &[(f64, &str)]) -> String {
    let (right, bottom) = (WIDTH - RIGHT, TOP + ROW * rows.len() as f64);
    let px = |value: f64| LABELS + x.place(value) * (right - LABELS);
    let mut out = open(title, bottom + BOTTOM);
    for value in x.ticks() {
        out += &line([px(value), TOP], [px(value), bottom], "grid");
        out += &text(px(value), bottom + 17.0, "tick middle", &tick(value));
    }
    for &(value, class) in guides {
        out += &line([px(value), TOP], [px(value), bottom], class);
    }
    for (index, row) in rows.iter().enumerate() {
        let y = TOP + ROW * (index as f64 + 0.5);
        out += &text(LABELS - 9.0, y + 4.0, "tick end", &row.label);
        out += &line([px(row.interval[0]), y], [px(row.interval[1]), y], &format!("whisker {}", row.class));
        out += &format!("<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" class=\"dot {}\"/>\n", px(row.value), row.class);
    }
    out += &text((LABELS + right) / 2.0, bottom + 38.0, "axis middle", &format!("{}, %", x.label));
    out + "</svg>\n"
}

/// A legend: classes of the style sheet with their names, as lines.
pub(crate) fn legend<'a>(entries: impl IntoIterator<Item = (String, &'a str)>) -> String {
    let mut out = String::from("<ul class=\"legend\">");
    for (class, name) in entries {
        out += &format!(
            "<li><svg viewBox=\"0 0 30 10\" aria-hidden=\"true\"><line x1=\"1\" y1=\"5\" x2=\"29\" y2=\"5\" \
             class=\"line {class}\"/></svg>{}</li>",
            escape(name)
        );
    }
    out + "</ul>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_begins_at_a_tick_below_the_least_value() {
        for (least, from) in [(0.95, 0.94), (0.94, 0.92), (0.8, 0.75), (0.0, 0.0), (0.33, 0.2)] {
            let axis = Axis::around("accuracy", [least, 0.99].into_iter());
            assert!((axis.ends[0] - from).abs() < 1e-9, "{least}: {:?}", axis.ends);
            let ticks: Vec<f64> = axis.ticks().collect();
            assert!((ticks[ticks.len() - 1] - 1.0).abs() < 1e-9, "{ticks:?}");
        }
    }

    #[test]
    fn what_lies_beyond_the_axes_is_drawn_at_their_end() {
        let axis = Axis { label: "x", ends: [0.5, 1.0], step: 0.1 };
        assert_eq!([0.2, 0.5, 0.75, 1.0, 7.0].map(|value| axis.place(value)), [0.0, 0.0, 0.5, 1.0, 1.0]);
        let drawn = plot("a & b", &axis, &axis, &[Mark::Dot { at: [0.0, 0.75], radius: 2.0, class: "s0".into() }]);
        assert!(drawn.contains("a &amp; b") && drawn.contains("cx=\"58.0\""), "{drawn}");
    }
}

//! The picture for a reader: the radiograph, the same with the evidence map over it, the probabilities, the decision
//! and the notice. Not the map itself ([`crate::classifier::Evidence`]) and not where pictures are kept.
//!
//! Nothing written on it names a patient, a study or a file: the report's id is the only way back. (What a modality
//! burned into the pixels of the radiograph stays there.) The same image judged by the same model in the same backend
//! gives the same bytes.

mod canvas;
mod colour;
mod relief;
mod text;

use super::Seen;
use crate::preprocess;
use crate::report::{Decision, Finding, Label, NOTICE, Report};
use canvas::{Canvas, Colour};
use image::{ImageFormat, RgbImage};
use relief::Relief;
use std::io::Cursor;
use text::Style;

/// A part of the picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Columns left of it.
    pub left: u32,
    /// Rows above it.
    pub top: u32,
    /// Its columns.
    pub width: u32,
    /// Its rows.
    pub height: u32,
}

/// Columns of the picture; its rows depend on how much there is to say.
pub const WIDTH: u32 = 1280;

/// Columns and rows at the picture's edges that stay empty.
pub const MARGIN: u32 = 24;

/// Where the radiograph is, made square as the network sees it.
pub const RADIOGRAPH: Area = Area { left: MARGIN, top: 60, width: 560, height: 560 };

/// Where the same is under the evidence map.
pub const OVERLAY: Area = Area { left: 604, ..RADIOGRAPH };

/// Where the colour scale is: its top row is the greatest strength's colour, its bottom row that of none.
pub const SCALE: Area = Area { left: 1178, width: 18, ..RADIOGRAPH };

/// Dark, as reading rooms are.
const BACKGROUND: Colour = [16, 18, 22];
const INK: Colour = [236, 236, 236];
const DIM: Colour = [164, 170, 178];
const FAINT: Colour = [52, 57, 64];
const BAR: Colour = [118, 126, 136];
const WARNING: Colour = [255, 183, 77];

const TITLE: Style = Style::bold(21.0);
const BODY: Style = Style::regular(18.0);
const STRONG: Style = Style::bold(18.0);
const SMALL: Style = Style::regular(16.0);
const DECISION: Style = Style::bold(30.0);

/// Letters of one text at most: a bundle's name or a reason cannot make the picture endless.
const MAX_LETTERS: usize = 500;

/// Draws the picture of one radiograph and the report on it.
///
/// `seen` is what the report was made from. A radiograph whose pixels do not fill its width and height comes out
/// black, and a map that is none without colour; neither comes from [`crate::radiograph::open`] or a classifier.
pub fn render(seen: &Seen<'_>, report: &Report) -> RgbImage {
    let best = most_probable(&report.findings);
    let (label, standing) = match &report.decision {
        Decision::Reported { label } => (*label, "the reported label"),
        Decision::Abstained { .. } => (best, "the most probable label, not reported"),
    };
    let relief = Relief::new(&seen.evidence.map, label);
    let ticks = relief.ticks();
    let top = ticks.last().copied().unwrap_or(1.0);

    let mut page = Page::default();
    page.titles(label, standing);
    page.scale(&ticks);
    page.caption(label, &relief);
    let middle = page.end;
    let bars = page.probabilities(&report.findings, middle);
    let after_bars = std::mem::replace(&mut page.end, middle);
    page.decision(&report.decision);
    page.end = page.end.max(after_bars);
    page.footer(report);

    let mut canvas = Canvas::new(WIDTH, page.end + MARGIN, BACKGROUND);
    let view = preprocess::square(seen.radiograph, RADIOGRAPH.width);
    let level = |x: u32, y: u32| view.data().get((y * RADIOGRAPH.width + x) as usize).copied().unwrap_or(0);
    canvas.paint(RADIOGRAPH, |x, y| [level(x, y); 3]);
    canvas.paint(OVERLAY, |x, y| {
        let middle_of = |pixel: u32, extent: u32| (f64::from(pixel) + 0.5) / f64::from(extent);
        let strength = relief.at(middle_of(x, OVERLAY.width), middle_of(y, OVERLAY.height)) / top;
        let (over, under) = (colour::colour(strength), level(x, y));
        over.map(|over| colour::mix(under, over, colour::alpha(strength)))
    });
    canvas.paint(SCALE, |_, y| colour::colour(1.0 - f64::from(y) / f64::from(SCALE.height - 1)));
    for (area, colour) in ticks.iter().map(|tick| (tick_mark(tick / top), DIM)).chain(bars) {
        canvas.fill(area, colour);
    }
    for line in &page.lines {
        canvas.write(&line.text, line.left, line.top, line.style, line.colour);
    }
    canvas.0
}

/// A picture as the bytes of a PNG file, without anything beside the pixels.
pub fn encode_png(picture: &RgbImage) -> Result<Vec<u8>, image::ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

/// The most probable label, the first of equals.
fn most_probable(findings: &[Finding; 4]) -> Label {
    let [first, rest @ ..] = findings;
    rest.iter().fold(first, |best, finding| if finding.probability > best.probability { finding } else { best }).label
}

/// The tick beside the scale at a part of its height.
fn tick_mark(part: f64) -> Area {
    Area { left: SCALE.left + SCALE.width, top: scale_row(part), width: 5, height: 1 }
}

/// The row of the scale where this part of its top is.
fn scale_row(part: f64) -> u32 {
    let from_top = (1.0 - part.clamp(0.0, 1.0)) * f64::from(SCALE.height - 1);
    SCALE.top + from_top.round() as u32
}

/// A line of text in its place.
struct Line {
    text: String,
    left: f32,
    top: u32,
    style: Style,
    colour: Colour,
}

/// What is written on the picture, from top to bottom.
#[derive(Default)]
struct Page {
    lines: Vec<Line>,
    /// The row below what stands there so far.
    end: u32,
}

impl Page {
    /// Writes one line; the column where it ends.
    fn put(&mut self, text: impl Into<String>, left: f32, top: u32, style: Style, colour: Colour) -> f32 {
        let text = text.into();
        let end = left + style.width(&text);
        self.lines.push(Line { text, left, top, style, colour });
        self.end = self.end.max(top + style.line_height());
        end
    }

    /// Writes a text below what stands there, broken into lines between the columns `left` and `right`.
    fn paragraph(&mut self, text: &str, left: u32, right: u32, style: Style, colour: Colour) {
        let shown: String = match text.char_indices().nth(MAX_LETTERS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        };
        for line in style.wrap(&printable(&shown), right.saturating_sub(left) as f32) {
            self.put(line, left as f32, self.end, style, colour);
        }
    }

    fn titles(&mut self, label: Label, standing: &str) {
        let base = MARGIN;
        let left = RADIOGRAPH.left as f32;
        let end = self.put("Radiograph", left, base, TITLE, INK);
        self.put("the whole image, made square", end + 10.0, base + 2, BODY, DIM);
        let left = OVERLAY.left as f32;
        let end = self.put(format!("Evidence for {}", label.title()), left, base, TITLE, INK);
        self.put(standing, end + 10.0, base + 2, BODY, DIM);
    }

    fn scale(&mut self, ticks: &[f64]) {
        self.put("logits", SCALE.left as f32, MARGIN + 4, SMALL, DIM);
        let top = ticks.last().copied().unwrap_or(1.0);
        let left = (SCALE.left + SCALE.width + 9) as f32;
        for tick in ticks {
            // Beyond four digits a number would leave the picture.
            let text = if top < 1e4 { format!("{tick:.0}") } else { format!("{tick:.0e}") };
            let middle = SMALL.line_height() / 2;
            self.put(text, left, scale_row(tick / top) - middle + 1, SMALL, INK);
        }
        self.end = SCALE.top + SCALE.height;
    }

    fn caption(&mut self, label: Label, relief: &Relief) {
        let (rows, columns) = relief.size();
        let (label, mean) = (label.title(), relief.mean());
        let explained = format!(
            "Colour: how far, at each place, the network's logit for {label} lies above the mean of its other three (no \
             colour: not above). Its mean over the image, {mean:+.1}, is what counted. {rows} × {columns} cells, \
             interpolated. The map shows what moved the network, not the extent of disease."
        );
        self.end += 12;
        self.paragraph(&explained, MARGIN, WIDTH - MARGIN, SMALL, DIM);
        self.end += 18;
    }

    /// A bar a label; the areas to fill.
    fn probabilities(&mut self, findings: &[Finding; 4], top: u32) -> Vec<(Area, Colour)> {
        const NAMES: u32 = 150;
        const NUMBERS: u32 = 80;
        const HEIGHT: u32 = 16;
        const STEP: u32 = 32;
        let best = most_probable(findings);
        let whole = RADIOGRAPH.width - NAMES - NUMBERS;
        let left = RADIOGRAPH.left + NAMES;
        self.put("Calibrated probability", RADIOGRAPH.left as f32, top, STRONG, DIM);
        let first = top + 34;
        let mut areas = Vec::new();
        for (finding, row) in findings.iter().zip((first..).step_by(STEP as usize)) {
            let (style, colour, bar) = if finding.label == best { (STRONG, INK, INK) } else { (BODY, DIM, BAR) };
            // What is no number has no length.
            let part = f64::from(finding.probability).clamp(0.0, 1.0);
            let length = (part * f64::from(whole)).round() as u32;
            areas.push((Area { left, top: row + 3, width: whole, height: HEIGHT }, FAINT));
            areas.push((Area { left, top: row + 3, width: length, height: HEIGHT }, bar));
            self.put(finding.label.title(), RADIOGRAPH.left as f32, row, style, colour);
            let text = format!("{:.1} %", part * 100.0);
            let right = (RADIOGRAPH.left + RADIOGRAPH.width) as f32;
            self.put(text.clone(), right - style.width(&text), row, style, colour);
        }
        areas
    }

    fn decision(&mut self, decision: &Decision) {
        let (left, right) = (OVERLAY.left, WIDTH - MARGIN);
        match decision {
            Decision::Reported { label } => {
                self.paragraph("Reported", left, right, STRONG, DIM);
                self.end += 6;
                self.paragraph(label.title(), left, right, DECISION, INK);
            }
            Decision::Abstained { reasons } => {
                self.paragraph("Abstained:", left, right, DECISION, WARNING);
                for reason in reasons {
                    self.end += 6;
                    self.paragraph(&reason.message, left, right, BODY, INK);
                }
            }
        }
    }

    fn footer(&mut self, report: &Report) {
        let model = &report.model;
        let text = format!(
            "Model {} {} · backend {} · report {}",
            model.name, model.version, report.backend, report.report_id
        );
        self.end += 20;
        self.paragraph(&text, MARGIN, WIDTH - MARGIN, SMALL, DIM);
        self.end += 8;
        self.paragraph(NOTICE, MARGIN, WIDTH - MARGIN, TITLE, WARNING);
    }
}

/// The text without control characters, and in letters that the font has.
fn printable(text: &str) -> String {
    let spaced: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    spaced.replace('≥', ">=").replace('≤', "<=").replace('\u{202f}', "\u{a0}")
}

#[cfg(test)]
mod tests;

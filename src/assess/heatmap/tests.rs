//! What a reader must find on a picture. Its pixels are compared with what they must mean, not with stored ones.

use super::*;
use crate::classifier::Evidence;
use crate::radiograph::{Pixels, Radiograph, phantom};
use crate::report::{Clock, ModelIdentity, Reason, ReasonCode, SCHEMA, Timing};
use crate::tensor::Tensor;

/// A network's answer with these logits in its cells.
fn evidence(rows: usize, columns: usize, logits: Vec<f32>) -> Evidence {
    let cells = rows * columns;
    Evidence {
        map_quantized: Tensor::filled([1, rows, columns, 4], 0),
        features_quantized: Tensor::filled([1, rows, columns, 1], 0),
        logits: std::array::from_fn(|k| logits.iter().skip(k).step_by(4).sum::<f32>() / cells as f32),
        map: Tensor::new([1, rows, columns, 4], logits).expect("rows × columns × 4"),
        features: vec![0.0],
    }
}

/// 7 × 7 cells of which one has evidence for viral pneumonia.
fn one_hot_cell(row: usize, column: usize) -> Evidence {
    let mut logits = vec![0.0; 7 * 7 * 4];
    logits[(row * 7 + column) * 4 + 3] = 20.0;
    evidence(7, 7, logits)
}

fn report(decision: Decision) -> Report {
    let probabilities = [0.02, 0.08, 0.1, 0.8];
    Report {
        schema: SCHEMA.into(),
        report_id: "0123456789abcdef".repeat(2),
        device: "box-1".into(),
        sequence: 0,
        received_at: "2026-11-23T06:03:02Z".into(),
        clock: Clock::Synchronised,
        origin: phantom::radiograph(1, 2).origin,
        model: ModelIdentity { name: "cxr-vgg16".into(), version: "1.2.3".into(), sha256: "c".repeat(64) },
        backend: "onnx".into(),
        findings: std::array::from_fn(|i| Finding { label: Label::ALL[i], probability: probabilities[i] }),
        decision,
        evidence_map: None,
        timing_ms: Timing::default(),
        notice: NOTICE.into(),
    }
}

fn reported() -> Report {
    report(Decision::Reported { label: Label::ViralPneumonia })
}

fn abstained(messages: &[&str]) -> Report {
    let reason =
        |message: &&str| Reason { code: ReasonCode::LowConfidence, message: (*message).into(), value: 0.1, limit: 0.3 };
    report(Decision::Abstained { reasons: messages.iter().map(reason).collect() })
}

fn draw(radiograph: &Radiograph, evidence: &Evidence, report: &Report) -> RgbImage {
    let image = preprocess::preprocess(radiograph);
    render(&Seen { radiograph, image: &image, evidence }, report)
}

/// How much a picture's two views differ at a place of the radiograph, counted from its corner.
fn difference(picture: &RgbImage, x: u32, y: u32) -> u32 {
    let [plain, covered] = [RADIOGRAPH, OVERLAY].map(|area| picture.get_pixel(area.left + x, area.top + y).0);
    (0..3).map(|i| u32::from(plain[i].abs_diff(covered[i]))).sum()
}

/// Whether a picture's columns and rows in these ranges hold nothing but background.
fn is_empty(picture: &RgbImage, columns: std::ops::Range<u32>, rows: std::ops::Range<u32>) -> bool {
    rows.into_iter().all(|y| columns.clone().all(|x| picture.get_pixel(x, y).0 == BACKGROUND))
}

/// Whether the outermost [`MARGIN`] on all four sides and the gap between the two views and their texts are empty.
fn holds_its_margins(picture: &RgbImage) -> bool {
    let (width, height) = picture.dimensions();
    is_empty(picture, 0..MARGIN, 0..height)
        && is_empty(picture, width - MARGIN..width, 0..height)
        && is_empty(picture, 0..width, 0..MARGIN)
        && is_empty(picture, 0..width, height - MARGIN..height)
        && is_empty(picture, RADIOGRAPH.left + RADIOGRAPH.width..OVERLAY.left, 0..RADIOGRAPH.top + RADIOGRAPH.height)
}

#[test]
fn the_hottest_cell_is_coloured_where_it_lies_and_the_rest_is_left_as_it_is() {
    // Uniform grey, so that every difference is the map's.
    let grey = Radiograph { pixels: Pixels::Grey8(vec![90; 64 * 64]), ..phantom::radiograph(1, 64) };
    let cell = OVERLAY.width / 7;
    for (row, column) in [(0, 0), (2, 5), (6, 3), (6, 6)] {
        let picture = draw(&grey, &one_hot_cell(row, column), &reported());
        let (mut sum, mut across, mut down) = (0.0, 0.0, 0.0);
        for y in 0..OVERLAY.height {
            for x in 0..OVERLAY.width {
                let weight = f64::from(difference(&picture, x, y));
                (sum, across, down) = (sum + weight, across + weight * f64::from(x), down + weight * f64::from(y));
                let is_near = x / cell + 1 >= column as u32
                    && x / cell <= column as u32 + 1
                    && y / cell + 1 >= row as u32
                    && y / cell <= row as u32 + 1;
                assert!(is_near || weight == 0.0, "{row}, {column}: coloured at {x}, {y}");
            }
        }
        let found = (across / sum / f64::from(cell), down / sum / f64::from(cell));
        let middle = (column as f64 + 0.5, row as f64 + 0.5);
        assert!((found.0 - middle.0).abs() < 0.5 && (found.1 - middle.1).abs() < 0.5, "{found:?}, cell {middle:?}");
        if row % 6 != 0 {
            assert!(
                (found.0 - middle.0).abs() < 0.02 && (found.1 - middle.1).abs() < 0.02,
                "{found:?}, cell {middle:?}"
            );
        }
    }
}

#[test]
fn the_colour_in_the_hottest_cell_is_the_one_that_the_scale_has_for_its_value() {
    let black = Radiograph { pixels: Pixels::Grey8(vec![0; 64 * 64]), ..phantom::radiograph(1, 64) };
    // A lead of 20 in a map whose ticks end at 20: the scale's top.
    let picture = draw(&black, &one_hot_cell(3, 3), &reported());
    let scale = |y: u32| picture.get_pixel(SCALE.left + SCALE.width / 2, SCALE.top + y).0;
    assert_eq!((scale(0), scale(SCALE.height - 1)), (colour::colour(1.0), colour::colour(0.0)));
    let middle = OVERLAY.width / 2;
    let over = picture.get_pixel(OVERLAY.left + middle, OVERLAY.top + middle).0;
    for (over, top) in over.into_iter().zip(scale(0)) {
        // Over black a colour is dimmed by its opacity alone; the middle lies half a pixel off the greatest value.
        let undimmed = f64::from(over) / colour::alpha(1.0);
        assert!((undimmed - f64::from(top)).abs() < 12.0, "{undimmed} for {top}");
    }
}

#[test]
fn without_evidence_for_the_label_both_views_are_the_radiograph() {
    let radiograph = phantom::radiograph(5, 224);
    let against = evidence(1, 2, vec![3.0, 1.0, 2.0, -9.0, 3.0, 1.0, 2.0, 1.9]);
    let picture = draw(&radiograph, &against, &reported());
    let square = preprocess::square(&radiograph, RADIOGRAPH.width);
    for (index, &level) in square.data().iter().enumerate() {
        let (x, y) = (index as u32 % RADIOGRAPH.width, index as u32 / RADIOGRAPH.width);
        assert_eq!(picture.get_pixel(RADIOGRAPH.left + x, RADIOGRAPH.top + y).0, [level; 3]);
        assert_eq!(difference(&picture, x, y), 0, "at {x}, {y}");
    }
}

#[test]
fn anatomy_shows_through_the_greatest_evidence() {
    let edge = Pixels::Grey8((0..64 * 64).map(|i| if i % 64 < 32 { 40 } else { 200 }).collect());
    let radiograph = Radiograph { pixels: edge, ..phantom::radiograph(1, 64) };
    let picture = draw(&radiograph, &one_hot_cell(3, 3), &reported());
    let (y, middle) = (OVERLAY.top + OVERLAY.height / 2, OVERLAY.left + OVERLAY.width / 2);
    let [dark, bright] = [middle - 10, middle + 10].map(|x| picture.get_pixel(x, y).0);
    assert!((0..3).all(|i| bright[i] > dark[i] + 40), "{dark:?} {bright:?}");
}

#[test]
fn the_bars_are_as_long_as_the_probabilities() {
    let picture = draw(&phantom::radiograph(1, 96), &one_hot_cell(1, 1), &reported());
    let below = RADIOGRAPH.top + RADIOGRAPH.height;
    let count = |row: u32, wanted: &[Colour]| {
        (150..RADIOGRAPH.left + RADIOGRAPH.width - 70)
            .filter(|&x| wanted.contains(&picture.get_pixel(x, row).0))
            .count()
    };
    // Rows through the bars: those with the most of the bars' own three colours.
    let rows = (below..picture.height()).filter(|&row| count(row, &[INK, BAR, FAINT]) > 200);
    let mut parts: Vec<usize> =
        rows.map(|row| (count(row, &[INK, BAR]) * 100).div_ceil(count(row, &[INK, BAR, FAINT]).max(1))).collect();
    parts.dedup();
    assert_eq!(parts.len(), 4, "{parts:?}");
    for (part, expected) in parts.iter().zip([2, 8, 10, 80]) {
        assert!(part.abs_diff(expected) <= 2, "{parts:?}");
    }
}

#[test]
fn an_abstention_is_written_in_its_own_colour_with_every_reason() {
    let radiograph = phantom::radiograph(1, 96);
    let count = |picture: &RgbImage| {
        let top = RADIOGRAPH.top + RADIOGRAPH.height;
        let bottom = picture.height() - MARGIN - TITLE.line_height() * 2;
        let pixels = (top..bottom).flat_map(|y| (OVERLAY.left..WIDTH).map(move |x| (x, y)));
        let (mut warning, mut ink) = (0, 0);
        for (x, y) in pixels {
            let colour = picture.get_pixel(x, y).0;
            warning += usize::from(colour == WARNING);
            ink += usize::from(colour == INK);
        }
        (warning, ink)
    };
    let (warning, _) = count(&draw(&radiograph, &one_hot_cell(0, 0), &reported()));
    assert_eq!(warning, 0, "a reported label carries no warning beside the notice");
    let one = count(&draw(&radiograph, &one_hot_cell(0, 0), &abstained(&["The image is too small."])));
    let two = count(&draw(&radiograph, &one_hot_cell(0, 0), &abstained(&["The image is too small.", "It is dark."])));
    assert!(one.0 > 200 && two.0 == one.0, "{one:?} {two:?}");
    assert!(one.1 > 50 && two.1 > one.1 + 10, "{one:?} {two:?}");
}

#[test]
fn the_longest_texts_make_the_picture_higher_and_never_run_over() {
    let radiograph = phantom::radiograph(1, 96);
    let short = draw(&radiograph, &one_hot_cell(0, 0), &abstained(&["Short."]));
    assert!(holds_its_margins(&short));
    let sentence =
        "The most probable label, Viral pneumonia, has a probability of 29 %; 30 % is the least that is reported. ";
    let word = "Mahalanobis".repeat(400);
    let lines = format!("line\n\u{1b}[31mcontrol\u{0}{}", "中文≥≤".repeat(300));
    let mut long = abstained(&[&sentence.repeat(8), &word, &lines, sentence, "", sentence, sentence, sentence]);
    long.model.name = "m".repeat(3000);
    let picture = draw(&radiograph, &evidence(7, 7, [1e38, 0.0, 0.0, 3e38].repeat(49)), &long);
    assert!(holds_its_margins(&picture));
    assert_eq!(picture.width(), short.width());
    assert!(picture.height() > short.height() + 300 && picture.height() < 4000, "{}", picture.height());
}

#[test]
fn every_label_fits_beside_its_standing() {
    let radiograph = phantom::radiograph(1, 96);
    for label in Label::ALL {
        for mut report in [report(Decision::Reported { label }), abstained(&["Why."])] {
            for finding in &mut report.findings {
                finding.probability = if finding.label == label { 1.0 } else { 0.0 };
            }
            assert!(holds_its_margins(&draw(&radiograph, &one_hot_cell(0, 0), &report)), "{label}");
        }
    }
}

#[test]
fn what_no_classifier_gives_is_drawn_all_the_same() {
    let broken = Radiograph { width: 9, height: 9, pixels: Pixels::Grey8(vec![0; 3]), ..phantom::radiograph(1, 2) };
    let mut odd = evidence(1, 1, vec![f32::NAN; 4]);
    odd.map = Tensor::filled([1, 0, 3, 4], 0.0);
    let mut report = reported();
    report.findings.iter_mut().for_each(|finding| finding.probability = f32::NAN);
    let picture = draw(&broken, &odd, &report);
    assert!(holds_its_margins(&picture));
    assert_eq!(picture.get_pixel(OVERLAY.left + 99, OVERLAY.top + 99).0, [0; 3]);
}

#[test]
fn the_same_report_gives_the_same_bytes_and_names_nobody() {
    let radiograph = phantom::radiograph(3, 300);
    let bytes = |report: &Report| encode_png(&draw(&radiograph, &one_hot_cell(4, 2), report)).expect("a picture");
    let (first, mut later) = (bytes(&reported()), reported());
    later.received_at = "2027-01-01T00:00:00Z".into();
    later.origin.study = Some("pseudonym".into());
    later.timing_ms.total = 9.0;
    assert!(first == bytes(&later), "neither time nor origin is on the picture");
    let decoded = image::load_from_memory(&first).expect("a PNG").into_rgb8();
    assert_eq!(decoded.dimensions().0, WIDTH);
    assert!(RADIOGRAPH.width >= 512 && decoded == draw(&radiograph, &one_hot_cell(4, 2), &reported()));
    let chunks = |name: &[u8]| first.windows(4).filter(|window| *window == name).count();
    assert_eq!(chunks(b"tEXt") + chunks(b"iTXt") + chunks(b"eXIf") + chunks(b"tIME"), 0);
}

//! The promise: the box does not judge what is no upright frontal chest radiograph, and does judge what is. With the
//! committed bundle's gates on the real data beside the repository (its val split: test is for the report alone) and on
//! what is drawn here; and with gates that are fitted here to phantoms, which needs neither.
//!
//! What the gates see in the pixels is tested on everything, as if the network had nothing against it; with the network,
//! which takes a quarter of a second an image, a sample is tested, and the negatives that get so far.
#![cfg(feature = "onnx")]

mod common;
mod support;

use roentgen::assess::gates::{Gates, Pose, PoseClassifier, Subspace};
use roentgen::assess::view::View;
use roentgen::assess::{Assessor, Config, Seen, quality};
use roentgen::bundle::{Bundle, BundleError, GATES_FILE, GATES_SCHEMA, GateLimits};
use roentgen::classifier::Classifier;
use roentgen::classifier::onnx::OnnxClassifier;
use roentgen::preprocess::preprocess;
use roentgen::radiograph::{self, Limits, Pixels, Radiograph, phantom};
use roentgen::report::{Decision, ReasonCode};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::gated::{bundle_with_gates, closed, gated_bundle};

/// The committed bundle, or that of `$ROENTGEN_BUNDLE`, which must have gates.
fn gated() -> (Bundle, Gates) {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cxr-vgg16");
    let folder = std::env::var_os("ROENTGEN_BUNDLE").map_or(committed, PathBuf::from);
    let bundle = Bundle::open(&folder).unwrap_or_else(|error| panic!("{error}"));
    let gates = Gates::load(&bundle).unwrap_or_else(|error| panic!("{error}"));
    let gates = gates.unwrap_or_else(|| panic!("{} has no gates of abstention", folder.display()));
    (bundle, gates)
}

/// What the pixels alone give reason for.
fn objections(gates: &Gates, radiograph: &Radiograph) -> Vec<ReasonCode> {
    let view = View::of(&preprocess(radiograph));
    let mut codes: Vec<ReasonCode> = quality::reasons(radiograph, &view).iter().map(|reason| reason.code).collect();
    // Features of an average image and logits of no doubt: the network has nothing against it.
    let features: Vec<f32> = gates.features.parts().0.iter().map(|mean| mean * mean).collect();
    let measured = gates.measure(&view, &features[..gates.features.dimensions()], &[1e4, 0.0, 0.0, 0.0], 1.0);
    codes.extend(gates.reasons(&measured).iter().map(|reason| reason.code));
    codes
}

/// Counts what is objected to and prints the reasons: (images, images objected to).
fn count(gates: &Gates, what: &str, radiographs: impl Iterator<Item = Radiograph>) -> (usize, usize) {
    let (mut all, mut stopped, mut reasons) = (0, 0, BTreeMap::<ReasonCode, usize>::new());
    for radiograph in radiographs {
        let codes = objections(gates, &radiograph);
        all += 1;
        stopped += usize::from(!codes.is_empty());
        codes.into_iter().for_each(|code| *reasons.entry(code).or_default() += 1);
    }
    println!("{what}: {stopped} of {all} {reasons:?}");
    (all, stopped)
}

fn open(path: &Path) -> Radiograph {
    radiograph::open(path, &Limits::default(), &common::key())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a folder of real data.
fn files(inside: &str) -> Vec<PathBuf> {
    let Some(folder) = common::shared(inside) else { return Vec::new() };
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("listed").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// A grey image as if it had come as a file.
fn drawn(width: u32, height: u32, levels: Vec<u8>) -> Radiograph {
    Radiograph { width, height, pixels: Pixels::Grey8(levels), ..phantom::radiograph(1, 1) }
}

/// The same radiograph, its pixels taken from elsewhere (given row and column and the image's size) and changed.
fn changed(
    of: &Radiograph,
    from: impl Fn(usize, usize, usize, usize) -> (usize, usize),
    level: impl Fn(u16) -> u16,
) -> Radiograph {
    let (rows, columns) = (of.height as usize, of.width as usize);
    let levels = common::levels(of);
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let pixels = cells
        .map(|(row, column)| {
            let (row, column) = from(row, column, rows, columns);
            level(levels[row.min(rows - 1) * columns + column.min(columns - 1)])
        })
        .collect();
    Radiograph { pixels: Pixels::Grey16(pixels), ..of.clone() }
}

#[test]
fn chest_radiographs_pass_and_turned_or_inverted_ones_do_not() {
    let (_, gates) = gated();
    // Every fourth: a minute's work otherwise.
    let paths: Vec<PathBuf> = files("radiographs/val").into_iter().step_by(4).collect();
    if paths.is_empty() {
        return;
    }
    let val: Vec<Radiograph> = paths.iter().map(|path| open(path)).collect();
    let share = |what: &str, of: &dyn Fn(&Radiograph) -> Radiograph| {
        let (all, stopped) = count(&gates, what, val.iter().map(of));
        stopped as f64 / all as f64
    };
    assert!(share("as they are", &Clone::clone) <= 0.035);
    let same = |level| level;
    assert!(share("upside down", &|r| changed(r, |row, column, rows, _| (rows - 1 - row, column), same)) >= 0.95);
    let half = |r: &Radiograph| changed(r, |row, column, rows, columns| (rows - 1 - row, columns - 1 - column), same);
    assert!(share("turned by half", &half) >= 0.95);
    assert!(share("inverted", &|r| changed(r, |row, column, _, _| (row, column), |level| 65535 - level)) >= 0.95);
    let left = |r: &Radiograph| {
        changed(r, |row, column, rows, columns| (column * rows / columns, columns - 1 - row * columns / rows), same)
    };
    assert!(share("turned left", &left) >= 0.95);
    let right = |r: &Radiograph| {
        changed(r, |row, column, rows, columns| (rows - 1 - column * rows / columns, row * columns / rows), same)
    };
    assert!(share("turned right", &right) >= 0.95);
    // Printed, not promised: halves are hard to tell from unusual collimation.
    share("left half", &|r| changed(r, |row, column, _, _| (row, column / 2), same));
    share("upper half", &|r| changed(r, |row, column, _, _| (row / 2, column), same));
    // What another clinic does to a good radiograph must not matter much.
    let darker = |r: &Radiograph| changed(r, |row, column, _, _| (row, column), |level| level / 2);
    assert!(share("half as bright", &darker) <= 0.05);
    let gamma = |level: u16| ((f64::from(level) / 65535.0).powf(0.6) * 65535.0) as u16;
    assert!(share("brighter", &|r| changed(r, |row, column, _, _| (row, column), gamma)) <= 0.05);
    let wide = |r: &Radiograph| {
        let (rows, columns, levels) = (r.height as usize, r.width as usize, common::levels(r));
        let pad = columns / 8;
        let line = |row: usize| {
            std::iter::repeat_n(0u16, pad).chain(levels[row * columns..][..columns].iter().copied()).chain(vec![0; pad])
        };
        let pixels = (0..rows).flat_map(line).collect();
        Radiograph { width: (columns + 2 * pad) as u32, pixels: Pixels::Grey16(pixels), ..r.clone() }
    };
    assert!(share("with black margins", &wide) <= 0.05);
}

#[test]
fn what_is_no_chest_radiograph_is_not_judged() {
    let (bundle, gates) = gated();
    let paths = files("negatives");
    // Refused at opening is not judged either; the network is run only for what the pixels have nothing against.
    let opened = paths.iter().filter_map(|path| radiograph::open(path, &Limits::default(), &common::key()).ok());
    let opened: Vec<Radiograph> = opened.collect();
    count(&gates, "of the negatives that could be opened, by their pixels", opened.iter().cloned());
    let left = opened.into_iter().filter(|radiograph| objections(&gates, radiograph).is_empty());
    let decisions = judge(&bundle, left);
    println!("of {} files {} come to the network: {decisions:?}", paths.len(), decisions.len());
    let judged = decisions.iter().filter(|decision| matches!(decision, Decision::Reported { .. })).count();
    assert!(judged * 20 <= paths.len(), "{judged} of {} are judged", paths.len());
}

#[test]
fn real_dicom_chests_pass_and_a_hand_does_not() {
    let (_, gates) = gated();
    for path in files("dicom/chest") {
        let codes = objections(&gates, &open(&path));
        // One of them is a copy that lies about its photometric interpretation.
        let lies = path.to_string_lossy().contains("Fake_MONO");
        assert_eq!(codes.first(), lies.then_some(&ReasonCode::Inverted), "{}: {codes:?}", path.display());
    }
    for path in files("dicom/other") {
        let Ok(radiograph) = radiograph::open(&path, &Limits::default(), &common::key()) else { continue };
        assert_ne!(objections(&gates, &radiograph), [], "{}", path.display());
    }
}

#[test]
fn drawn_pictures_are_not_judged() {
    let (_, gates) = gated();
    let mut random = common::Random::new(5);
    let noise = (0..256 * 256).map(|_| random.below(256) as u8).collect();
    let picture = |of: &dyn Fn(f64, f64) -> f64| {
        let at = |index: usize| ((index % 256) as f64 / 128.0 - 1.0, (index / 256) as f64 / 128.0 - 1.0);
        drawn(256, 256, (0..256 * 256).map(at).map(|(x, y)| of(x, y).clamp(0.0, 255.0) as u8).collect())
    };
    let ellipse = |x: f64, y: f64, a: f64, b: f64| (x / a).powi(2) + (y / b).powi(2) < 1.0;
    let pictures = [
        ("blank", drawn(256, 256, vec![128; 256 * 256])),
        ("noise", drawn(256, 256, noise)),
        ("ramp", picture(&|x, _| 128.0 + 127.0 * x)),
        ("stripes", picture(&|x, _| 128.0 + 100.0 * (40.0 * x).sin())),
        ("disc", picture(&|x, y| if ellipse(x, y, 0.7, 0.7) { 200.0 } else { 10.0 })),
        (
            "forearm",
            picture(&|x, _| {
                let bone = |at: f64| 90.0 * (-((x - at) / 0.09).powi(4)).exp();
                20.0 + 80.0 * (1.0 - (x / 0.5).powi(4)).max(0.0) + bone(-0.18) + bone(0.2)
            }),
        ),
        (
            "axial slice",
            picture(&|x, y| {
                let lung = ellipse(x - 0.38, y, 0.28, 0.42) || ellipse(x + 0.38, y, 0.28, 0.42);
                if lung {
                    40.0
                } else if ellipse(x, y, 0.9, 0.7) {
                    160.0
                } else {
                    5.0
                }
            }),
        ),
        (
            "page of text",
            picture(&|x, y| {
                let (line, letter) = ((y * 24.0).fract().abs() < 0.5, (x * 60.0).sin() * (y * 131.0).cos() > 0.0);
                if line && letter { 15.0 } else { 245.0 }
            }),
        ),
    ];
    for (what, picture) in pictures {
        let codes = objections(&gates, &picture);
        println!("{what}: {codes:?}");
        assert_ne!(codes, [], "{what}");
    }
}

#[test]
fn phantoms_are_not_judged() {
    let (bundle, _) = gated();
    let judged = judge(&bundle, (1..=6).map(|seed| phantom::radiograph(seed, 512)));
    for decision in &judged {
        assert!(matches!(decision, Decision::Abstained { .. }), "{judged:?}");
    }
}

#[test]
fn with_the_network_at_most_one_radiograph_in_twenty_is_not_judged() {
    let (bundle, _) = gated();
    let sample: Vec<PathBuf> = files("radiographs/val").into_iter().step_by(8).collect();
    let judged = judge(&bundle, sample.iter().map(|path| open(path)));
    let abstained = judged.iter().filter(|decision| matches!(decision, Decision::Abstained { .. })).count();
    println!("{abstained} of {} radiographs of val abstain", judged.len());
    assert!(abstained * 20 <= judged.len(), "{judged:?}");
}

/// A radiograph in every pose.
fn posed(of: &Radiograph) -> [(Pose, Radiograph); 6] {
    let pose = |from: fn(usize, usize, usize, usize) -> (usize, usize)| changed(of, from, |level| level);
    [
        (Pose::Upright, of.clone()),
        (Pose::UpsideDown, pose(|row, column, rows, _| (rows - 1 - row, column))),
        (Pose::Inverted, changed(of, |row, column, _, _| (row, column), |level| 65535 - level)),
        (Pose::TurnedLeft, pose(|row, column, _, columns| (column, columns - 1 - row))),
        (Pose::TurnedRight, pose(|row, column, rows, _| (rows - 1 - column, row))),
        (Pose::Part, pose(|row, column, _, _| (row / 2, column))),
    ]
}

/// Gates that take phantoms for the radiographs of this world, fitted in the plainest way: everything about one mean with
/// one variance, poses by their nearest mean, limits a fifth beyond the furthest phantom. The network is not asked.
fn fitted_to_phantoms() -> Gates {
    let views =
        |pose: usize| (1..=24).map(move |seed| View::of(&preprocess(&posed(&phantom::radiograph(seed, 256))[pose].1)));
    let mean = |vectors: &[Vec<f64>]| -> Vec<f64> {
        let sum = |at: usize| vectors.iter().map(|vector| vector[at]).sum::<f64>();
        (0..vectors[0].len()).map(|at| sum(at) / vectors.len() as f64).collect()
    };
    let single = |vector: &[f64]| -> Vec<f32> { vector.iter().map(|&value| value as f32).collect() };
    let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    // The space and the distance of the furthest.
    let space = |vectors: Vec<Vec<f64>>| {
        let (mean, dimensions) = (mean(&vectors), vectors[0].len());
        let deviation = vectors.iter().map(|vector| square(vector, &mean)).sum::<f64>();
        let variance = deviation / (vectors.len() * dimensions) as f64;
        let space = Subspace::new(dimensions, single(&mean), Vec::new(), Vec::new(), variance as f32).expect("sound");
        let furthest = vectors.iter().map(|vector| space.distance(vector)).fold(0.0, f64::max);
        (space, variance, furthest as f32)
    };
    let upright: Vec<View> = views(0).collect();
    let (pixels, _, furthest_pixels) = space(upright.iter().map(|view| view.pixels.clone()).collect());
    let (gradients, variance, furthest_gradients) = space(upright.iter().map(|view| view.gradients.clone()).collect());
    // −|x − mean|² / 2v as a linear function of x, for |x|² is the same in every pose.
    let means: Vec<Vec<f64>> =
        (0..6).map(|pose| mean(&views(pose).map(|view| view.gradients).collect::<Vec<_>>())).collect();
    let weights = means.iter().flatten().map(|value| (value / variance) as f32).collect();
    let bias = means.iter().map(|mean| (-square(mean, &vec![0.0; mean.len()]) / (2.0 * variance)) as f32).collect();
    let limits = GateLimits {
        schema: GATES_SCHEMA.into(),
        file: GATES_FILE.into(),
        false_abstention: 0.0,
        min_upright: 0.5,
        max_pixels: furthest_pixels * 1.2,
        max_gradients: furthest_gradients * 1.2,
        max_features: 1e9,
        max_energy: 1e9,
    };
    let features = Subspace::new(4, vec![0.0; 4], Vec::new(), Vec::new(), 1.0).expect("sound");
    Gates { pixels, gradients, features, pose: PoseClassifier::new(weights, bias).expect("sound"), limits }
}

#[test]
fn gates_that_are_fitted_to_phantoms_pass_phantoms_and_stop_all_else() {
    use ReasonCode::{Cropped, Inverted, Rotated, UpsideDown};
    let gates = fitted_to_phantoms();
    for seed in 101..=112 {
        // Others than those it was fitted to.
        let posed = posed(&phantom::radiograph(seed, 256));
        let codes = posed.each_ref().map(|(_, radiograph)| objections(&gates, radiograph));
        assert_eq!(codes[0], [], "phantom {seed}");
        let first = codes.each_ref().map(|codes| codes.first().copied());
        let expected = [UpsideDown, Inverted, Rotated, Rotated, Cropped].map(Some);
        assert_eq!(first[1..], expected, "phantom {seed}: {codes:?}");
    }
    let mut random = common::Random::new(5);
    let noise = drawn(256, 256, (0..256 * 256).map(|_| random.below(256) as u8).collect());
    let ramp = drawn(256, 256, (0..256 * 256).map(|index| (index % 256) as u8).collect());
    for other in [noise, ramp, drawn(256, 256, vec![128; 256 * 256])] {
        assert_ne!(objections(&gates, &other), []);
    }
}

/// What a box with this bundle decides.
fn judge(bundle: &Bundle, radiographs: impl Iterator<Item = Radiograph>) -> Vec<Decision> {
    let assessor = Assessor::new(bundle, "test", Config::default()).expect("sound gates");
    let mut classifier = OnnxClassifier::load(bundle).expect("a sound model");
    radiographs
        .map(|radiograph| {
            let image = preprocess(&radiograph);
            let evidence = classifier.classify(&image).expect("the network runs");
            assessor.decide(&Seen { radiograph: &radiograph, image: &image, evidence: &evidence }).1
        })
        .collect()
}

#[test]
fn every_reason_is_given_once_and_the_worst_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = gated_bundle(folder.path());
    let mut small = phantom::radiograph(1, 96);
    small.origin.view = Some("LL".into());
    let [Decision::Abstained { reasons }] = &judge(&bundle, [small].into_iter())[..] else {
        panic!("all gates are closed")
    };
    let codes: Vec<ReasonCode> = reasons.iter().map(|reason| reason.code).collect();
    use ReasonCode::{LateralView, OutOfDistribution, TooSmall, UnusualAppearance, UpsideDown};
    assert_eq!(codes, [TooSmall, LateralView, UpsideDown, UnusualAppearance, OutOfDistribution]);
    assert_eq!((reasons[0].value, reasons[0].limit), (96.0, 180.0));
    // What a consumer reads.
    let json = serde_json::to_value(&reasons[3]).expect("JSON");
    assert_eq!(json["code"], "unusual_appearance");
    assert!(json["value"].as_f64() > json["limit"].as_f64(), "{json}");
}

#[test]
fn a_bundle_without_gates_abstains_for_low_confidence_and_lateral_views_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = Bundle::open(&support::tiny_bundle(folder.path())).expect("a bundle");
    let mut lateral = phantom::radiograph(1, 96);
    lateral.origin.view = Some("LL".into());
    let judged = judge(&bundle, [phantom::radiograph(1, 96), lateral].into_iter());
    assert!(matches!(judged[0], Decision::Reported { .. }), "{judged:?}");
    let Decision::Abstained { reasons } = &judged[1] else { panic!("{judged:?}") };
    assert_eq!(reasons[0].code, ReasonCode::LateralView);
}

#[test]
fn gates_that_are_missing_or_malformed_are_an_error_of_the_bundle() {
    let sound = closed().encode().expect("tensors");
    let other = Gates { features: closed().pixels, ..closed() }.encode().expect("tensors");
    for file in
        [None, Some(Vec::new()), Some(b"no tensors".to_vec()), Some(sound[..sound.len() - 4].to_vec()), Some(other)]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let error =
            Assessor::new(&bundle_with_gates(folder.path(), file), "test", Config::default()).expect_err("unsound");
        assert!(matches!(&error, BundleError::File { path, .. } if path.ends_with(GATES_FILE)), "{error}");
    }
}

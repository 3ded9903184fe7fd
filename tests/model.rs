//! The committed bundle is a model, not a stub: on radiographs that nothing was fitted on it is right as often as its
//! report says, give or take the sample. The exact figures over the whole test split are in the bundle's `report.json`.
#![cfg(feature = "onnx")]

mod common;

use roentgen::bundle::Bundle;
use roentgen::classifier::Classifier;
use roentgen::classifier::onnx::OnnxClassifier;
use roentgen::preprocess::preprocess;
use roentgen::radiograph;
use roentgen::report::Label;
use std::path::Path;

/// Of the test split, every so many-th image of a class is judged here.
const STEP: usize = 5;

fn bundle() -> Bundle {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cxr-vgg16");
    Bundle::open(&folder).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_committed_bundle_judges_unseen_radiographs() {
    let bundle = bundle();
    let mut classifier = OnnxClassifier::load(&bundle).expect("the committed model loads");
    let (mut judged, mut right) = (0, 0);
    for label in Label::ALL {
        for path in common::shared_files(&format!("radiographs/test/{label}"), ".png").iter().step_by(STEP) {
            let radiograph = radiograph::open(path, &Default::default(), &common::key())
                .unwrap_or_else(|refusal| panic!("{}: {refusal}", path.display()));
            let evidence = classifier.classify(&preprocess(&radiograph)).expect("the network runs");
            let best = Label::ALL
                .into_iter()
                .max_by(|&a, &b| evidence.logits[a as usize].total_cmp(&evidence.logits[b as usize]));
            judged += 1;
            right += usize::from(best == Some(label));
        }
    }
    if judged == 0 {
        return;
    }
    assert_eq!(judged, 100, "the test split has 500 images");
    println!("{right} of {judged} right");
    // 0.84 on all 500; three standard errors of a sample of 100 are 0.11.
    assert!(right >= 73, "{right} of {judged} right");
}

#[test]
fn the_bundle_states_what_it_is_and_where_it_comes_from() {
    let bundle = bundle();
    let manifest = bundle.manifest();
    for key in ["data", "weights", "training", "quantization"] {
        assert!(manifest.provenance.get(key).is_some_and(|text| text.len() > 20), "no provenance of {key}");
    }
    let card = String::from_utf8(bundle.read("README.md").expect("the card is there")).expect("the card is text");
    assert!(card.contains("does not diagnose"));
    let report = bundle.read("report.json").expect("the report is there");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("the report is JSON");
    let accuracy = |which: &str| report[which]["accuracy"].as_f64().expect("the report has an accuracy");
    assert!(accuracy("int8") >= 0.80, "{report}");
    assert!((accuracy("int8") - accuracy("float")).abs() <= 0.005, "{report}");
}

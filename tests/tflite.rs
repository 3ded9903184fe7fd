//! The promise: the backend `tflite` gives the engine's integers, within one quantization step, at every golden vector of the
//! committed bundle; and the program runs with it. TensorFlow Lite is linked here: `cross/tflite` gets it, and tests/run
//! calls this with the feature `tflite` alone.
#![cfg(feature = "tflite")]

#[path = "common/networks.rs"]
mod networks;

use roentgen::bundle::{Bundle, BundleWriter, Manifest, TFLITE_FILE};
use roentgen::classifier::native::{self, NativeClassifier};
use roentgen::classifier::tflite::TfliteClassifier;
use roentgen::classifier::{Classifier, Evidence};
use roentgen::config::Config;
use roentgen::tensor::Tensor;
use std::path::{Path, PathBuf};
use std::process::Command;

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cxr-vgg16")
}

/// The greatest difference, in steps.
fn steps(found: &Tensor<u8>, expected: &Tensor<u8>) -> u8 {
    assert_eq!(found.shape(), expected.shape());
    found.data().iter().zip(expected.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

#[test]
fn every_golden_vector_is_within_a_step_of_the_engine() {
    let bundle = Bundle::open(&committed()).unwrap();
    let mut native = NativeClassifier::load(&bundle, &native::Config::default(), None).unwrap();
    for threads in [1, 2] {
        let mut tflite = TfliteClassifier::load(&bundle, threads).unwrap();
        assert_eq!((tflite.name(), tflite.threads()), ("tflite", threads));
        let tested = bundle.self_test(1, |image| tflite.run(image).map_err(|error| error.to_string()));
        assert!(tested.unwrap().vectors >= 3);
        // The golden images, and others that nobody tuned anything to.
        let golden = bundle.golden().unwrap().into_iter().map(|vector| vector.image);
        let slope = (0..224 * 224).map(|i| (i / 224 + i % 224) as u8 / 2).collect();
        let others = [Tensor::filled([1, 224, 224, 1], 255), Tensor::new([1, 224, 224, 1], slope).unwrap()];
        for image in golden.chain(others) {
            let expected: Evidence = native.classify(&image).unwrap();
            let found = tflite.classify(&image).unwrap();
            let evidence = steps(&found.map_quantized, &expected.map_quantized);
            let features = steps(&found.features_quantized, &expected.features_quantized);
            eprintln!("{threads} threads: evidence differs by up to {evidence} steps, features by {features}");
            assert!(evidence <= 1 && features <= 1);
            let step = bundle.manifest().outputs.evidence.scale;
            assert!(found.logits.iter().zip(expected.logits).all(|(a, b)| (a - b).abs() <= step));
        }
    }
}

#[test]
fn the_program_runs_with_it() {
    let said = Command::new(env!("CARGO_BIN_EXE_roentgend"))
        .args(["bench", "--backend", "tflite", "--threads", "2", "--runs", "3", "--json", "--bundle"])
        .arg(committed())
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!((&said["backend"], &said["threads"]), (&"tflite".into(), &2.into()));
    assert!(said["kernel"].as_str().unwrap().starts_with("XNNPACK, TFLite 2."), "{said}");
    eprintln!("{said}");
    let text = "backend = \"tflite\"\n";
    assert!(Config::parse(text, Path::new("roentgend.toml")).is_ok());
}

#[test]
fn auto_measures_it_beside_the_engine() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roentgend"));
    let said = command.args(["bench", "--all", "--json", "--bundle"]).arg(committed()).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    eprintln!("{said}");
    let rows = said["backends"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["backend"].as_str().unwrap()).collect::<Vec<_>>(), ["native", "tflite"]);
    assert!(rows.iter().all(|row| row["largest_difference"].as_u64().is_some_and(|steps| steps <= 1)), "{said}");
}

#[test]
fn a_bundle_without_such_a_file_or_with_another_networks_is_refused() {
    let network = networks::small_network(1, false);
    let folder = tempfile::tempdir().unwrap();
    let writer = BundleWriter::new(Manifest::for_network("small", "1", &network), &network, &[]).unwrap();
    let refused = |name: &str, file: Option<Vec<u8>>| {
        let writer = file.into_iter().fold(writer.clone(), |writer, bytes| writer.file(TFLITE_FILE, bytes));
        let bundle = writer.write(&folder.path().join(name)).unwrap();
        TfliteClassifier::load(&bundle, 1).err().unwrap().to_string()
    };
    assert!(refused("without", None).contains("has no model.tflite"));
    assert!(refused("empty", Some(Vec::new())).contains("model.tflite"));
    let another = std::fs::read(committed().join(TFLITE_FILE)).unwrap();
    assert!(refused("another", Some(another)).contains("its input is not the bundle's"));
}

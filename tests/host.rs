//! The host tool's whole chain, as a person types it: import → train → quantize → evaluate, on a small set of synthetic
//! radiographs and a small random trunk. Not the quality of the real model: its bundle carries its own figures.
#![cfg(feature = "host")]

#[path = "common/host.rs"]
mod chain;

use chain::{CHANNELS, done, refused, write_data, write_image, write_trunk};
use roentgen::bundle::{Bundle, Config};
use roentgen::classifier::onnx::OnnxClassifier;
use serde_json::Value;
use std::fs;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_trunk_becomes_a_bundle_that_judges_as_the_float_model_does() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_trunk(&dir.join("trunk.safetensors"));
    write_data(&dir.join("data"));

    let said = done(dir, "import --weights {}/trunk.safetensors --convention caffe --out {}/model.safetensors");
    assert!(said.contains("exact but for that ring"), "{said}");
    let error = refused(dir, "quantize --model {}/model.safetensors --data {}/data --out {}/bundle");
    assert!(error.contains("roentgen-host train"), "{error}");

    let train = "train --model {}/model.safetensors --data {}/data --out {}/trained.safetensors --lr 0.01 --epochs 200";
    let said = done(dir, train);
    let cache = fs::read_dir(dir.join("features")).unwrap().next().unwrap().unwrap().path();
    let size = fs::metadata(&cache).unwrap().len();
    assert_eq!(size, (32 + 16) * (32 + 4 * CHANNELS as u64 + 8), "one record a training and val image");
    assert_eq!(done(dir, train), said, "the same seed gives the same head");
    assert_eq!(fs::metadata(&cache).unwrap().len(), size, "nothing is computed twice");

    let quantize = "quantize --model {}/trained.safetensors --data {}/data --out {}/bundle --version 1.2.3 \
                    --calibration-images 16 --provenance data=synthetic --quick";
    done(dir, quantize);
    let bundle = Bundle::open(&dir.join("bundle")).unwrap();
    assert_eq!(bundle.manifest().version, "1.2.3");
    assert_eq!(bundle.manifest().provenance["data"], "synthetic");
    assert!(bundle.manifest().calibration.temperature > 0.0);
    for file in ["report.json", "quantization.json", "README.md", "model.onnx", "model.tflite"] {
        assert!(bundle.manifest().files.contains_key(file), "{file}");
    }
    let cost = json(&fs::read_to_string(dir.join("bundle/quantization.json")).unwrap());
    let layers = cost["layers"].as_array().unwrap();
    assert!(layers.len() == 6 && layers.iter().all(|layer| layer["network_db"].as_f64() > Some(15.0)), "{cost}");
    assert_eq!(cost["equalised"].as_array().unwrap().len(), 4, "all of the trunk but its last: {cost}");
    assert!(cost["label_agreement"].as_f64() >= Some(0.9), "{cost}");
    let classifier = OnnxClassifier::load(&bundle).unwrap();
    let tested = bundle.self_test(0, |image| classifier.run(image).map_err(|error| error.to_string())).unwrap();
    assert!(tested.vectors > 0);
    let card = fs::read_to_string(dir.join("bundle/README.md")).unwrap();
    assert!(card.contains("not a diagnosis") && card.contains("data: synthetic"), "{card}");

    let evaluate = "evaluate --bundle {}/bundle --data {}/data --model {}/trained.safetensors --quick --json";
    let measured = json(&done(dir, evaluate));
    assert_eq!((&measured["n"], &measured["split"]), (&16.into(), &"test".into()));
    assert!(measured["float"]["accuracy"].as_f64() >= Some(0.9), "{measured}");
    assert!(measured["int8"]["accuracy"].as_f64() >= Some(0.9), "{measured}");
    assert!(measured["cost"]["mean_probability_difference"].as_f64() <= Some(0.1), "{measured}");
    assert_eq!(measured["populations"]["adult"]["n"], 8);
    assert_eq!(json(&fs::read_to_string(dir.join("bundle/report.json")).unwrap()), measured);

    // Class folders without splits, one file in them broken, and no float model at hand.
    fs::write(dir.join("data/test/normal/broken.png"), b"\x89PNG\r\n\x1a\nbroken").unwrap();
    let recorded = json(&done(dir, "evaluate --bundle {}/bundle --data {}/data/test --quick --json"));
    assert_eq!((&recorded["n"], &recorded["split"]), (&16.into(), &Value::Null));
    assert_eq!(recorded["float"]["source"], "recorded");
    assert_eq!(recorded["int8"], measured["int8"]);
    let broken = recorded["refused"].as_array().unwrap();
    assert!(broken.len() == 1 && broken[0].as_str().unwrap().contains("broken.png"), "{broken:?}");
    let table = done(dir, "evaluate --bundle {}/bundle --data {}/data/val --quick");
    assert!(table.contains("as recorded when the bundle was made") && table.contains("n 16"), "{table}");

    // Fitted again it is another version, and says by what.
    let fit = "fit --bundle {}/bundle --data {}/data --out {}/fitted";
    done(dir, &format!("{fit} --version 1.2.4 --false-abstention 0.25 --min-probability 0.5"));
    let fitted = Bundle::open(&dir.join("fitted")).unwrap();
    assert_eq!((fitted.manifest().version.as_str(), fitted.manifest().thresholds.min_probability), ("1.2.4", 0.5));
    let said = &fitted.manifest().provenance;
    assert!(said["abstention"].contains("0.25") && said["abstention"].contains("set to 0.5"), "{said:?}");
    assert!(said["abstention_images"].contains("32 images of train and 16 of val"), "{said:?}");
    assert_eq!(said["data"], "synthetic");
    for (wrong, named) in [
        ("", "--version"),
        ("--version 1.2.3", "later than 1.2.3"),
        ("--version 1.2.4 --min-probability 2", "--min-probability"),
        ("--version 1.2.4 --false-abstention 2", "--false-abstention"),
    ] {
        let error = refused(dir, &format!("{fit} {wrong}"));
        assert!(error.contains(named) && !error.contains("int8"), "refused before any work: {error}");
    }
    let error = refused(dir, &format!("{quantize} --abstention 2"));
    assert!(error.contains("--abstention"), "{error}");
    let error = refused(dir, &format!("{train} --unfreeze block5 --fine-lr 0"));
    assert!(error.contains("--fine-lr"), "{error}");
}

#[test]
fn the_radiography_databases_own_layout_is_split_and_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_trunk(&dir.join("trunk.safetensors"));
    done(dir, "import --weights {}/trunk.safetensors --convention torchvision --out {}/model.safetensors");
    for (class, name) in ["COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"].iter().enumerate() {
        for seed in 0..6 {
            write_image(&dir.join(format!("data/{name}/images/{seed}.png")), class, seed);
        }
        fs::create_dir_all(dir.join(format!("data/{name}/masks"))).unwrap();
        fs::write(dir.join(format!("data/{name}/masks/0.png")), b"never opened").unwrap();
    }
    let train = "train --model {}/model.safetensors --data {}/data --out {}/trained.safetensors --epochs 20";
    let said = done(dir, train);
    assert!(said.contains("n 4"), "one of six images of each class is for val: {said}");

    fs::remove_dir_all(dir.join("data/COVID")).unwrap();
    let error = refused(dir, train);
    assert!(error.contains("covid"), "{error}");
    let error = refused(dir, "train --model {}/trunk.safetensors --data {}/data");
    assert!(error.contains("roentgen-host import"), "{error}");
}

#[test]
fn fine_tuning_changes_the_blocks_it_was_told_to_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_trunk(&dir.join("trunk.safetensors"));
    write_data(&dir.join("data"));
    done(dir, "import --weights {}/trunk.safetensors --convention caffe --out {}/model.safetensors");
    let train = "train --model {}/model.safetensors --data {}/data --out {}/fine.safetensors --lr 0.01 --epochs 20 \
                 --unfreeze block4 --fine-epochs 2 --fine-batch 8 --log {}/log.csv";
    let said = done(dir, train);
    assert!(said.contains("epoch   2") && said.contains("head alone"), "{said}");
    let log = fs::read_to_string(dir.join("log.csv")).unwrap();
    assert_eq!(log.lines().count(), 3, "a header and a line a pass: {log}");

    let (before, after) = (fs::read(dir.join("model.safetensors")), fs::read(dir.join("fine.safetensors")));
    let (before, after) = (before.unwrap(), after.unwrap());
    let before = safetensors::SafeTensors::deserialize(&before).unwrap();
    let after = safetensors::SafeTensors::deserialize(&after).unwrap();
    for block in 1..=5 {
        let name = format!("block{block}_conv1.weight");
        let same = before.tensor(&name).unwrap().data() == after.tensor(&name).unwrap().data();
        assert_eq!(same, block < 4, "{name}");
    }
    // The changed model is a whole one: it can be quantized.
    done(dir, "keygen --no-password --out {}/our.key");
    let quantize = "quantize --model {}/fine.safetensors --data {}/data --out {}/bundle --calibration-images 16";
    done(dir, &format!("{quantize} --sign {{}}/our.key --quick --equalise off"));
    let key = dir.join("our.key.pub").display().to_string();
    let trust = Config { trusted_keys: vec![key], allow_unsigned: false }.trust().unwrap();
    let manifest = Bundle::open_trusted(&dir.join("bundle"), &trust).unwrap().manifest().clone();
    assert!(manifest.provenance["training"].contains("fine-tuned from block 4 up"), "{:?}", manifest.provenance);
    assert!(manifest.provenance["quantization"].contains("not equalised"), "{:?}", manifest.provenance);
}

//! The host tool's whole chain, as a person types it: import → train → quantize → evaluate, on a small set of synthetic
//! radiographs and a small random trunk. Not the quality of the real model: its bundle carries its own figures.
#![cfg(feature = "host")]

use roentgen::bundle::{Bundle, Config};
use roentgen::classifier::onnx::OnnxClassifier;
use roentgen::radiograph::phantom::phantom;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Rows and columns of the synthetic radiographs.
const SIZE: u32 = 256;

/// Channels of every layer of the small trunk.
const CHANNELS: usize = 8;

/// Runs `roentgen-host` with arguments; `{}` in them stands for `dir`.
fn host(dir: &Path, arguments: &str) -> Output {
    let arguments = arguments.split_whitespace().map(|word| word.replace("{}", &dir.display().to_string()));
    Command::new(env!("CARGO_BIN_EXE_roentgen-host")).args(arguments).output().unwrap()
}

/// As [`host`], for runs that must succeed: what was printed.
fn done(dir: &Path, arguments: &str) -> String {
    let output = host(dir, arguments);
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "roentgen-host {arguments}\n{out}\n{error}");
    out.into_owned()
}

/// As [`host`], for runs that must fail: the error.
fn refused(dir: &Path, arguments: &str) -> String {
    let output = host(dir, arguments);
    assert!(!output.status.success(), "roentgen-host {arguments} should fail");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Deterministic numbers in -1..1.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// A trunk of five blocks with one random convolution each, as somebody else's safetensors file.
fn write_trunk(path: &Path) {
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let mut tensors = Vec::new();
    for block in 1..=5usize {
        let inputs = if block == 1 { 3 } else { CHANNELS };
        // He et al.'s gain keeps the activations' size from layer to layer.
        let gain = (2.0 / (9 * inputs) as f32).sqrt() * 3f32.sqrt();
        let weights: Vec<f32> = noise(CHANNELS * inputs * 9, block as u64).iter().map(|w| w * gain).collect();
        tensors.push((format!("block{block}_conv1.weight"), vec![CHANNELS, inputs, 3, 3], bytes(&weights)));
        tensors.push((format!("block{block}_conv1.bias"), vec![CHANNELS], bytes(&[1.0; CHANNELS])));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, data)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// One phantom with the marks of its class: brightness and stripes that the small trunk can tell apart.
fn write_image(path: &Path, class: usize, seed: u64) {
    let mut pixels = phantom(seed, SIZE);
    for (index, level) in pixels.iter_mut().enumerate() {
        let (row, column) = (index / SIZE as usize, index % SIZE as usize);
        let bright = match class {
            0 => row % 8 < 4,
            1 => column % 8 < 4,
            2 => false,
            _ => (row / 4 + column / 4) % 2 == 0,
        };
        *level = (*level / 3).saturating_add(if bright { 120 } else { 20 * class as u8 });
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::GrayImage::from_raw(SIZE, SIZE, pixels).unwrap().save(path).unwrap();
}

const CLASSES: [&str; 4] = ["covid", "lung_opacity", "normal", "viral_pneumonia"];

/// The same in our split layout.
fn write_data(dir: &Path) {
    let mut manifest = String::from("path,split,class,population\n");
    for (split, first, count) in [("train", 0, 8), ("val", 100, 4), ("test", 200, 4)] {
        for (class, name) in CLASSES.iter().enumerate() {
            for seed in first..first + count {
                let relative = format!("{split}/{name}/{seed}.png");
                write_image(&dir.join(&relative), class, seed + 1000 * class as u64);
                let population = if seed % 2 == 0 { "adult" } else { "paediatric" };
                manifest += &format!("{relative},{split},{name},{population}\n");
            }
        }
    }
    fs::write(dir.join("manifest.csv"), manifest).unwrap();
}

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
                    --calibration-images 16 --provenance data=synthetic";
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
    assert!(cost["label_agreement"].as_f64() >= Some(0.9), "{cost}");
    let classifier = OnnxClassifier::load(&bundle).unwrap();
    let tested = bundle.self_test(0, |image| classifier.run(image).map_err(|error| error.to_string())).unwrap();
    assert!(tested.vectors > 0);
    let card = fs::read_to_string(dir.join("bundle/README.md")).unwrap();
    assert!(card.contains("not a diagnosis") && card.contains("data: synthetic"), "{card}");

    let evaluate = "evaluate --bundle {}/bundle --data {}/data --model {}/trained.safetensors --json";
    let measured = json(&done(dir, evaluate));
    assert_eq!((&measured["n"], &measured["split"]), (&16.into(), &"test".into()));
    assert!(measured["float"]["accuracy"].as_f64() >= Some(0.9), "{measured}");
    assert!(measured["int8"]["accuracy"].as_f64() >= Some(0.9), "{measured}");
    assert!(measured["cost"]["mean_probability_difference"].as_f64() <= Some(0.1), "{measured}");
    assert_eq!(measured["populations"]["adult"]["n"], 8);
    assert_eq!(json(&fs::read_to_string(dir.join("bundle/report.json")).unwrap()), measured);

    // Class folders without splits, one file in them broken, and no float model at hand.
    fs::write(dir.join("data/test/normal/broken.png"), b"\x89PNG\r\n\x1a\nbroken").unwrap();
    let recorded = json(&done(dir, "evaluate --bundle {}/bundle --data {}/data/test --json"));
    assert_eq!((&recorded["n"], &recorded["split"]), (&16.into(), &Value::Null));
    assert_eq!(recorded["float"]["source"], "recorded");
    assert_eq!(recorded["int8"], measured["int8"]);
    let broken = recorded["refused"].as_array().unwrap();
    assert!(broken.len() == 1 && broken[0].as_str().unwrap().contains("broken.png"), "{broken:?}");
    let table = done(dir, "evaluate --bundle {}/bundle --data {}/data/val");
    assert!(table.contains("as recorded when the bundle was made") && table.contains("n 16"), "{table}");
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
    done(dir, &format!("{quantize} --sign {{}}/our.key"));
    let key = dir.join("our.key.pub").display().to_string();
    let trust = Config { trusted_keys: vec![key], allow_unsigned: false }.trust().unwrap();
    let manifest = Bundle::open_trusted(&dir.join("bundle"), &trust).unwrap().manifest().clone();
    assert!(manifest.provenance["training"].contains("fine-tuned from block 4 up"), "{:?}", manifest.provenance);
}

//! The whole way, as a person types it: weights and images → `models/make-cxr-vgg16.sh` → a signed bundle → `roentgend`
//! installs it and judges with it. On a small random trunk and synthetic radiographs, in seconds. Each step is a function
//! that takes the folder where everything lies; what every command does in detail is tested in its own file (`host`,
//! `bundle`, `cli`, `heatmap`).
#![cfg(feature = "host")]

#[path = "common/host.rs"]
mod synthetic;

mod support;

use roentgen::bundle::Bundle;
use roentgen::report::{Finding, Label, NOTICE, Report};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use support::{names, output, roentgend, stderr, stdout};
use synthetic::{done, write_data, write_image, write_trunk};

#[test]
fn weights_and_images_become_a_bundle_that_the_box_judges_with() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_trunk(&dir.join("trunk.safetensors"));
    write_data(&dir.join("data"));

    done(dir, "keygen --no-password --out {}/maker.key");
    make(dir);
    let measured = evaluate(dir);
    install(dir);
    let judged = classify(dir);

    assert_eq!(measured["n"], judged.len());
    let right = judged.iter().filter(|(folder, report)| most_probable(&report.findings).name() == folder).count();
    let accuracy = right as f64 / judged.len() as f64;
    assert_eq!(measured["int8"]["accuracy"].as_f64(), Some(accuracy), "the host measured what the box does");
    assert!(accuracy >= 0.75, "chance is 0.25: {measured}");
}

/// Runs the committed script with paths as seen from `dir`, which is where it is called: what it printed.
fn script(dir: &Path, quantize: &str) -> String {
    let mut command = Command::new("sh");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/make-cxr-vgg16.sh"));
    command.args(["trunk.safetensors", "data", "made", "bundle"]).current_dir(dir);
    command.env("ROENTGEN_HOST", env!("CARGO_BIN_EXE_roentgen-host"));
    command.env("ROENTGEN_TRAIN", "--lr 0.01 --epochs 200 --unfreeze block5 --fine-epochs 1 --fine-batch 8");
    command.env("ROENTGEN_QUANTIZE", format!("--calibration-images 16 {quantize}"));
    command.env("ROENTGEN_SIGN", "maker.key").env("ROENTGEN_NEGATIVES", "negatives");
    let made = output(&mut command);
    assert_eq!(made.status.code(), Some(0), "{}\n{}", stdout(&made), stderr(&made));
    stdout(&made)
}

/// Weights and images → a signed bundle, by the script that made the committed one. Called again it computes nothing that
/// is there already; with other images it trains again.
fn make(dir: &Path) {
    write_image(&dir.join("negatives/no-chest.png"), 3, 1);
    let trained = |said: &str| said.contains("epoch   1");
    assert!(trained(&script(dir, "")), "a head, and then block 5 with it");
    let bundle = Bundle::open(&dir.join("bundle")).unwrap();
    assert_eq!((bundle.manifest().name.as_str(), bundle.manifest().version.as_str()), ("cxr-vgg16", "1.0.0"));
    let report: Value = serde_json::from_slice(&bundle.read("report.json").unwrap()).unwrap();
    assert_eq!(report["out_of_domain"][0]["n"], 1, "{report}");
    assert!(fs::exists(dir.join("bundle/bundle.sig")).unwrap());

    assert!(!trained(&script(dir, "--quick --version 1.0.1")), "trained already");
    assert_eq!(Bundle::open(&dir.join("bundle")).unwrap().manifest().version, "1.0.1");
    fs::remove_file(dir.join("data/train/covid/0.png")).unwrap();
    assert!(trained(&script(dir, "--quick")), "other images, another model");
}

/// What the bundle is worth on the test images.
fn evaluate(dir: &Path) -> Value {
    let said = done(dir, "evaluate --bundle {}/bundle --data {}/data --model {}/made/trained.safetensors --json");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// A box that trusts the maker checks the signed bundle and makes it the active one.
fn install(dir: &Path) {
    let key = fs::read_to_string(dir.join("maker.key.pub")).unwrap();
    let key = key.lines().last().unwrap();
    let config = dir.join("roentgen.toml");
    let text = format!("state_dir = {:?}\nbundles.trusted_keys = [{key:?}]\n", dir.join("state"));
    fs::write(&config, text).unwrap();
    for step in ["verify", "install"] {
        let done = output(roentgend().args(["bundle", step]).arg(dir.join("bundle")).arg("--config").arg(&config));
        assert_eq!(done.status.code(), Some(0), "{step}: {}", stderr(&done));
    }
    let listed = stdout(&output(roentgend().args(["bundle", "list", "--json", "--config"]).arg(&config)));
    let listed: Value = serde_json::from_str(&listed).unwrap_or_else(|error| panic!("{error}: {listed}"));
    let active: Vec<&Value> = listed.as_array().unwrap().iter().filter(|line| line["active"] == true).collect();
    assert_eq!((active.len(), &active[0]["version"]), (1, &Value::from("1.0.0")), "{listed}");
}

/// The box's program judges the test images by the installed bundle and draws their evidence maps: the folder of each
/// and the report on it.
fn classify(dir: &Path) -> Vec<(String, Report)> {
    let mut command = roentgend();
    command.args(["classify", "--json", "--config"]).arg(dir.join("roentgen.toml"));
    command.arg("--heatmap").arg(dir.join("pictures")).arg(dir.join("data/test"));
    let judged = output(&mut command);
    assert_eq!(judged.status.code(), Some(0), "{}", stderr(&judged));
    let sha256 = Bundle::open(&dir.join("bundle")).unwrap().sha256().to_owned();
    let reports: Vec<(String, Report)> = stdout(&judged)
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let folder = Path::new(line["path"].as_str().unwrap()).parent().unwrap().file_name().unwrap();
            let folder = folder.to_str().unwrap().to_owned();
            let picture = fs::metadata(line["heatmap"].as_str().unwrap()).unwrap();
            assert!(picture.is_file() && picture.len() > 10_000);
            let report: Report = serde_json::from_value(line["report"].take()).unwrap();
            assert_eq!((report.notice.as_str(), &report.model.sha256), (NOTICE, &sha256));
            (folder, report)
        })
        .collect();
    assert_eq!(names(&dir.join("pictures")).len(), reports.len());
    reports
}

/// The most probable label of a report, whatever the box decided.
fn most_probable(findings: &[Finding; 4]) -> Label {
    findings.iter().max_by(|a, b| a.probability.total_cmp(&b.probability)).unwrap().label
}

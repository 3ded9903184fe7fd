//! The promise: `backend = "auto"` measures what there is, once for a bundle on a machine, and takes the fastest that is right;
//! where nothing was measured it takes the engine, and tract where a layer is too large for it; `"native"` then says which
//! layer, and why.
#![cfg(feature = "onnx")]

mod support;

use roentgen::bundle::{Bundle, BundleWriter, Manifest};
use roentgen::classifier::Classifier;
use roentgen::classifier::loaded::Loaded;
use roentgen::classifier::native::{Config, NativeClassifier};
use roentgen::network::int8::{Conv, Layer, Network};
use roentgen::quant::QuantParams;
use support::daemon::{Place, Received};
use support::{output, roentgend, stdout, tiny_bundle, wait_for};

/// 1024 × 1024 pixels of 256 channels: more bytes than the engine takes for one layer.
fn wide() -> Network {
    let params = QuantParams { scale: 0.5, zero_point: 0 };
    let conv = |name: &str, in_channels: usize, out_channels: usize, kernel: usize| Conv {
        name: name.into(),
        in_channels,
        out_channels,
        kernel,
        weights: vec![1; out_channels * kernel * kernel * in_channels],
        weight_scales: (0..out_channels).map(|o| 0.01 + o as f32 * 1e-4).collect(),
        bias: vec![0; out_channels],
        input: params,
        output: params,
    };
    let mut trunk = vec![Layer::Conv(conv("wide", 1, 256, 3))];
    trunk.extend(vec![Layer::MaxPool2; 5]);
    Network { input_size: 1024, trunk, head: conv("head", 256, 4, 1) }.with_portable_scales()
}

#[test]
fn auto_takes_tract_where_the_engine_refuses_a_layer_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = Bundle::open(&tiny_bundle(folder.path())).unwrap();
    assert_eq!(Loaded::fastest(&tiny, &Config::default(), None).unwrap().name(), "native");

    let network = wide();
    let manifest = Manifest::for_network("wide", "1.0.0", &network);
    let writer = BundleWriter::new(manifest, &network, &[]).unwrap();
    let bundle = writer.write(&folder.path().join("wide")).unwrap();
    let refused = NativeClassifier::load(&bundle, &Config::default(), None).err().unwrap().to_string();
    assert!(refused.contains("wide") && refused.contains("bytes"), "{refused}");
    assert_eq!(Loaded::fastest(&bundle, &Config::default(), None).unwrap().name(), "onnx");
}

/// What `backends.json` says was measured of the tiny bundle.
fn measured(place: &Place) -> Vec<String> {
    let text = std::fs::read(place.path("state").join("backends.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let rows = json["entries"][0]["measured"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["largest_difference"] == 0), "{json}");
    rows.iter().map(|row| row["backend"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_daemon_measures_the_backends_once_for_a_bundle_and_remembers() {
    let Some(place) = Place::new() else { return };
    let _broker = place.broker();
    let file = place.path("state").join("backends.json");
    let run = || {
        let before = place.log().len();
        let received = Received::subscribe(place.port, "backends");
        let mut daemon = place.daemon();
        wait_for("the daemon to run", || place.log()[before..].contains("takes images from"));
        drop(received);
        daemon.signal("TERM");
        assert!(daemon.wait().success(), "{}", place.log());
        place.log()[before..].to_owned()
    };
    let first = run();
    assert!(first.contains("backends for tiny 0.0.1 (measured): native "), "{first}");
    assert_eq!(measured(&place), ["native", "onnx"]);
    let second = run();
    assert!(second.contains("backends for tiny 0.0.1 (measured before): native "), "{second}");
    std::fs::write(&file, "{").unwrap();
    let third = run();
    assert!(third.contains("the backends are measured again") && third.contains("(measured): native "), "{third}");
    assert_eq!(measured(&place), ["native", "onnx"]);
    // Other settings are measured on their own, and those from before are not forgotten.
    let config = std::fs::read_to_string(place.path("roentgend.toml")).unwrap();
    place.configure_more("[engine]\nmemory = \"small\"\n");
    let other = run();
    assert!(other.contains("(measured): native "), "{other}");
    std::fs::write(place.path("roentgend.toml"), config).unwrap();
    let again = run();
    assert!(again.contains("(measured before): native "), "{again}");
    // Doctor says it too.
    let mut doctor = roentgend();
    let said = stdout(&output(doctor.args(["doctor", "--config"]).arg(place.path("roentgend.toml"))));
    assert!(said.contains("measured here: native ") && said.contains("; auto takes "), "{said}");
}

#[test]
fn bench_prints_the_table_by_which_auto_chooses() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = tiny_bundle(folder.path());
    let all = |more: &[&str]| {
        let mut command = roentgend();
        stdout(&output(command.args(["bench", "--all", "--bundle"]).arg(&bundle).args(more)))
    };
    let json: serde_json::Value = serde_json::from_str(&all(&["--json"])).unwrap();
    let rows = json["backends"].as_array().unwrap();
    let of = |name: &str| rows.iter().find(|row| row["backend"] == name).expect(name);
    for name in ["native", "onnx"] {
        let row = of(name);
        assert_eq!(row["largest_difference"], 0, "{row}");
        assert!(row["median_ms"].as_f64() > Some(0.0) && row["load_ms"].as_f64() > Some(0.0), "{row}");
    }
    let right = ["native", "onnx", "edgetpu"];
    assert!(json["chosen"].as_str().is_some_and(|chosen| right.contains(&chosen)), "{json}");
    let table = all(&[]);
    for word in ["median ms", "native", "tract", "auto takes "] {
        assert!(table.contains(word), "{word} is missing in:\n{table}");
    }
}

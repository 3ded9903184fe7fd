//! `model.tflite` holds the integers of `model.onnx`, in operators that TFLite and the Edge TPU know, and LiteRT (TensorFlow
//! Lite's interpreter from PyPI) computes with it what the reference computes: within one step a layer by TFLite's own
//! kernels, which requantize in fixed point, and nothing else by XNNPACK, which requantizes in f32. LiteRT runs in Python
//! and is found as ONNX Runtime is (see `tests/onnx_witness.rs`).
#![cfg(feature = "host")]

#[path = "common/networks.rs"]
mod networks;
#[path = "../src/bin/roentgen_host/tflite.rs"]
mod tflite;

use networks::{Random, find_python, script, small_network, vgg16};
use roentgen::bundle::{Bundle, BundleWriter, Manifest, TFLITE_FILE};
use roentgen::network::int8::{Conv, Layer, Network};
use roentgen::network::{onnx, vgg};
use roentgen::quant::QuantParams;
use roentgen::tensor::Tensor;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const SCRIPT: &str = "tflite.py";

/// The interpreter with LiteRT; `None`, and a line that says so, where there is none.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON.get_or_init(|| find_python(SCRIPT, "ai_edge_litert and numpy")).as_deref()
}

/// What LiteRT read and computed: a folder of the files that `tflite.py` describes.
struct Run(tempfile::TempDir);

impl Run {
    /// Runs a model; `None` where LiteRT is not to be had.
    fn new(model: &[u8], images: &[Tensor<u8>], kernels: &str) -> Option<Self> {
        let python = python()?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path(TFLITE_FILE), model).expect("writable");
        let bytes: Vec<u8> = images.iter().flat_map(|image| image.data().iter().copied()).collect();
        fs::write(path("images.u8"), bytes).expect("writable");
        let mut command = Command::new(python);
        command.arg(script(SCRIPT)).arg(path(TFLITE_FILE)).arg(path("images.u8")).arg(folder.path()).arg(kernels);
        let output = command.output().expect("the interpreter ran before");
        assert!(output.status.success(), "LiteRT: {}", String::from_utf8_lossy(&output.stderr));
        Some(Self(folder))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let path = self.0.path().join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn tensor(&self, image: usize, name: &str, shape: [usize; 4]) -> Tensor<u8> {
        Tensor::new(shape, self.bytes(&format!("{image}.{name}.u8"))).expect("an output of the expected shape")
    }

    fn described(&self) -> Value {
        serde_json::from_slice(&self.bytes("model.json")).expect("JSON")
    }
}

/// The greatest difference, in steps, and how many values differ.
fn difference(found: &Tensor<u8>, expected: &Tensor<u8>) -> (u8, usize) {
    assert_eq!(found.shape(), expected.shape());
    let steps = || found.data().iter().zip(expected.data()).map(|(a, b)| a.abs_diff(*b));
    (steps().max().unwrap_or(0), steps().filter(|&step| step > 0).count())
}

/// What each layer of the trunk writes, by its name in the file, with the layer.
fn layers(network: &Network) -> Vec<(String, &Layer)> {
    let mut pools = 0;
    let named = network.trunk.iter().enumerate().map(|(index, layer)| {
        let name = match layer {
            Layer::Conv(conv) => conv.name.clone(),
            Layer::MaxPool2 => {
                pools += 1;
                format!("pool{pools}")
            }
        };
        (if index + 1 == network.trunk.len() { "features".to_owned() } else { name }, layer)
    });
    named.collect()
}

/// Runs TFLite's own kernels and holds every layer against the reference on the very input that TFLite gave the layer:
/// within a step, and for pooling equal.
fn compare_by_layer(network: &Network, images: &[Tensor<u8>], kernels: &str) {
    let Some(run) = Run::new(&tflite::write(network), images, kernels) else { return };
    for (number, image) in images.iter().enumerate() {
        let mut reads = image.clone();
        for (name, layer) in layers(network) {
            let conv = match layer {
                Layer::Conv(conv) => conv,
                Layer::MaxPool2 => {
                    let pooled = roentgen::kernels::reference::max_pool_2(&reads);
                    let found = run.tensor(number, &name, pooled.shape());
                    assert_eq!(difference(&found, &pooled), (0, 0), "{kernels}: {name}");
                    reads = found;
                    continue;
                }
            };
            let expected = conv.forward(&reads).expect("a sound layer");
            reads = within_a_step(&run.tensor(number, &name, expected.shape()), &expected, kernels, &name);
        }
        let expected = network.head.forward(&reads).expect("a sound head");
        within_a_step(&run.tensor(number, "evidence", expected.shape()), &expected, kernels, "evidence");
    }
}

fn within_a_step(found: &Tensor<u8>, expected: &Tensor<u8>, kernels: &str, name: &str) -> Tensor<u8> {
    let (steps, count) = difference(found, expected);
    let of = found.data().len();
    assert!(steps <= 1, "{kernels}: {name}: {count} of {of} values differ, by up to {steps} steps");
    // In fixed point a product is rounded twice, to 31 bits and then to whole steps: sums near a tie may go the other way.
    assert!(count <= 3 + of / 100, "{kernels}: {name}: {count} of {of} values differ");
    found.clone()
}

/// With XNNPACK the outputs are the reference's: the same multiplier in f32, the same rounding.
fn compare_with_xnnpack(network: &Network, images: &[Tensor<u8>]) {
    let Some(run) = Run::new(&tflite::write(network), images, "xnnpack") else { return };
    for (number, image) in images.iter().enumerate() {
        let (evidence, features) = network.forward(image).expect("a sound network");
        for (name, expected) in [("features", features), ("evidence", evidence)] {
            let found = run.tensor(number, name, expected.shape());
            assert_eq!(difference(&found, &expected), (0, 0), "XNNPACK: {name}");
        }
    }
}

fn images(network: &Network, seed: u64) -> Vec<Tensor<u8>> {
    let (mut random, size) = (Random(seed), network.input_size);
    let extremes = [Tensor::filled([1, size, size, 1], 0), Tensor::filled([1, size, size, 1], 255)];
    (0..3).map(|_| random.image(size)).chain(extremes).collect()
}

#[test]
fn every_layer_is_within_a_step_in_tflites_own_kernels() {
    for seed in 40..43 {
        for odd in [false, true] {
            let network = small_network(seed, odd).with_portable_scales();
            for kernels in ["plain", "reference"] {
                compare_by_layer(&network, &images(&network, seed), kernels);
            }
        }
    }
}

#[test]
fn xnnpack_gives_the_reference_exactly() {
    for seed in 50..53 {
        for odd in [false, true] {
            let network = small_network(seed, odd).with_portable_scales();
            compare_with_xnnpack(&network, &images(&network, seed));
        }
    }
}

#[test]
fn a_whole_vgg16_agrees() {
    let network = vgg16(3).with_portable_scales();
    let image = [Random(4).image(vgg::INPUT_SIZE)];
    compare_with_xnnpack(&network, &image);
    compare_by_layer(&network, &image, "plain");
}

#[test]
fn the_file_holds_the_integers_of_the_onnx_file_and_no_other_operator() {
    for odd in [false, true] {
        let network = small_network(60, odd).with_portable_scales();
        let read = onnx::read(&onnx::write(&network)).expect("what was written reads");
        let Some(run) = Run::new(&tflite::write(&network), &images(&network, 1), "plain") else { return };
        let model = run.described();

        // The operators, each with its tensors, in the order of the network.
        let mut expected = Vec::new();
        let mut reads = "image".to_owned();
        let conv = |conv: &Conv, reads: &str, writes: &str| {
            let constants = ["weight", "bias"].map(|what| format!("{}.{what}", conv.name));
            serde_json::json!({"kind": "CONV_2D", "reads": [reads, constants[0], constants[1]], "writes": [writes]})
        };
        for (name, layer) in layers(&read) {
            expected.push(match layer {
                Layer::Conv(layer) => conv(layer, &reads, &name),
                Layer::MaxPool2 => serde_json::json!({"kind": "MAX_POOL_2D", "reads": [reads], "writes": [name]}),
            });
            reads = name;
        }
        expected.push(conv(&read.head, "features", "evidence"));
        assert_eq!(model["operations"], Value::Array(expected));
        assert_eq!(
            (&model["inputs"], &model["outputs"]),
            (&["image"][..].into(), &["evidence", "features"][..].into())
        );
        let signature = serde_json::json!({"inputs": ["image"], "outputs": ["evidence", "features"]});
        assert_eq!(model["signatures"]["serving_default"], signature);

        // Constants and parameters, those of the ONNX file.
        let tensor = |name: &str| &model["tensors"][name];
        for conv in read.convolutions() {
            let (weight, bias) = (format!("{}.weight", conv.name), format!("{}.bias", conv.name));
            let weights: Vec<u8> = conv.weights.iter().map(|&w| w as u8).collect();
            assert_eq!(run.bytes(&format!("{weight}.bin")), weights, "{weight}");
            let biases: Vec<u8> = conv.bias.iter().flat_map(|b| b.to_le_bytes()).collect();
            assert_eq!(run.bytes(&format!("{bias}.bin")), biases, "{bias}");
            let product: Vec<f32> = conv.weight_scales.iter().map(|scale| conv.input.scale * scale).collect();
            for (name, kind, scales) in [(&weight, "int8", &conv.weight_scales), (&bias, "int32", &product)] {
                let found = tensor(name);
                assert_eq!((found["type"].as_str(), &found["axis"]), (Some(kind), &0.into()), "{name}");
                assert_eq!(&numbers(&found["scales"]), scales, "{name}");
                assert_eq!(numbers(&found["zero_points"]), vec![0.0; conv.out_channels], "{name}");
            }
        }
        let activation = |name: &str, params: QuantParams| {
            let found = tensor(name);
            assert_eq!(found["type"], "int8", "{name}");
            assert_eq!(numbers(&found["scales"]), [params.scale], "{name}");
            assert_eq!(numbers(&found["zero_points"]), [f32::from(params.zero_point) - 128.0], "{name}");
        };
        activation("image", read.input());
        let mut params = read.input();
        for (name, layer) in layers(&read) {
            if let Layer::Conv(conv) = layer {
                params = conv.output;
            }
            activation(&name, params);
        }
        activation("evidence", read.head.output);
    }
}

/// JSON numbers, each an f32 that Python wrote as a double.
fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number") as f32).collect()
}

#[test]
fn a_bundles_golden_vectors_are_what_its_tflite_file_gives() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let network = small_network(70, false).with_portable_scales();
    let manifest = Manifest::for_network("witness", "1", &network);
    let writer = BundleWriter::new(manifest, &network, &images(&network, 2)).expect("a sound network");
    let writer = writer.file(TFLITE_FILE, tflite::write(&network));
    let bundle = writer.write(&folder.path().join("bundle")).expect("writable");
    let golden = bundle.golden().expect("golden vectors");
    let images: Vec<_> = golden.iter().map(|vector| vector.image.clone()).collect();
    let model = bundle.read(TFLITE_FILE).expect("the manifest lists it");
    let Some(run) = Run::new(&model, &images, "xnnpack") else { return };
    let mut next = 0;
    let tested = bundle.self_test(0, |_| {
        let (evidence, features) = (golden[next].evidence.shape(), golden[next].features.shape());
        next += 1;
        Ok((run.tensor(next - 1, "evidence", evidence), run.tensor(next - 1, "features", features)))
    });
    assert_eq!(tested.expect("LiteRT agrees").largest_difference, 0);
}

#[test]
fn the_committed_bundles_tflite_file_gives_its_golden_vectors() {
    let bundle = Bundle::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cxr-vgg16")).expect("it opens");
    let network = bundle.network().expect("its network is sound");
    let written = tflite::write(&network);
    if bundle.manifest().files.contains_key(TFLITE_FILE) {
        assert!(
            bundle.read(TFLITE_FILE).expect("listed") == written,
            "{TFLITE_FILE} holds other integers than model.onnx"
        );
    }
    let golden = bundle.golden().expect("golden vectors");
    let images: Vec<_> = golden.iter().map(|vector| vector.image.clone()).collect();
    for kernels in ["xnnpack", "plain"] {
        let Some(run) = Run::new(&written, &images, kernels) else { return };
        for (number, vector) in golden.iter().enumerate() {
            for (name, expected) in [("features", &vector.features), ("evidence", &vector.evidence)] {
                let (steps, count) = difference(&run.tensor(number, name, expected.shape()), expected);
                eprintln!("{kernels}: {name} {number}: {count} differ, by up to {steps} steps");
                // Fourteen layers add up what a step in one of them becomes in the next. Measured: 3 in the features.
                let allowed = if kernels == "xnnpack" { 0 } else { 6 };
                assert!(steps <= allowed, "{kernels}: {name} {number}: up to {steps} steps");
            }
        }
    }
}

#[test]
fn the_file_is_sound_and_its_constants_are_aligned() {
    for odd in [false, true] {
        let network = small_network(80, odd);
        let file = tflite::write(&network);
        // Checks every offset of the file.
        let model = tract_tflite::tflite::root_as_model(&file).expect("a sound TFLite file");
        assert!(tract_tflite::tflite::model_buffer_has_identifier(&file));
        assert!(model.description().is_some_and(|text| text.contains("not a diagnosis")));
        let buffers = model.buffers().expect("buffers");
        assert_eq!(buffers.len(), 1 + 2 * network.convolutions().count());
        for (index, data) in buffers.iter().filter_map(|buffer| buffer.data()).enumerate() {
            let offset = data.bytes().as_ptr() as usize - file.as_ptr() as usize;
            assert_eq!(offset % 16, 0, "buffer {index}");
        }
    }
}

#[test]
fn an_operator_of_somebodys_own_stands_before_the_network() {
    let network = small_network(9, false);
    let file = tflite::write_behind(&network, "own-op");
    let model = tract_tflite::tflite::root_as_model(&file).unwrap();
    let codes = model.operator_codes().unwrap();
    let own = codes.iter().position(|code| code.custom_code() == Some("own-op")).expect("an operator of its own");
    let graph = model.subgraphs().unwrap().get(0);
    let operators = graph.operators().unwrap();
    // It, the trunk, and the head.
    assert_eq!((operators.len(), operators.get(0).opcode_index()), (network.trunk.len() + 2, own as u32));
    assert_eq!(operators.get(0).inputs().unwrap().get(0), graph.inputs().unwrap().get(0));
    assert_eq!(operators.get(1).inputs().unwrap().get(0), operators.get(0).outputs().unwrap().get(0));
    let plain = tflite::write(&network);
    let codes = tract_tflite::tflite::root_as_model(&plain).unwrap().operator_codes().unwrap();
    assert!(codes.iter().all(|code| code.custom_code().is_none()));
}

//! The integers are the same in ONNX Runtime, in the reference forward pass and in the backends `native` and `onnx` (tract):
//! bit for bit, on both outputs. ONNX Runtime is the outside witness; it runs in Python (`ROENTGEN_PYTHON`, else
//! `.cache/venv/bin/python`, else `python3`). Where it cannot be imported the comparison with it is skipped and says so,
//! unless `CI` or `ROENTGEN_REQUIRE_PEERS` is set.
#![cfg(feature = "onnx")]

mod common;
#[path = "common/networks.rs"]
mod networks;

use networks::{Random, find_python, script, small_network, vgg16};
use roentgen::bundle::{Bundle, BundleWriter, Manifest};
use roentgen::classifier::native::{self, NativeClassifier};
use roentgen::classifier::onnx::OnnxClassifier;
use roentgen::kernels::available;
use roentgen::network::int8::{Layer, Network};
use roentgen::network::onnx;
use roentgen::network::vgg;
use roentgen::tensor::Tensor;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The script that runs ONNX Runtime.
const SCRIPT: &str = "onnx_runtime.py";

/// The interpreter with ONNX Runtime; `None`, and a line that says so, where there is none.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON.get_or_init(|| find_python(SCRIPT, "onnxruntime, onnx and numpy")).as_deref()
}

type Outputs = (Tensor<u8>, Tensor<u8>);

/// What ONNX Runtime gives for the images; `None` where it is not to be had.
fn onnx_runtime(model: &[u8], images: &[Tensor<u8>], shapes: ([usize; 4], [usize; 4])) -> Option<Vec<Outputs>> {
    let python = python()?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("model.onnx"), model).expect("writable");
    let bytes: Vec<u8> = images.iter().flat_map(|image| image.data().iter().copied()).collect();
    fs::write(path("images.u8"), bytes).expect("writable");
    let mut command = Command::new(python);
    let output = command.arg(script(SCRIPT)).arg(path("model.onnx")).arg(path("images.u8")).arg(folder.path()).output();
    let output = output.expect("the interpreter ran before");
    assert!(output.status.success(), "ONNX Runtime: {}", String::from_utf8_lossy(&output.stderr));
    let read = |index: usize, name: &str, shape| {
        let bytes = fs::read(path(&format!("{index}.{name}.u8"))).expect("an output");
        Tensor::new(shape, bytes).expect("an output of the expected shape")
    };
    Some(
        (0..images.len()).map(|index| (read(index, "evidence", shapes.0), read(index, "features", shapes.1))).collect(),
    )
}

/// Fails naming the layer's output and how far off it is.
fn assert_same(who: &str, what: &str, found: &Tensor<u8>, expected: &Tensor<u8>) {
    assert_eq!(found.shape(), expected.shape(), "{who}: {what}");
    let pairs = || found.data().iter().zip(expected.data());
    let different = pairs().filter(|(a, b)| a != b).count();
    let greatest = pairs().map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
    assert_eq!(different, 0, "{who}: {different} of {} {what} values differ, by up to {greatest}", found.data().len());
}

/// That the outputs are not so uniform that equality says little: several values, both inside the range.
fn assert_telling(outputs: &Outputs) {
    for tensor in [&outputs.0, &outputs.1] {
        let values: std::collections::BTreeSet<u8> = tensor.data().iter().copied().collect();
        assert!(values.len() > 16, "only {} different values", values.len());
    }
}

/// What the reference forward pass gives.
fn reference(network: &Network, images: &[Tensor<u8>]) -> Vec<Outputs> {
    images.iter().map(|image| network.forward(image).expect("a sound network")).collect()
}

/// Compares all on the images. The bundle has portable scales, so the network compared has them too.
fn compare(network: Network, images: &[Tensor<u8>]) {
    let network = &network.with_portable_scales();
    let reference = reference(network, images);
    assert_telling(&reference[0]);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let manifest = Manifest::for_network("witness", "1", network);
    let writer = BundleWriter::new(manifest, network, &[]).expect("a sound network");
    let bundle = writer.write(&folder.path().join("bundle")).expect("writable");
    let tract = OnnxClassifier::load(&bundle).expect("tract takes it");
    for (image, expected) in images.iter().zip(&reference) {
        let (evidence, features) = tract.run(image).expect("tract runs it");
        assert_same("tract", "features", &features, &expected.1);
        assert_same("tract", "evidence", &evidence, &expected.0);
    }

    for kernels in available() {
        let config = native::Config { kernel: kernels.name.into(), ..native::Config::default() };
        let mut native = NativeClassifier::load(&bundle, &config, None).expect("the engine takes it");
        for (image, expected) in images.iter().zip(&reference) {
            let (evidence, features) = native.run(image).expect("it runs");
            assert_same(kernels.name, "features", &features, &expected.1);
            assert_same(kernels.name, "evidence", &evidence, &expected.0);
        }
    }

    compare_with_onnx_runtime(network, images);
}

/// Compares the reference with ONNX Runtime.
fn compare_with_onnx_runtime(network: &Network, images: &[Tensor<u8>]) {
    let reference = reference(network, images);
    let shapes = (reference[0].0.shape(), reference[0].1.shape());
    let Some(witness) = onnx_runtime(&onnx::write(network), images, shapes) else { return };
    for (found, expected) in witness.iter().zip(&reference) {
        assert_same("ONNX Runtime", "features", &found.1, &expected.1);
        assert_same("ONNX Runtime", "evidence", &found.0, &expected.0);
    }
}

#[test]
fn small_networks_with_odd_zero_points_agree() {
    for seed in 0..4 {
        let network = small_network(seed, true);
        let mut random = Random(seed + 100);
        let size = network.input_size;
        let extremes = [Tensor::filled([1, size, size, 1], 0), Tensor::filled([1, size, size, 1], 255)];
        let images: Vec<_> = (0..3).map(|_| random.image(size)).chain(extremes).collect();
        compare(network, &images);
    }
}

#[test]
fn small_networks_as_they_are_trained_agree() {
    for seed in 6..9 {
        let network = small_network(seed, false);
        let mut random = Random(seed + 100);
        let images: Vec<_> = (0..3).map(|_| random.image(network.input_size)).collect();
        compare(network, &images);
    }
}

#[test]
fn scales_that_are_not_portable_are_still_what_onnx_runtime_computes() {
    for seed in 20..24 {
        let network = small_network(seed, seed % 2 == 0);
        assert_ne!(network, network.clone().with_portable_scales(), "the case must be one");
        let mut random = Random(seed + 100);
        let images: Vec<_> = (0..3).map(|_| random.image(network.input_size)).collect();
        compare_with_onnx_runtime(&network, &images);
    }
}

#[test]
fn one_weight_scale_for_all_channels_agrees() {
    for seed in 30..33 {
        let mut network = small_network(seed, seed % 2 == 0);
        for layer in &mut network.trunk {
            if let Layer::Conv(conv) = layer {
                conv.weight_scales = vec![conv.weight_scales[0]; conv.out_channels];
            }
        }
        let mut random = Random(seed + 100);
        let images: Vec<_> = (0..8).map(|_| random.image(network.input_size)).collect();
        compare(network, &images);
    }
}

#[test]
fn a_whole_vgg16_agrees() {
    compare(vgg16(1), &[Random(2).image(vgg::INPUT_SIZE)]);
}

#[test]
fn the_committed_bundle_gives_its_golden_vectors_everywhere() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cxr-vgg16");
    let bundle = Bundle::open(&dir).expect("the committed bundle opens");
    let network = bundle.network().expect("its network is sound");
    let tract = OnnxClassifier::load(&bundle).expect("tract takes it");
    let exact = bundle.self_test(0, |image| tract.run(image).map_err(|error| error.to_string())).expect("tract agrees");
    assert_eq!(exact.largest_difference, 0);

    let golden = bundle.golden().expect("golden vectors");
    let images: Vec<_> = golden.iter().map(|vector| vector.image.clone()).collect();
    let (evidence, features) = network.forward(&images[0]).expect("a sound network");
    assert_same("the reference", "features", &features, &golden[0].features);
    assert_same("the reference", "evidence", &evidence, &golden[0].evidence);
    let shapes = (evidence.shape(), features.shape());
    let model = bundle.model_onnx().expect("model.onnx");
    let Some(witness) = onnx_runtime(&model, &images, shapes) else { return };
    for (found, expected) in witness.iter().zip(&golden) {
        assert_same("ONNX Runtime", "features", &found.1, &expected.features);
        assert_same("ONNX Runtime", "evidence", &found.0, &expected.evidence);
    }
}

#[test]
fn the_committed_bundle_agrees_on_real_radiographs() {
    let files = common::shared_files("radiographs/test/covid", ".png");
    let more = common::shared_files("radiographs/test/normal", ".png");
    // A few of each: all five hundred were compared once, and this repeats the comparison at every run.
    let images: Vec<Tensor<u8>> = files
        .iter()
        .step_by(15)
        .chain(more.iter().step_by(20))
        .map(|path| {
            let radiograph = roentgen::radiograph::open(path, &Default::default(), &common::key())
                .unwrap_or_else(|refusal| panic!("{}: {refusal}", path.display()));
            roentgen::preprocess::preprocess(&radiograph)
        })
        .collect();
    if images.is_empty() {
        return;
    }
    assert_eq!(images.len(), 20);
    let bundle = Bundle::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cxr-vgg16")).unwrap();
    let classifier = OnnxClassifier::load(&bundle).unwrap();
    let tract: Vec<Outputs> = images.iter().map(|image| classifier.run(image).unwrap()).collect();
    let shapes = (tract[0].0.shape(), tract[0].1.shape());
    let Some(witness) = onnx_runtime(&bundle.model_onnx().unwrap(), &images, shapes) else { return };
    for (found, expected) in tract.iter().zip(&witness) {
        assert_same("tract", "features", &found.1, &expected.1);
        assert_same("tract", "evidence", &found.0, &expected.0);
    }
}

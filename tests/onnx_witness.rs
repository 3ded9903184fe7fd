//! The integers are the same in ONNX Runtime, in the reference forward pass and in the `onnx` backend (tract): bit for
//! bit, on both outputs. ONNX Runtime is the outside witness; it runs in Python (`ROENTGEN_PYTHON`, else
//! `.cache/venv/bin/python`, else `python3`). Where it cannot be imported the comparison with it is skipped and says so,
//! unless `CI` or `ROENTGEN_REQUIRE_PEERS` is set.

mod common;

use roentgen::bundle::{Bundle, BundleWriter, Manifest};
use roentgen::classifier::onnx::OnnxClassifier;
use roentgen::network::int8::{Conv, Layer, Network};
use roentgen::network::onnx;
use roentgen::network::vgg::{self, Step};
use roentgen::quant::QuantParams;
use roentgen::tensor::Tensor;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Pseudorandom numbers (splitmix64), the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// Bytes with many extremes among them.
    fn byte(&mut self) -> u8 {
        match self.next() % 8 {
            0 => 0,
            1 => 255,
            2 => 128,
            _ => self.next() as u8,
        }
    }

    /// Weights with mean 0, so that deep networks neither die nor saturate, and many extremes.
    fn weight(&mut self) -> i8 {
        match self.next() % 8 {
            0 => 127,
            1 => -127,
            2 => 0,
            _ => self.next() as i8,
        }
    }

    /// An image of noise.
    fn image(&mut self, size: usize) -> Tensor<u8> {
        Tensor::new([1, size, size, 1], (0..size * size).map(|_| self.byte()).collect()).expect("the shape fits")
    }

    /// A convolution whose output uses the whole range: the multiplier is chosen for the usual size of its sums.
    fn conv(&mut self, name: &str, channels: (usize, usize), kernel: usize, ends: (QuantParams, QuantParams)) -> Conv {
        let ((in_channels, out_channels), (input, output)) = (channels, ends);
        let taps = kernel * kernel * in_channels;
        let weights: Vec<i8> = (0..out_channels * taps).map(|_| self.weight()).collect();
        let usual = 80.0 * 90.0 * (taps as f32).sqrt();
        let target = output.scale * 90.0 / (usual * input.scale);
        let weight_scales = (0..out_channels).map(|_| target * (0.5 + self.unit())).collect();
        let bias = (0..out_channels).map(|_| ((self.unit() - 0.5) * usual) as i32).collect();
        Conv { name: name.into(), in_channels, out_channels, kernel, weights, weight_scales, bias, input, output }
    }
}

/// A small network of the VGG kind; `odd` gives it zero points that are not 0 inside the trunk, and sizes that no vector
/// width divides.
fn small_network(seed: u64, odd: bool) -> Network {
    let mut random = Random(seed);
    let point = |zero_point: u8| if odd { zero_point } else { 0 };
    let params: Vec<QuantParams> = [0, 3, 117, 255, 1]
        .map(|zero_point| QuantParams { scale: 0.01 + random.unit(), zero_point: point(zero_point) })
        .to_vec();
    let logits = QuantParams { scale: 0.07, zero_point: 131 };
    let channels = if odd { [1, 5, 7, 33, 19] } else { [1, 8, 16, 32, 64] };
    let mut trunk = Vec::new();
    for index in 0..4 {
        let ends = (params[index], params[index + 1]);
        let name = format!("block{}_conv1", index + 1);
        trunk.push(Layer::Conv(random.conv(&name, (channels[index], channels[index + 1]), 3, ends)));
        if index % 2 == 1 {
            trunk.push(Layer::MaxPool2);
        }
    }
    let head = random.conv("head", (channels[4], 4), 1, (params[4], logits));
    Network { input_size: if odd { 27 } else { 32 }, trunk, head }
}

/// VGG16 with random weights.
fn vgg16(seed: u64) -> Network {
    let mut random = Random(seed);
    let mut before = QuantParams { scale: 1.0, zero_point: 0 };
    let mut trunk = Vec::new();
    for step in vgg::TRUNK {
        trunk.push(match step {
            Step::MaxPool2 => Layer::MaxPool2,
            Step::Conv(name, in_channels, out_channels) => {
                let after = QuantParams { scale: 0.02 + random.unit(), zero_point: 0 };
                let conv = random.conv(name, (in_channels, out_channels), 3, (before, after));
                before = after;
                Layer::Conv(conv)
            }
        });
    }
    let logits = QuantParams { scale: 0.07, zero_point: 120 };
    let head = random.conv("head", (vgg::FEATURES, 4), 1, (before, logits));
    Network { input_size: vgg::INPUT_SIZE, trunk, head }
}

/// The interpreter with ONNX Runtime; `None`, and a line that says so, where there is none.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON.get_or_init(find_python).as_deref()
}

fn find_python() -> Option<PathBuf> {
    let in_tree = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/venv/bin/python");
    let python = std::env::var_os("ROENTGEN_PYTHON").map(PathBuf::from);
    let python = python.unwrap_or_else(|| if in_tree.exists() { in_tree } else { "python3".into() });
    let imported = Command::new(&python).arg(script()).output();
    if imported.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| std::env::var_os(name).is_some());
    let message = format!("{} cannot import onnxruntime, onnx and numpy", python.display());
    assert!(!required, "{message}, and the witness is required here");
    eprintln!("SKIPPED the comparison with ONNX Runtime: {message}");
    None
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/witness/onnx_runtime.py")
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
    let output = command.arg(script()).arg(path("model.onnx")).arg(path("images.u8")).arg(folder.path()).output();
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

/// Compares all three on the images. The bundle has portable scales, so the network compared has them too.
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

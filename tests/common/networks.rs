//! What the witnesses of the integers share: pseudorandom networks of the VGG kind, and how a Python peer is found. Not
//! tests.
#![allow(dead_code, reason = "every test file uses its own part of this")]

use roentgen::network::int8::{Conv, Layer, Network};
use roentgen::network::vgg::{self, Step};
use roentgen::quant::QuantParams;
use roentgen::tensor::Tensor;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Pseudorandom numbers (splitmix64), the same on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// Bytes with many extremes among them.
    pub(crate) fn byte(&mut self) -> u8 {
        match self.next() % 8 {
            0 => 0,
            1 => 255,
            2 => 128,
            _ => self.next() as u8,
        }
    }

    /// Weights with mean 0, so that deep networks neither die nor saturate, and many extremes.
    pub(crate) fn weight(&mut self) -> i8 {
        match self.next() % 8 {
            0 => 127,
            1 => -127,
            2 => 0,
            _ => self.next() as i8,
        }
    }

    /// An image of noise.
    pub(crate) fn image(&mut self, size: usize) -> Tensor<u8> {
        Tensor::new([1, size, size, 1], (0..size * size).map(|_| self.byte()).collect()).expect("the shape fits")
    }

    /// A convolution whose output uses the whole range: the multiplier is chosen for the usual size of its sums.
    pub(crate) fn conv(
        &mut self,
        name: &str,
        channels: (usize, usize),
        kernel: usize,
        ends: (QuantParams, QuantParams),
    ) -> Conv {
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
pub(crate) fn small_network(seed: u64, odd: bool) -> Network {
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
pub(crate) fn vgg16(seed: u64) -> Network {
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

/// The interpreter that runs a script of `tests/witness`: `ROENTGEN_PYTHON`, else `.cache/venv/bin/python`, else
/// `python3`. Each script imports its packages and ends when it is given no argument; where that fails this says so and
/// gives `None`, unless `CI` or `ROENTGEN_REQUIRE_PEERS` is set.
pub(crate) fn find_python(script: &str, packages: &str) -> Option<PathBuf> {
    let in_tree = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/venv/bin/python");
    let python = std::env::var_os("ROENTGEN_PYTHON").map(PathBuf::from);
    let python = python.unwrap_or_else(|| if in_tree.exists() { in_tree } else { "python3".into() });
    let imported = Command::new(&python).arg(self::script(script)).output();
    if imported.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| std::env::var_os(name).is_some());
    let message = format!("{} cannot import {packages}", python.display());
    assert!(!required, "{message}, and the witness is required here");
    eprintln!("SKIPPED the comparison with {packages}: {message}");
    None
}

/// A script of `tests/witness`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/witness").join(name)
}

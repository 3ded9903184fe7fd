//! Fuzz target: see `targets/network.rs`.

#![no_main]

#[path = "../targets/network.rs"]
mod target;

use roentgen::network::int8::{Conv, Layer, Network};
use roentgen::network::onnx;
use roentgen::quant::QuantParams;

/// Writes the one seed, a network of a few channels, into `$ROENTGEN_FUZZ_SEEDS`.
fn write_seed() {
    let Some(folder) = std::env::var_os("ROENTGEN_FUZZ_SEEDS") else { return };
    let conv = |name: &str, channels: [usize; 2], kernel: usize, input: QuantParams, output: QuantParams| Conv {
        name: name.into(),
        in_channels: channels[0],
        out_channels: channels[1],
        kernel,
        weights: vec![3; channels[0] * channels[1] * kernel * kernel],
        weight_scales: vec![0.002; channels[1]],
        bias: vec![40; channels[1]],
        input,
        output,
    };
    let image = QuantParams { scale: 1.0 / 255.0, zero_point: 0 };
    let activation = QuantParams { scale: 0.02, zero_point: 0 };
    let mut trunk = vec![Layer::Conv(conv("block1_conv1", [1, 4], 3, image, activation))];
    trunk.extend([Layer::MaxPool2, Layer::MaxPool2, Layer::MaxPool2, Layer::MaxPool2, Layer::MaxPool2]);
    let head = conv("head", [4, 4], 1, activation, QuantParams { scale: 0.05, zero_point: 128 });
    let network = Network { input_size: 224, trunk, head };
    std::fs::write(std::path::Path::new(&folder).join("tiny"), onnx::write(&network)).expect("a scratch folder");
}

libfuzzer_sys::fuzz_target!(init: write_seed(), |bytes: &[u8]| target::run(bytes));

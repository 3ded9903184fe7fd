//! A model bundle that judges in a millisecond, and phantoms as PNG: for tests of the program and for `tests/vm`. Not a test.

use roentgen::bundle::{BundleWriter, Manifest};
use roentgen::network::int8::{Conv, Layer, Network};
use roentgen::preprocess::preprocess;
use roentgen::quant::QuantParams;
use roentgen::radiograph::phantom;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// A network of the right shapes and few channels: 224 × 224 in, 7 × 7 out, a millisecond an image.
fn tiny_network() -> Network {
    let activation = QuantParams { scale: 0.02, zero_point: 0 };
    let conv = |name: &str, in_channels: usize, out_channels: usize, kernel: usize, input, output| {
        let count = out_channels * kernel * kernel * in_channels;
        Conv {
            name: name.into(),
            in_channels,
            out_channels,
            kernel,
            weights: (0..count).map(|i| ((i * 89 + 13) % 251) as u8 as i8).collect(),
            weight_scales: vec![0.002; out_channels],
            bias: (0..out_channels).map(|i| i as i32 * 40).collect(),
            input,
            output,
        }
    };
    let mut trunk =
        vec![Layer::Conv(conv("block1_conv1", 1, 4, 3, QuantParams { scale: 1.0 / 255.0, zero_point: 0 }, activation))];
    trunk.extend([Layer::MaxPool2, Layer::MaxPool2, Layer::MaxPool2, Layer::MaxPool2, Layer::MaxPool2]);
    let logits = QuantParams { scale: 0.05, zero_point: 128 };
    Network { input_size: 224, trunk, head: conv("head", 4, 4, 1, activation, logits) }
}

/// Writes the tiny bundle, unsigned, into `folder` and returns its directory.
pub(crate) fn tiny_bundle(folder: &Path) -> PathBuf {
    let directory = folder.join("tiny");
    tiny_writer("0.0.1").write(&directory).expect("a bundle");
    directory
}

/// The tiny bundle in some version, not written yet.
pub(crate) fn tiny_writer(version: &str) -> BundleWriter {
    let network = tiny_network();
    let golden = preprocess(&phantom::radiograph(1, 224));
    let manifest = Manifest::for_network("tiny", version, &network);
    BundleWriter::new(manifest, &network, &[golden]).expect("a sound network").file("README.md", b"A test.".to_vec())
}

/// A phantom as PNG; every seed is another image.
pub(crate) fn png(seed: u64) -> Vec<u8> {
    let size = 96;
    let grey = image::GrayImage::from_raw(size, size, phantom::phantom(seed, size)).expect("size² pixels");
    let mut bytes = Vec::new();
    grey.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).expect("an encoder");
    bytes
}

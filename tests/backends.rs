//! The promise: `backend = "auto"` takes the engine, and tract where a layer is too large for it; `"native"` then says which
//! layer, and why. Loads backends; runs none.
#![cfg(feature = "onnx")]

mod support;

use roentgen::bundle::{Bundle, BundleWriter, Manifest};
use roentgen::classifier::Classifier;
use roentgen::classifier::loaded::Loaded;
use roentgen::classifier::native::{Config, NativeClassifier};
use roentgen::network::int8::{Conv, Layer, Network};
use roentgen::quant::QuantParams;
use support::tiny_bundle;

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

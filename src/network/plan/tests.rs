//! What a plan promises: a step a layer, sizes that fit, refusals with a name.

use super::*;
use crate::kernels::available;
use crate::network::int8::{Conv, Layer, Network};
use crate::network::vgg::{self, Step as Vgg};
use crate::quant::QuantParams;

/// VGG16 with small weights, all the same.
fn vgg16() -> Network {
    let params = QuantParams { scale: 1.0, zero_point: 0 };
    let conv = |name: &str, in_channels: usize, out_channels: usize, kernel: usize| Conv {
        name: name.into(),
        in_channels,
        out_channels,
        kernel,
        weights: vec![1; out_channels * in_channels * kernel * kernel],
        weight_scales: vec![0.001; out_channels],
        bias: vec![0; out_channels],
        input: params,
        output: params,
    };
    let trunk = vgg::TRUNK.iter().map(|step| match step {
        Vgg::MaxPool2 => Layer::MaxPool2,
        Vgg::Conv(name, in_channels, out_channels) => Layer::Conv(conv(name, *in_channels, *out_channels, 3)),
    });
    Network { input_size: vgg::INPUT_SIZE, trunk: trunk.collect(), head: conv("head", 512, 4, 1) }
}

#[test]
fn vgg16_is_planned_layer_by_layer_within_its_memory() {
    let network = vgg16();
    for kernels in available() {
        for threads in [1, 2, 4] {
            let mut sizes = Vec::new();
            for memory in [Memory::Small, Memory::Balanced, Memory::Fast] {
                let plan = Plan::new(
                    &Outline::of(&network).expect("a sound network"),
                    Options { memory, ..Options::new(kernels, threads) },
                )
                .expect("a plan");
                assert_eq!(plan.steps.len(), 14, "{plan}");
                // VGG16's convolutions, two of whose three input channels are not there, and the head.
                assert_eq!(plan.macs(), 15_346_630_656 - 2 * 9 * 64 * 224 * 224 + 7 * 7 * 512 * 4, "{plan}");
                sizes.push(plan.bytes());
            }
            assert!(sizes.is_sorted(), "{}: {sizes:?}", kernels.name);
            // The rest of the program takes some 14 MB.
            assert!(threads > 2 || sizes[0] < 27 << 20 && sizes[1] < 61 << 20, "{}: {sizes:?}", kernels.name);
        }
        let unfused = Plan::new(
            &Outline::of(&network).expect("a sound network"),
            Options { fuse_pool: false, ..Options::new(kernels, 1) },
        )
        .expect("a plan");
        let names: Vec<&str> = unfused.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!((names.len(), names[2], names[18]), (19, "pool1", "head"), "{names:?}");
    }
}

#[test]
fn a_layer_that_is_too_large_is_refused_by_its_name() {
    let mut network = vgg16();
    network.input_size = 1024;
    let kernels = available().next().expect("the portable ones at least");
    assert!(Plan::new(&Outline::of(&network).expect("a sound network"), Options::new(kernels, 1)).is_ok());
    let Some(Layer::Conv(first)) = network.trunk.first_mut() else { panic!("a convolution") };
    first.out_channels = 512;
    (first.weights, first.bias, first.weight_scales) = (vec![1; 512 * 9], vec![0; 512], vec![1.0; 512]);
    network.trunk.truncate(1);
    let error = Plan::new(&Outline::of(&network).expect("a sound network"), Options::new(kernels, 1))
        .expect_err("1024² × 512 bytes");
    assert!(error.to_string().starts_with("node block1_conv1: "), "{error}");
}

#[test]
fn working_memory_is_bounded_whatever_the_image() {
    let mut network = vgg16();
    network.input_size = 1024;
    for kernels in available() {
        for memory in [Memory::Small, Memory::Balanced, Memory::Fast] {
            let options = Options { memory, ..Options::new(kernels, 2) };
            let plan = Plan::new(&Outline::of(&network).expect("a sound network"), options).expect("a plan");
            let Scratch { shared_v, v, m, u, rows } = plan.scratch;
            assert!(shared_v + v + m + u + rows < 40 << 20, "{plan}");
        }
    }
}

#[test]
fn weights_that_winograd_would_not_get_right_are_given_to_direct_kernels() {
    let mut network = vgg16();
    let Some(Layer::Conv(conv)) = network.trunk.get_mut(8) else { panic!("block3_conv3") };
    // One output channel: 2304 products of 255 and 127 exceed 2²⁵.
    conv.weights[..9 * 256].fill(127);
    conv.weight_scales[0] = 1e-6;
    let kernels = available().next().expect("the portable ones at least");
    let plan = Plan::new(&Outline::of(&network).expect("a sound network"), Options::new(kernels, 1)).expect("a plan");
    let step = plan.steps.iter().find(|step| step.name == "block3_conv3").expect("the layer");
    let four = |work: &Work| matches!(work, Work::Winograd(tiling) if tiling.winograd.tile == 4);
    assert!(!four(&step.work), "{plan}");
}

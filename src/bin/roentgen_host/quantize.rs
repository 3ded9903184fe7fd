//! Float model and ranges → integers: per-channel symmetric int8 weights, u8 activations, i32 biases. Not the choice of
//! the ranges (see `calibrate`), nor of the weights' rounding (see `round`), nor of the biases (see `correct`).

use crate::calibrate::Ranges;
use crate::weights::{FloatConv, FloatModel};
use roentgen::network::int8::{Conv, Layer, Network};
use roentgen::network::vgg::INPUT_SIZE;
use roentgen::quant::QuantParams;

/// The input is the image's bytes: grey level g is the integer g.
pub(crate) const INPUT: QuantParams = QuantParams { scale: 1.0, zero_point: 0 };

/// Greatest magnitude of a bias, in accumulator steps: 2²³. With it no accumulator leaves the range in which f32 counts
/// every integer by much, and none comes near the end of i32.
const GREATEST_BIAS: f64 = 8_388_608.0;

/// The integer weights of one convolution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weights {
    /// In the order of [`FloatConv::weights`]: output channel, input channel, kernel row, kernel column.
    pub(crate) steps: Vec<i8>,
    /// The real size of a step, one per output channel.
    pub(crate) scales: Vec<f32>,
}

impl Weights {
    /// Each weight at the nearest integer. Each output channel has its own scale, by which its greatest weight becomes
    /// ±127.
    pub(crate) fn nearest(conv: &FloatConv, input: QuantParams) -> Self {
        let scales = weight_scales(conv, input);
        let kernels = conv.weights.chunks_exact(per_channel(conv)).zip(&scales);
        // Within ±127 but for the last bit of a quotient, which rounding drops; `as` saturates.
        let steps = kernels.flat_map(|(kernel, scale)| kernel.iter().map(move |w| (w / scale).round() as i8)).collect();
        Self { steps, scales }
    }

    /// The convolution with every weight at the real number that its integer stands for.
    pub(crate) fn real(&self, conv: &FloatConv) -> FloatConv {
        let kernels = self.steps.chunks_exact(per_channel(conv)).zip(&self.scales);
        let weights = kernels.flat_map(|(kernel, scale)| kernel.iter().map(move |&q| f32::from(q) * scale)).collect();
        FloatConv { weights, ..conv.clone() }
    }
}

/// Weights of one output channel.
fn per_channel(conv: &FloatConv) -> usize {
    (conv.in_channels * conv.kernel * conv.kernel).max(1)
}

/// A convolution on its way to integers: its weights are chosen, its bias is a real number still.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rounded {
    /// Name, shape and bias.
    pub(crate) conv: FloatConv,
    /// Its weights.
    pub(crate) weights: Weights,
}

/// The integers of the whole model; `model` says where the poolings are.
pub(crate) fn quantize(model: &FloatModel, trunk: &[Rounded], head: &Rounded, ranges: &Ranges) -> Network {
    let mut layers = Vec::new();
    let mut input = INPUT;
    for (index, (rounded, &output)) in trunk.iter().zip(&ranges.trunk).enumerate() {
        layers.push(Layer::Conv(quantize_conv(rounded, input, output)));
        if model.pools_after(index) {
            layers.push(Layer::MaxPool2);
        }
        input = output;
    }
    Network { input_size: INPUT_SIZE, trunk: layers, head: quantize_conv(head, input, ranges.head) }
}

/// The integers of one convolution.
fn quantize_conv(Rounded { conv, weights: rounded }: &Rounded, input: QuantParams, output: QuantParams) -> Conv {
    let area = conv.kernel * conv.kernel;
    let mut weights = Vec::with_capacity(conv.weights.len());
    for kernel in rounded.steps.chunks_exact(per_channel(conv)) {
        // From input channel, row, column to row, column, input channel.
        for cell in 0..area {
            weights.extend(kernel.iter().skip(cell).step_by(area));
        }
    }
    let accumulator_step = |scale: &f32| f64::from(input.scale) * f64::from(*scale);
    let bias = conv.bias.iter().zip(&rounded.scales);
    let bias = bias.map(|(b, scale)| (f64::from(*b) / accumulator_step(scale)).round() as i32).collect();
    let (name, weight_scales) = (conv.name.clone(), rounded.scales.clone());
    let (in_channels, out_channels, kernel) = (conv.in_channels, conv.out_channels, conv.kernel);
    Conv { name, in_channels, out_channels, kernel, weights, weight_scales, bias, input, output }
}

/// The weight scale of every output channel.
fn weight_scales(conv: &FloatConv, input: QuantParams) -> Vec<f32> {
    let kernels = conv.weights.chunks_exact(per_channel(conv));
    kernels.zip(&conv.bias).map(|(kernel, &bias)| weight_scale(kernel, bias, input)).collect()
}

/// The weight scale of one output channel: fine enough for its weights, coarse enough for its bias.
fn weight_scale(kernel: &[f32], bias: f32, input: QuantParams) -> f32 {
    let greatest = kernel.iter().fold(0f32, |greatest, w| greatest.max(w.abs()));
    let for_bias = f64::from(bias.abs()) / (f64::from(input.scale) * GREATEST_BIAS);
    // A channel of zeros may have any scale; the least normal number keeps it positive.
    (greatest / 127.0).max(for_bias as f32).max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn conv(weights: Vec<f32>, bias: Vec<f32>) -> FloatConv {
        FloatConv { name: "block1_conv1".into(), out_channels: 2, in_channels: 2, kernel: 3, weights, bias }
    }

    fn nearest(conv: &FloatConv, input: QuantParams) -> Rounded {
        Rounded { conv: conv.clone(), weights: Weights::nearest(conv, input) }
    }

    proptest! {
        #[test]
        fn every_weight_and_bias_is_within_half_a_step(
            weights in prop::collection::vec(-3f32..3.0, 36),
            bias in prop::collection::vec(-100f32..100.0, 2),
            scale in 0.001f32..2.0,
        ) {
            let float = conv(weights, bias);
            let input = QuantParams { scale, zero_point: 0 };
            let int8 = quantize_conv(&nearest(&float, input), input, INPUT);
            for o in 0..2 {
                let step = int8.weight_scales[o];
                for (c, k) in (0..2).flat_map(|c| (0..9).map(move |k| (c, k))) {
                    let (w, q) = (float.weights[(o * 2 + c) * 9 + k], int8.weights[(o * 9 + k) * 2 + c]);
                    prop_assert!((w - f32::from(q) * step).abs() <= step * 0.5001, "{w} {q} {step}");
                }
                let unit = f64::from(step) * f64::from(scale);
                prop_assert!((f64::from(float.bias[o]) - f64::from(int8.bias[o]) * unit).abs() <= unit * 0.5001);
            }
        }
    }

    #[test]
    fn a_channel_without_weights_keeps_its_bias() {
        let float = conv(vec![0.0; 36], vec![5.0, 0.0]);
        let int8 = quantize_conv(&nearest(&float, INPUT), INPUT, INPUT);
        assert!((f64::from(int8.bias[0]) * f64::from(int8.weight_scales[0]) - 5.0).abs() < 1e-5);
        assert!(int8.weights.iter().all(|&w| w == 0));
        assert!(int8.weight_scales[1] > 0.0);
    }
}

//! Layer by layer on training images: the weights' rounding (see `round`), then bias correction (Nagel et al. 2019,
//! empirical form). Rounding a channel's weights shifts the mean of its output, since activations after a ReLU have a mean
//! far from 0; the biases are moved so that the quantized network has the float network's mean outputs. Each layer sees
//! what the layers before it really give once quantized, and takes back what it can of their error. Costs nothing at run
//! time.

use crate::calibrate::Ranges;
use crate::device::device;
use crate::model::{self, conv2d};
use crate::progress::Progress;
use crate::quantize::{INPUT, Rounded, Weights};
use crate::random::SplitMix;
use crate::round::{Rounding, Samples, descend};
use crate::weights::{FloatConv, FloatModel};
use anyhow::{Context, Result};
use burn::nn::conv::Conv2d;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor as Burn, TensorData};
use rayon::prelude::*;
use roentgen::quant::QuantParams;

/// Places of all images together at which a layer's rounding is learned. What it costs is in proportion.
const PLACES: usize = 2048;

/// One image's activations before the current layer.
struct Pair {
    /// In the float network.
    float: Burn<4>,
    /// In the quantized network: real numbers that are whole steps.
    coarse: Burn<4>,
}

/// The trunk's convolutions and the head with their weights rounded and their biases corrected; `images` are preprocessed
/// training images.
pub(crate) fn correct(
    model: &FloatModel,
    head: &FloatConv,
    ranges: &Ranges,
    images: &[Vec<u8>],
    rounding: Rounding,
) -> Result<(Vec<Rounded>, Rounded)> {
    let device = device();
    let mut pairs: Vec<Pair> = images
        .iter()
        .map(|image| {
            let float = model::batch(&[image], &device);
            Pair { coarse: float.clone(), float }
        })
        .collect();
    let progress = Progress::start("rounding", model.trunk.len() + 1);
    let mut trunk = Vec::new();
    let mut input = INPUT;
    for (index, &output) in ranges.trunk.iter().enumerate() {
        let pool = model.pools_after(index);
        let conv = model.trunk.get(index).context("there are more ranges than convolutions")?;
        let (rounded, shift) = layer(conv, input, &mut pairs, rounding, &device)?;
        trunk.push(rounded);
        let shift = Burn::<1>::from_data(TensorData::new(shift, [conv.out_channels]), &device);
        let shift = shift.reshape([1, conv.out_channels, 1, 1]);
        pairs.par_iter_mut().for_each(|pair| {
            let (float, coarse) = (relu(pair.float.clone()), relu(pair.coarse.clone() + shift.clone()));
            let (float, coarse) = if pool { (model::pool(float), model::pool(coarse)) } else { (float, coarse) };
            pair.float = float;
            pair.coarse = to_steps(coarse, output);
        });
        input = output;
        progress.advance(1);
    }
    let (head, _) = layer(head, input, &mut pairs, rounding, &device)?;
    progress.advance(1);
    progress.finish();
    Ok((trunk, head))
}

/// Rounds one convolution, runs it in both networks and corrects its bias. Returns it, and by how much each channel's
/// mean was too low: `pairs` hold the outputs as they are without that.
fn layer(
    conv: &FloatConv,
    input: QuantParams,
    pairs: &mut [Pair],
    rounding: Rounding,
    device: &Device,
) -> Result<(Rounded, Vec<f32>)> {
    let mut weights = Weights::nearest(conv, input);
    let exact = conv2d(conv, device);
    pairs.par_iter_mut().for_each(|pair| pair.float = exact.forward(pair.float.clone()));
    let mut coarse = conv2d(&weights.real(conv), device);
    if rounding == Rounding::Learned {
        let samples = sample(conv, &coarse, pairs)?;
        descend(&mut weights, &conv.weights, samples);
        coarse = conv2d(&weights.real(conv), device);
    }
    let per_image: Vec<Vec<f32>> = pairs
        .par_iter_mut()
        .map(|pair| {
            pair.coarse = coarse.forward(pair.coarse.clone());
            model::numbers((pair.float.clone() - pair.coarse.clone()).mean_dim(3).mean_dim(2))
        })
        .collect::<Result<_>>()?;
    let mut mean = vec![0f32; conv.out_channels];
    for image in &per_image {
        for (sum, value) in mean.iter_mut().zip(image) {
            *sum += value / per_image.len() as f32;
        }
    }
    let bias = conv.bias.iter().zip(&mean).map(|(b, shift)| b + shift).collect();
    Ok((Rounded { conv: FloatConv { bias, ..conv.clone() }, weights }, mean))
}

/// What the layer reads in the quantized network, and how far its output is off with the weights of `coarse`, at places
/// drawn from all images alike. The float network's outputs are in `pairs` already.
fn sample(conv: &FloatConv, coarse: &Conv2d, pairs: &[Pair]) -> Result<Samples> {
    let taps = conv.in_channels * conv.kernel * conv.kernel;
    let parts: Vec<(Vec<f32>, Vec<f32>, usize)> = pairs
        .par_iter()
        .enumerate()
        .map(|(image, pair)| {
            let [_, _, rows, columns] = pair.coarse.dims();
            let count = (PLACES / pairs.len()).clamp(1, rows * columns);
            let mut random = SplitMix::of(&[image as u64, conv.weights.len() as u64]);
            let places: Vec<usize> = (0..count).map(|_| random.below(rows * columns)).collect();
            let errors = model::numbers(pair.float.clone() - coarse.forward(pair.coarse.clone()))?;
            let errors = errors.chunks_exact(rows * columns);
            let errors = errors.flat_map(|plane| places.iter().map(|&place| plane[place])).collect();
            Ok((patches(&model::numbers(pair.coarse.clone())?, (rows, columns), conv.kernel, &places), errors, count))
        })
        .collect::<Result<_>>()?;
    // A row of each image behind the other.
    let count = parts.iter().map(|(_, _, count)| count).sum();
    let mut samples = Samples { inputs: Vec::with_capacity(taps * count), errors: Vec::new(), count };
    for t in 0..taps {
        parts.iter().for_each(|(inputs, _, count)| samples.inputs.extend(&inputs[t * count..(t + 1) * count]));
    }
    for o in 0..conv.out_channels {
        parts.iter().for_each(|(_, errors, count)| samples.errors.extend(&errors[o * count..(o + 1) * count]));
    }
    Ok(samples)
}

/// What a kernel is multiplied with at some places of a tensor (channels × rows × columns): a row a weight, in the order
/// input channel, kernel row, kernel column; a column a place.
fn patches(planes: &[f32], (rows, columns): (usize, usize), kernel: usize, places: &[usize]) -> Vec<f32> {
    let border = kernel / 2;
    let mut out = Vec::with_capacity(planes.len() / (rows * columns).max(1) * kernel * kernel * places.len());
    for plane in planes.chunks_exact((rows * columns).max(1)) {
        for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
            out.extend(places.iter().map(|place| {
                // Both are one border too great, so that they stay whole numbers outside.
                let (y, x) = (place / columns + ky, place % columns + kx);
                let inside = (border..rows + border).contains(&y) && (border..columns + border).contains(&x);
                if inside { plane[(y - border) * columns + x - border] } else { 0.0 }
            }));
        }
    }
    out
}

/// What is left of activations after quantization.
pub(crate) fn to_steps(x: Burn<4>, params: QuantParams) -> Burn<4> {
    // Clamped before the zero point is added: the same, as the bounds are whole numbers.
    let zero_point = f32::from(params.zero_point);
    x.div_scalar(params.scale).round().clamp(-zero_point, 255.0 - zero_point).mul_scalar(params.scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::quantize;
    use roentgen::network::vgg::INPUT_SIZE;
    use roentgen::radiograph::phantom::phantom;
    use roentgen::tensor::Tensor;

    /// A trunk of five one-layer blocks with four channels.
    fn tiny() -> (FloatModel, FloatConv) {
        let conv = |name: String, in_channels: usize, kernel: usize, gain: f32| FloatConv {
            name,
            out_channels: 4,
            in_channels,
            kernel,
            weights: (0..4 * in_channels * kernel * kernel)
                .map(|i| gain * ((i * 7919 % 101) as f32 / 50.0 - 0.8))
                .collect(),
            bias: vec![0.5, -0.5, 1.0, 0.0],
        };
        let trunk = (1..=5).map(|b| conv(format!("block{b}_conv1"), if b == 1 { 1 } else { 4 }, 3, 0.1)).collect();
        (FloatModel { trunk, head: None, notes: Default::default() }, conv("head".into(), 4, 1, 1.0))
    }

    #[test]
    fn corrected_biases_bring_the_mean_logits_nearer() {
        let (model, head) = tiny();
        let images: Vec<Vec<u8>> = (0..4).map(|seed| phantom(seed, INPUT_SIZE as u32)).collect();
        let trunk = crate::model::Trunk::new(&model, &device());
        let refs: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        // Coarse ranges, so that there is something to correct.
        let mut scales = Vec::new();
        let map = trunk.forward_watched(model::batch(&refs, &device()), |_, x| {
            let greatest = x.clone().max().into_scalar::<f32>();
            scales.push(QuantParams { scale: greatest / 60.0, zero_point: 0 });
        });
        let float: Vec<[f32; 4]> =
            model::pooled(map).unwrap().iter().map(|pooled| model::logits(&head, pooled)).collect();
        let ranges = Ranges { trunk: scales, head: QuantParams { scale: 0.1, zero_point: 128 } };

        let error = |trunk: &[Rounded], head: &Rounded| -> f32 {
            let network = quantize(&model, trunk, head, &ranges);
            let mut difference = [0f32; 4];
            for (image, float) in images.iter().zip(&float) {
                let input = Tensor::new([1, INPUT_SIZE, INPUT_SIZE, 1], image.clone()).unwrap();
                let (map, _) = network.forward(&input).unwrap();
                for (index, q) in map.data().iter().enumerate() {
                    difference[index % 4] += (f32::from(*q) - 128.0) * 0.1 / 49.0;
                }
                for (d, f) in difference.iter_mut().zip(float) {
                    *d -= f;
                }
            }
            difference.iter().map(|d| d.abs()).sum()
        };
        let inputs = std::iter::once(INPUT).chain(ranges.trunk.iter().copied());
        let mut plain: Vec<Rounded> = model
            .trunk
            .iter()
            .chain([&head])
            .zip(inputs)
            .map(|(conv, input)| Rounded { conv: conv.clone(), weights: Weights::nearest(conv, input) })
            .collect();
        let plain_head = plain.pop().unwrap();
        let plain = error(&plain, &plain_head);
        for rounding in [Rounding::Nearest, Rounding::Learned] {
            let (trunk, head) = correct(&model, &head, &ranges, &images, rounding).unwrap();
            let corrected = error(&trunk, &head);
            assert!(corrected < plain / 3.0, "{rounding:?}: {corrected} against {plain}");
        }
    }

    #[test]
    fn a_convolution_is_its_weights_times_its_patches() {
        let (rows, columns) = (5, 4);
        let planes: Vec<f32> = (0..3 * rows * columns).map(|i| (i as f32 * 1.7).sin()).collect();
        let places: Vec<usize> = (0..rows * columns).collect();
        for kernel in [1, 3] {
            let taps = 3 * kernel * kernel;
            let weights: Vec<f32> = (0..2 * taps).map(|i| (i as f32).cos()).collect();
            let (name, bias) = ("head".to_owned(), vec![0.0; 2]);
            let conv = FloatConv { name, out_channels: 2, in_channels: 3, kernel, weights, bias };
            let input = TensorData::new(planes.clone(), [1, 3, rows, columns]);
            let expected = conv2d(&conv, &device()).forward(Burn::from_data(input, &device()));
            let expected = model::numbers(expected).unwrap();
            let inputs = patches(&planes, (rows, columns), kernel, &places);
            for (o, kernel) in conv.weights.chunks_exact(taps).enumerate() {
                for place in 0..places.len() {
                    let sum: f32 = kernel.iter().enumerate().map(|(t, w)| w * inputs[t * places.len() + place]).sum();
                    assert!((sum - expected[o * places.len() + place]).abs() < 1e-4);
                }
            }
        }
    }
}

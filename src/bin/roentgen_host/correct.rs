//! Bias correction (Nagel et al. 2019, empirical form): rounding a channel's weights shifts the mean of its output, since
//! activations after a ReLU have a mean far from 0. Layer by layer, the biases are moved so that the quantized network has
//! the float network's mean outputs on training images. Costs nothing at run time.

use crate::calibrate::Ranges;
use crate::device::device;
use crate::model::{self, conv2d};
use crate::progress::Progress;
use crate::quantize::{INPUT, rounded};
use crate::weights::{FloatConv, FloatModel};
use anyhow::{Context, Result};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor as Burn, TensorData};
use rayon::prelude::*;
use roentgen::quant::QuantParams;

/// One image's activations before the current layer.
struct Pair {
    /// In the float network.
    float: Burn<4>,
    /// In the quantized network: real numbers that are whole steps.
    coarse: Burn<4>,
}

/// The trunk and the head with corrected biases; `images` are preprocessed training images.
pub(crate) fn correct(
    model: &FloatModel,
    head: &FloatConv,
    ranges: &Ranges,
    images: &[Vec<u8>],
) -> Result<(FloatModel, FloatConv)> {
    let device = device();
    let mut pairs: Vec<Pair> = images
        .iter()
        .map(|image| {
            let float = model::batch(&[image], &device);
            Pair { coarse: float.clone(), float }
        })
        .collect();
    let progress = Progress::start("correcting biases", model.trunk.len() + 1);
    let (mut model, mut head) = (model.clone(), head.clone());
    let mut input = INPUT;
    for (index, &output) in ranges.trunk.iter().enumerate() {
        let pool = model.pools_after(index);
        let conv = model.trunk.get_mut(index).context("there are more ranges than convolutions")?;
        let shift = shift(conv, input, &mut pairs, &device)?;
        add(&mut conv.bias, &shift);
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
    let shift = shift(&head, input, &mut pairs, &device)?;
    add(&mut head.bias, &shift);
    progress.advance(1);
    progress.finish();
    Ok((model, head))
}

/// Runs one convolution in both networks. Returns by how much each channel's mean is too low in the quantized one.
fn shift(conv: &FloatConv, input: QuantParams, pairs: &mut [Pair], device: &Device) -> Result<Vec<f32>> {
    let (exact, coarse) = (conv2d(conv, device), conv2d(&rounded(conv, input), device));
    let per_image: Vec<Vec<f32>> = pairs
        .par_iter_mut()
        .map(|pair| {
            pair.float = exact.forward(pair.float.clone());
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
    Ok(mean)
}

/// What is left of activations after quantization with a zero point of 0.
fn to_steps(x: Burn<4>, params: QuantParams) -> Burn<4> {
    x.div_scalar(params.scale).round().clamp(0.0, 255.0).mul_scalar(params.scale)
}

fn add(bias: &mut [f32], shift: &[f32]) {
    for (b, s) in bias.iter_mut().zip(shift) {
        *b += s;
    }
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

        let error = |model: &FloatModel, head: &FloatConv| -> f32 {
            let network = quantize(model, head, &ranges);
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
        let plain = error(&model, &head);
        let (model, head) = correct(&model, &head, &ranges, &images).unwrap();
        let corrected = error(&model, &head);
        assert!(corrected < plain / 3.0, "{corrected} against {plain}");
    }
}

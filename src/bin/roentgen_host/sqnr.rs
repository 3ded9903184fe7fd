//! What quantization cost, layer by layer: signal-to-quantization-noise ratios in decibel, `10·log10(Σ x² / Σ (x − x̂)²)`,
//! measured on training images that chose nothing. 6 dB are one bit. Not what it cost in labels: that is `evaluate`.

use crate::correct::to_steps;
use crate::device::device;
use crate::equalise::Gain;
use crate::model::{self, conv2d};
use crate::progress::Progress;
use crate::weights::{FloatConv, FloatModel};
use anyhow::Result;
use burn::tensor::Tensor as Burn;
use burn::tensor::activation::relu;
use rayon::prelude::*;
use roentgen::network::int8::{Conv, Network};
use serde::Serialize;

/// The name of the record in a bundle.
pub(crate) const QUANTIZATION_FILE: &str = "quantization.json";

/// The schema name of `quantization.json`.
const SCHEMA: &str = "roentgen.quantization/1";

/// The record of a quantization: `quantization.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Record {
    /// Always [`SCHEMA`].
    pub(crate) schema: String,
    /// What was done to the channels before anything else, in words.
    pub(crate) equalisation: String,
    /// What that did to each layer whose channels were changed; absent where it was not done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) equalised: Vec<Gain>,
    /// How the ranges of activations were chosen, in words.
    pub(crate) ranges: String,
    /// How the weights were rounded: `nearest` or `learned`.
    pub(crate) rounding: String,
    /// Training images that the ranges come from.
    pub(crate) calibration_images: usize,
    /// How many of them taught the rounding and corrected the biases.
    pub(crate) correction_images: usize,
    /// Training images that the ratios below were measured on: others than those, where there are any.
    pub(crate) sqnr_images: usize,
    /// The convolutions in order, the head last.
    pub(crate) layers: Vec<LayerRecord>,
    /// Share of the images of the bundle's report on which int8 and float have the same most probable label.
    pub(crate) label_agreement: Option<f64>,
    /// How many images these are.
    pub(crate) label_agreement_images: Option<usize>,
}

/// One convolution, with its ReLU and pooling.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct LayerRecord {
    /// Its name, e.g. `block1_conv1`.
    pub(crate) name: String,
    /// Of its weights, in dB. `null`: no noise at all.
    pub(crate) weights_db: Option<f64>,
    /// Of its output in dB, where its input is the float network's: what this layer alone costs. Its bias is corrected
    /// for the input that it really gets, so that the figure is rather too low.
    pub(crate) layer_db: Option<f64>,
    /// Of its output in dB, in the quantized network: what it and all layers before it cost.
    pub(crate) network_db: Option<f64>,
    /// Scale of its output.
    pub(crate) output_scale: f32,
    /// Zero point of its output.
    pub(crate) output_zero_point: u8,
}

/// Energies of signal and noise.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Energies {
    signal: f64,
    noise: f64,
}

impl Energies {
    fn of(exact: &[f32], coarse: &[f32]) -> Self {
        let signal = exact.iter().map(|x| f64::from(*x).powi(2)).sum();
        let noise = exact.iter().zip(coarse).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
        Self { signal, noise }
    }

    fn add(self, other: Self) -> Self {
        Self { signal: self.signal + other.signal, noise: self.noise + other.noise }
    }

    fn db(self) -> Option<f64> {
        (self.noise > 0.0 && self.signal > 0.0).then(|| 10.0 * (self.signal / self.noise).log10())
    }
}

/// Measures every layer on preprocessed images.
pub(crate) fn measure(
    model: &FloatModel,
    head: &FloatConv,
    network: &Network,
    images: &[Vec<u8>],
) -> Result<Vec<LayerRecord>> {
    let device = device();
    let exact: Vec<&FloatConv> = model.trunk.iter().chain([head]).collect();
    let ints: Vec<&Conv> = network.convolutions().collect();
    let coarse: Vec<FloatConv> = ints.iter().map(|conv| real(conv)).collect();
    let convs: Vec<_> = exact.iter().zip(&coarse).map(|(a, b)| (conv2d(a, &device), conv2d(b, &device))).collect();
    let progress = Progress::start("measuring noise", images.len());
    // One image's energies: alone and in the network, a pair a layer.
    let of_image = |image: &Vec<u8>| -> Result<Vec<[Energies; 2]>> {
        let mut x = model::batch(&[image], &device);
        let mut y = x.clone();
        let mut energies = Vec::new();
        for (index, ((float, int), conv)) in convs.iter().zip(&ints).enumerate() {
            let end = |z: Burn<4>, quantized: bool| {
                let z = if index < model.trunk.len() { relu(z) } else { z };
                let z = if model.pools_after(index) { model::pool(z) } else { z };
                if quantized { to_steps(z, conv.output) } else { z }
            };
            let alone = end(int.forward(x.clone()), true);
            y = end(int.forward(y), true);
            x = end(float.forward(x), false);
            let signal = model::numbers(x.clone())?;
            let noisy = [alone, y.clone()];
            let noisy: Vec<Vec<f32>> = noisy.into_iter().map(model::numbers).collect::<Result<_>>()?;
            energies.push([Energies::of(&signal, &noisy[0]), Energies::of(&signal, &noisy[1])]);
        }
        progress.advance(1);
        Ok(energies)
    };
    let none = || vec![[Energies::default(); 2]; ints.len()];
    let sums = images
        .par_iter()
        .map(of_image)
        .try_reduce(none, |a, b| Ok(a.into_iter().zip(b).map(|(a, b)| [a[0].add(b[0]), a[1].add(b[1])]).collect()))?;
    progress.finish();
    let layers = ints.iter().zip(&exact).zip(&coarse).zip(sums);
    let record = |(((int, exact), coarse), sums): (((&&Conv, &&FloatConv), &FloatConv), [Energies; 2])| LayerRecord {
        name: int.name.clone(),
        weights_db: Energies::of(&exact.weights, &coarse.weights).db(),
        layer_db: sums[0].db(),
        network_db: sums[1].db(),
        output_scale: int.output.scale,
        output_zero_point: int.output.zero_point,
    };
    Ok(layers.map(record).collect())
}

/// The real numbers that a convolution's integers stand for.
fn real(conv: &Conv) -> FloatConv {
    let (area, channels) = (conv.kernel * conv.kernel, conv.in_channels);
    let mut weights = Vec::with_capacity(conv.weights.len());
    for (kernel, scale) in conv.weights.chunks_exact((area * channels).max(1)).zip(&conv.weight_scales) {
        // From row, column, input channel to input channel, row, column.
        for c in 0..channels {
            weights.extend(kernel.iter().skip(c).step_by(channels).map(|&q| f32::from(q) * scale));
        }
    }
    let step = |scale: &f32| f64::from(conv.input.scale) * f64::from(*scale);
    let bias = conv.bias.iter().zip(&conv.weight_scales).map(|(&b, scale)| (f64::from(b) * step(scale)) as f32);
    FloatConv {
        name: conv.name.clone(),
        out_channels: conv.out_channels,
        in_channels: channels,
        kernel: conv.kernel,
        weights,
        bias: bias.collect(),
    }
}

impl Record {
    /// A table that a person reads.
    pub(crate) fn table(&self) -> String {
        let mut out = format!(
            "Signal to quantization noise in dB on {} training images (weights rounded: {})\n\
             layer            weights   layer alone   network so far   step\n",
            self.sqnr_images, self.rounding
        );
        if !self.equalised.is_empty() {
            let gains: Vec<String> = self.equalised.iter().map(|gain| format!("{:.1}", gain.expected_db)).collect();
            out = format!(
                "Channels equalised; noise expected to fall, layer by layer, by {} dB\n{out}",
                gains.join(", ")
            );
        }
        let db = |value: Option<f64>| value.map_or_else(|| "exact".to_owned(), |db| format!("{db:.1}"));
        for layer in &self.layers {
            let ratios = [layer.weights_db, layer.layer_db, layer.network_db].map(db);
            let [weights, alone, network] = ratios;
            out += &format!("{:<16} {weights:>7} {alone:>13} {network:>16}   {:.4}\n", layer.name, layer.output_scale);
        }
        if let (Some(share), Some(images)) = (self.label_agreement, self.label_agreement_images) {
            out += &format!("int8 and float agree on the label of {:.2} % of {images} images\n", 100.0 * share);
        }
        out
    }

    /// A record without the share of labels, which is known last.
    pub(crate) fn new(
        rounding: String,
        (calibration_images, correction_images, sqnr_images): (usize, usize, usize),
        (equalised, layers): (Vec<Gain>, Vec<LayerRecord>),
    ) -> Self {
        let equalisation = if equalised.is_empty() { "channels not equalised" } else { crate::equalise::METHOD };
        let equalisation = equalisation.to_owned();
        let ranges = crate::calibrate::METHOD.to_owned();
        let schema = SCHEMA.to_owned();
        let (label_agreement, label_agreement_images) = (None, None);
        Self {
            schema,
            equalisation,
            equalised,
            ranges,
            rounding,
            calibration_images,
            correction_images,
            sqnr_images,
            layers,
            label_agreement,
            label_agreement_images,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::Ranges;
    use crate::quantize::{INPUT, Rounded, Weights, quantize};
    use roentgen::network::vgg::INPUT_SIZE;
    use roentgen::quant::QuantParams;
    use roentgen::radiograph::phantom::phantom;
    use roentgen::tensor::Tensor;

    #[test]
    fn ten_times_the_amplitude_of_the_noise_is_twenty_decibel() {
        let of = |coarse: &[f32]| Energies::of(&[10.0, -10.0], coarse).db();
        assert!((of(&[11.0, -9.0]).unwrap() - 20.0).abs() < 1e-9);
        assert_eq!(of(&[10.0, -10.0]), None, "no noise");
    }

    /// The noise measured in real numbers is that of the integers which the reference computes.
    #[test]
    fn the_last_figures_are_those_of_the_reference_forward_pass() {
        let conv = |name: String, in_channels: usize, kernel: usize| FloatConv {
            name,
            out_channels: 4,
            in_channels,
            kernel,
            weights: (0..4 * in_channels * kernel * kernel).map(|i| (i * 7919 % 101) as f32 / 250.0 - 0.16).collect(),
            bias: vec![1.0; 4],
        };
        let trunk = (1..=5).map(|b| conv(format!("block{b}_conv1"), if b == 1 { 1 } else { 4 }, 3)).collect();
        let (model, head) = (FloatModel { trunk, head: None, notes: Default::default() }, conv("head".into(), 4, 1));
        let image = phantom(1, INPUT_SIZE as u32);
        let mut scales = Vec::new();
        let float = crate::model::Trunk::new(&model, &device())
            .forward_watched(model::batch(&[&image], &device()), |_, x| {
                scales.push(QuantParams { scale: x.clone().max().into_scalar::<f32>() / 255.0, zero_point: 0 })
            });
        let ranges = Ranges { trunk: scales, head: QuantParams { scale: 0.5, zero_point: 100 } };
        let inputs = std::iter::once(INPUT).chain(ranges.trunk.iter().copied());
        let mut rounded: Vec<Rounded> = (model.trunk.iter().chain([&head]).zip(inputs))
            .map(|(conv, input)| Rounded { conv: conv.clone(), weights: Weights::nearest(conv, input) })
            .collect();
        let last = rounded.pop().unwrap();
        let network = quantize(&model, &rounded, &last, &ranges).with_portable_scales();

        let layers = measure(&model, &head, &network, std::slice::from_ref(&image)).unwrap();
        assert_eq!(layers.len(), 6);
        let input = Tensor::new([1, INPUT_SIZE, INPUT_SIZE, 1], image.clone()).unwrap();
        let (_, features) = network.forward(&input).unwrap();
        // From NHWC to NCHW.
        let params = ranges.trunk[4];
        let planes: Vec<f32> =
            (0..4).flat_map(|c| features.data().iter().skip(c).step_by(4).map(|&q| params.dequantize(q))).collect();
        let expected = Energies::of(&model::numbers(float).unwrap(), &planes).db().unwrap();
        let found = layers[4].network_db.unwrap();
        // A sum near a tie may be rounded the other way in f32.
        assert!((found - expected).abs() < 0.1, "{found} and {expected}");
        assert!(layers.iter().all(|layer| layer.weights_db.is_some_and(|db| db > 35.0)), "{layers:?}");
    }
}

//! Cross-layer equalisation: the channels of a layer's output are brought to ranges that suit one scale for all of them,
//! before anything is quantized. Not the ranges themselves (see `calibrate`).
//!
//! # Why it changes nothing
//!
//! ReLU and max pooling are positively homogeneous: `f(x / s) = f(x) / s` for every `s > 0`. So a convolution's output
//! channel `c` may be divided by `s_c`, weights and bias, where the weights with which the next convolution reads that
//! channel are multiplied by `s_c`: in real numbers the network is the same function (Nagel et al. 2019, "Data-free
//! quantization through weight equalization and bias correction", arXiv:1906.04721). The last layer of the trunk is left
//! alone, so that features and evidence keep their meaning.
//!
//! Which factors: see `cost`.

mod cost;

use crate::dataset::Sample;
use crate::device::{self, device};
use crate::model::{self, Trunk};
use crate::progress::Progress;
use crate::weights::{FloatConv, FloatModel};
use anyhow::{Context, Result};
use cost::{Cost, taps};
use rayon::prelude::*;
use roentgen::network::int8::{Conv, Network};
use serde::Serialize;

/// Whether to equalise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Equalise {
    /// Yes.
    On,
    /// No: channels stay as they were trained.
    Off,
}

/// What is done, in words, for the record.
pub(crate) const METHOD: &str =
    "channels equalised across layers by the factors of least expected noise (ReLU and pooling pass them through)";

/// 2²⁵: where 255 times the sum of an output channel's positive or negative weights, in steps, comes to it, a box's fast
/// exact kernels do not apply to the layer (see `roentgen::kernels::winograd`).
const EXACT: f64 = 33_554_432.0;

/// Up to this part of it may factors bring the sum. The rest is for the rounding, which is not known yet.
const SURELY: f64 = 0.98;

/// What the channels of one layer's output were on images.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Channels {
    /// The greatest value of each.
    greatest: Vec<f32>,
    /// Σ x.
    sum: Vec<f64>,
    /// Σ x².
    squares: Vec<f64>,
    /// How many were not 0.
    alive: Vec<f64>,
    /// How many there were, of one channel.
    count: f64,
}

impl Channels {
    fn new(channels: usize) -> Self {
        let zeros = vec![0.0; channels];
        Self { greatest: vec![0.0; channels], sum: zeros.clone(), squares: zeros.clone(), alive: zeros, count: 0.0 }
    }

    /// Counts the values (batch × channels × cells) of some images.
    fn add(&mut self, values: &[f32], cells: usize) {
        let channels = self.sum.len().max(1);
        for (index, plane) in values.chunks_exact(cells.max(1)).enumerate() {
            let c = index % channels;
            let (mut greatest, mut sum, mut squares, mut alive) = (0f32, 0f64, 0f64, 0usize);
            for &x in plane {
                greatest = greatest.max(x);
                sum += f64::from(x);
                squares += f64::from(x) * f64::from(x);
                alive += usize::from(x > 0.0);
            }
            self.greatest[c] = self.greatest[c].max(greatest);
            self.sum[c] += sum;
            self.squares[c] += squares;
            self.alive[c] += alive as f64;
        }
        self.count += (values.len() / channels) as f64;
    }

    fn merge(mut self, other: &Self) -> Self {
        for (a, b) in self.greatest.iter_mut().zip(&other.greatest) {
            *a = a.max(*b);
        }
        for (mine, others) in
            [(&mut self.sum, &other.sum), (&mut self.squares, &other.squares), (&mut self.alive, &other.alive)]
        {
            mine.iter_mut().zip(others).for_each(|(a, b)| *a += b);
        }
        self.count += other.count;
        self
    }

    /// a_c.
    fn share_alive(&self, c: usize) -> f64 {
        self.alive[c] / self.count.max(1.0)
    }

    /// v_c.
    fn variance(&self, c: usize) -> f64 {
        let mean = self.sum[c] / self.count.max(1.0);
        (self.squares[c] / self.count.max(1.0) - mean * mean).max(0.0)
    }
}

/// What equalisation did to one layer, for the record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Gain {
    /// The layer whose output channels were divided.
    pub(crate) name: String,
    /// By how many dB its cost fell: the noise that rounding its output and the next layer's weights is expected to bring.
    pub(crate) expected_db: f64,
    /// The least factor.
    pub(crate) least: f32,
    /// The greatest.
    pub(crate) greatest: f32,
}

/// Runs the float model on `samples`: the channels of every layer of the trunk.
pub(crate) fn observe(model: &FloatModel, samples: &[Sample]) -> Result<Vec<Channels>> {
    let device = device();
    let trunk = Trunk::new(model, &device);
    let progress = Progress::start("equalising", samples.len());
    let none = || model.trunk.iter().map(|conv| Channels::new(conv.out_channels)).collect::<Vec<_>>();
    let channels = samples
        .par_chunks(device::BATCH)
        .try_fold(none, |mut channels, chunk| -> Result<_> {
            let inputs = chunk.iter().map(Sample::input).collect::<Result<Vec<_>>>()?;
            let images: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
            let mut failed = None;
            trunk.forward_watched(model::batch(&images, &device), |index, output| {
                let [_, _, rows, columns] = output.dims();
                match model::numbers(output.clone()) {
                    Ok(values) => channels[index].add(&values, rows * columns),
                    Err(error) => failed = Some(error),
                }
            });
            failed.map_or(Ok(()), Err)?;
            progress.advance(chunk.len());
            Ok(channels)
        })
        .try_reduce(none, |a, b| Ok(a.into_iter().zip(&b).map(|(a, b)| a.merge(b)).collect()))?;
    progress.finish();
    Ok(channels)
}

/// The same function with equalised channels, and what that is expected to bring, layer by layer.
pub(crate) fn equalise(model: &FloatModel, head: &FloatConv, channels: &[Channels]) -> Result<(FloatModel, Vec<Gain>)> {
    let mut equal = model.clone();
    let mut gains = Vec::new();
    let importance = importance(model, head, channels);
    // A layer's factors are in no other's cost: any order will do. The next layer is read as it was trained.
    for (index, own) in channels.iter().enumerate().take(model.trunk.len().saturating_sub(1)) {
        let next = &model.trunk[index + 1];
        let cost = Cost::new(own, next, importance.get(index + 1).context("a layer was not observed")?);
        let best = cost.descend();
        let factors = exact_still(next, &best);
        let logarithms: Vec<f64> = factors.iter().map(|&s| f64::from(s).ln()).collect();
        let db = 10.0 * (cost.of(&vec![0.0; factors.len()]) / cost.of(&logarithms)).log10();
        divide(&mut equal.trunk[index], &factors);
        multiply(&mut equal.trunk[index + 1], &factors);
        gains.push(Gain {
            name: model.trunk[index].name.clone(),
            expected_db: if db.is_finite() { db } else { 0.0 },
            least: factors.iter().copied().fold(f32::INFINITY, f32::min),
            greatest: factors.iter().copied().fold(0.0, f32::max),
        });
    }
    Ok((equal, gains))
}

/// g of every layer of the trunk, the mean of each layer 1.
fn importance(model: &FloatModel, head: &FloatConv, channels: &[Channels]) -> Vec<Vec<f64>> {
    let mut reversed: Vec<Vec<f64>> = Vec::new();
    let mut above = vec![1.0; head.out_channels];
    let readers = [head].into_iter().chain(model.trunk.iter().skip(1).rev());
    for (own, reader) in channels.iter().rev().zip(readers) {
        let squares = taps(reader, 0.0, |sum, w| sum + w * w);
        let of = |c: usize| {
            let sum: f64 = above.iter().zip(squares.chunks_exact(reader.in_channels)).map(|(g, row)| g * row[c]).sum();
            own.share_alive(c) * sum
        };
        let mut weights: Vec<f64> = (0..reader.in_channels).map(of).collect();
        let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
        weights.iter_mut().for_each(|g| *g = if mean > 0.0 { *g / mean } else { 1.0 });
        above.clone_from(&weights);
        reversed.push(weights);
    }
    reversed.reverse();
    reversed
}

/// The factors, drawn towards 1 until every output channel of the next layer that could be computed by the fast exact
/// kernels still can: more even weights have greater sums.
fn exact_still(next: &FloatConv, factors: &[f32]) -> Vec<f32> {
    let before = inexact(next, SURELY);
    for part in [1.0, 0.75, 0.5, 0.25] {
        let factors: Vec<f32> = factors.iter().map(|s| s.powf(part)).collect();
        let mut changed = next.clone();
        multiply(&mut changed, &factors);
        if inexact(&changed, SURELY) <= before {
            return factors;
        }
    }
    vec![1.0; factors.len()]
}

/// The layers that cannot be computed by a box's fast exact kernels since `model`, from which `network` comes, was
/// equalised.
pub(crate) fn slower(model: &FloatModel, network: &Network) -> Vec<String> {
    let beyond = |conv: &Conv| {
        let kernels = conv.weights.chunks_exact((conv.in_channels * conv.kernel * conv.kernel).max(1));
        let sum = |kernel: &[i8], sign: i64| kernel.iter().map(|&w| (sign * i64::from(w)).max(0)).sum::<i64>();
        kernels.map(|kernel| sum(kernel, 1).max(sum(kernel, -1))).any(|sum| 255.0 * sum as f64 >= EXACT)
    };
    let pairs = model.trunk.iter().zip(network.convolutions());
    pairs
        .filter(|(before, after)| inexact(before, 1.0) == 0 && beyond(after))
        .map(|(conv, _)| conv.name.clone())
        .collect()
}

/// Output channels whose sums can come to this part of [`EXACT`].
fn inexact(conv: &FloatConv, part: f64) -> usize {
    let kernels = conv.weights.chunks_exact((conv.in_channels * conv.kernel * conv.kernel).max(1));
    let beyond = |kernel: &&[f32]| {
        let greatest = f64::from(kernel.iter().fold(0f32, |greatest, w| greatest.max(w.abs())));
        let sum = |sign: f64| kernel.iter().map(|&w| (sign * f64::from(w)).max(0.0)).sum::<f64>();
        greatest > 0.0 && 255.0 * 127.0 * sum(1.0).max(sum(-1.0)) / greatest >= part * EXACT
    };
    kernels.filter(beyond).count()
}

/// Divides a convolution's output channels by their factors.
fn divide(conv: &mut FloatConv, factors: &[f32]) {
    let taps = (conv.in_channels * conv.kernel * conv.kernel).max(1);
    for ((kernel, bias), s) in conv.weights.chunks_exact_mut(taps).zip(&mut conv.bias).zip(factors) {
        kernel.iter_mut().for_each(|w| *w /= s);
        *bias /= s;
    }
}

/// Multiplies what a convolution reads its input channels with by their factors.
fn multiply(conv: &mut FloatConv, factors: &[f32]) {
    let area = (conv.kernel * conv.kernel).max(1);
    for (kernel, s) in conv.weights.chunks_exact_mut(area).zip(factors.iter().cycle()) {
        kernel.iter_mut().for_each(|w| *w *= s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::Ranges;
    use crate::quantize::{INPUT, Rounded, Weights, quantize};
    use crate::random::SplitMix;
    use roentgen::network::vgg::INPUT_SIZE;
    use roentgen::quant::QuantParams;
    use roentgen::radiograph::phantom::phantom;

    pub(super) fn conv(
        random: &mut SplitMix,
        name: &str,
        (out_channels, in_channels, kernel): (usize, usize, usize),
    ) -> FloatConv {
        let mut numbers = |n: usize, low| (0..n).map(|_| random.uniform(low, 1.0)).collect::<Vec<f32>>();
        let taps = in_channels * kernel * kernel;
        let weights = numbers(out_channels * taps, -0.8).into_iter().map(|w| w * 3.0 / (taps as f32).sqrt()).collect();
        let bias = numbers(out_channels, -1.0);
        FloatConv { name: name.into(), out_channels, in_channels, kernel, weights, bias }
    }

    /// A trunk of six layers with eight channels whose ranges lie up to a factor of 100 apart, and one that is always 0.
    fn unequal() -> (FloatModel, FloatConv) {
        let mut random = SplitMix::new(7);
        let names = ["block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1", "block5_conv2"];
        let shape = |index: usize| (8, if index == 0 { 1 } else { 8 }, 3);
        let mut trunk: Vec<FloatConv> =
            names.iter().enumerate().map(|(index, name)| conv(&mut random, name, shape(index))).collect();
        for index in 0..5 {
            let factors: Vec<f32> = (0..8).map(|_| 10f32.powf(random.uniform(-1.0, 1.0))).collect();
            divide(&mut trunk[index], &factors);
            multiply(&mut trunk[index + 1], &factors);
        }
        trunk[1].bias[3] = -1e6;
        let head = conv(&mut random, "head", (4, 8, 1));
        (FloatModel { trunk, head: None, notes: Default::default() }, head)
    }

    fn images() -> Vec<Vec<u8>> {
        (1..=3).map(|seed| phantom(seed, INPUT_SIZE as u32)).collect()
    }

    /// What [`observe`] sees, of images that are no files; and the last map.
    fn watch(model: &FloatModel) -> (Vec<Channels>, Vec<f32>) {
        let images = images();
        let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        let mut channels: Vec<Channels> = model.trunk.iter().map(|conv| Channels::new(conv.out_channels)).collect();
        let map = Trunk::new(model, &device()).forward_watched(model::batch(&images, &device()), |index, x| {
            let [_, _, rows, columns] = x.dims();
            channels[index].add(&model::numbers(x.clone()).unwrap(), rows * columns);
        });
        (channels, model::numbers(map).unwrap())
    }

    /// Signal to noise in dB in the last map, with the plainest of quantizations.
    fn last_db(model: &FloatModel, head: &FloatConv) -> f64 {
        let (channels, _) = watch(model);
        let widest = |own: &Channels| own.greatest.iter().copied().fold(0f32, f32::max);
        let trunk: Vec<QuantParams> =
            channels.iter().map(|own| QuantParams { scale: widest(own) / 255.0, zero_point: 0 }).collect();
        let ranges = Ranges { trunk, head: QuantParams { scale: 0.5, zero_point: 128 } };
        let inputs = std::iter::once(INPUT).chain(ranges.trunk.iter().copied());
        let mut rounded: Vec<Rounded> = (model.trunk.iter().chain([head]).zip(inputs))
            .map(|(conv, input)| Rounded { conv: conv.clone(), weights: Weights::nearest(conv, input) })
            .collect();
        let last = rounded.pop().unwrap();
        let network = quantize(model, &rounded, &last, &ranges).with_portable_scales();
        let layers = crate::sqnr::measure(model, head, &network, &images()).unwrap();
        layers[model.trunk.len() - 1].network_db.unwrap()
    }

    #[test]
    fn the_function_stays_and_its_quantization_errs_less() {
        let (model, head) = unequal();
        let (channels, map) = watch(&model);
        assert_eq!(channels[1].greatest[3], 0.0, "a channel that is always 0");
        let (equal, gains) = equalise(&model, &head, &channels).unwrap();
        let (_, same) = watch(&equal);
        let greatest = map.iter().copied().fold(0f32, f32::max);
        for (a, b) in map.iter().zip(&same) {
            assert!((a - b).abs() <= 1e-4 * greatest, "{a} and {b} of {greatest}");
        }
        assert!(greatest > 0.0);
        assert_eq!(gains.len(), model.trunk.len() - 1);
        assert!(gains.iter().all(|gain| gain.expected_db >= 0.0 && gain.least > 0.0), "{gains:?}");
        assert_eq!(equal.trunk[1].bias[3], model.trunk[1].bias[3], "what is always 0 keeps its weights");
        assert_eq!(equal.trunk[5].bias, model.trunk[5].bias, "features keep their meaning");
        let (before, after) = (last_db(&model, &head), last_db(&equal, &head));
        assert!(after > before + 3.0, "{after} dB after {before} dB");
    }

    #[test]
    fn weights_are_not_evened_out_until_the_exact_kernels_no_longer_apply() {
        let weights = (0..512 * 9).map(|i| if i < 9 { 1.0 } else { 0.01 }).collect();
        let (name, bias) = ("block4_conv2".to_owned(), vec![0.0]);
        let next = FloatConv { name, out_channels: 1, in_channels: 512, kernel: 3, weights, bias };
        let mut factors = vec![1.0; 512];
        factors[0] = 0.01;
        let mut even = next.clone();
        multiply(&mut even, &factors);
        assert_eq!((inexact(&next, 1.0), inexact(&even, 1.0)), (0, 1), "512 × 9 × 127 × 255 exceeds 2²⁵");
        let less = exact_still(&next, &factors);
        assert!(less[0] > factors[0] && less[0] < 1.0, "{}", less[0]);
        let mut drawn = next.clone();
        multiply(&mut drawn, &less);
        assert_eq!(inexact(&drawn, SURELY), 0);
        assert_eq!(exact_still(&even, &factors), factors, "what is lost already is no reason");
    }

    #[test]
    fn parts_of_the_images_make_the_whole() {
        let values: Vec<f32> = (0..2 * 3 * 4).map(|i| ((i * 7) % 5) as f32).collect();
        let mut whole = Channels::new(3);
        whole.add(&values, 4);
        let mut parts = [Channels::new(3), Channels::new(3)];
        parts[0].add(&values[..12], 4);
        parts[1].add(&values[12..], 4);
        let [a, b] = parts;
        assert_eq!(a.merge(&b), whole);
        assert_eq!(whole.count, 8.0);
        let own: Vec<f64> = [0, 1, 2, 3, 12, 13, 14, 15].map(|i| f64::from(values[i])).to_vec();
        let mean = own.iter().sum::<f64>() / 8.0;
        let variance = own.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 8.0;
        assert!((whole.variance(0) - variance).abs() < 1e-9);
        assert_eq!(whole.share_alive(0), own.iter().filter(|x| **x > 0.0).count() as f64 / 8.0);
    }
}

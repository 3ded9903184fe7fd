//! The ranges of activations, measured on training images, and the quantization that costs each layer least. Not the
//! quantization of weights (see `quantize`).

use crate::dataset::Sample;
use crate::device::{self, device};
use crate::model::{self, Trunk};
use crate::progress::Progress;
use crate::weights::{FloatConv, FloatModel};
use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use roentgen::quant::QuantParams;

/// Bins of a histogram: eight to a quantization step, or more.
const BINS: usize = 4096;

/// How many times worse than the square of a rounding error the square of a clipping error is. Rounding errors are as often
/// too high as too low, and sums over a layer's inputs and over the map average them out; what is clipped is always too
/// low, and mostly in the same images. Measured with VGG16 on 32 radiographs: quantizing activations alone moved the logits
/// by 0.089 (root mean square) with a factor of 1, which is the mean squared error itself, by 0.060 with 4, 0.041 with 16,
/// 0.037 with 64, and by 0.030 where nothing was clipped at all.
const CLIPPING: f64 = 65_536.0;

/// The choice of ranges in words, for the record.
pub(crate) const METHOD: &str = "least mean squared error, errors of clipping counted 65536 times those of rounding";

/// What an activation after a ReLU was, how often. Zeros are left out: a zero point of 0 holds them without error.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Histogram {
    bins: Vec<u64>,
    /// The upper end of the last bin: a power of two.
    limit: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: vec![0; BINS], limit: 1.0 }
    }
}

impl Histogram {
    /// Counts values. Where one is too great for the histogram, the bins are merged two by two until it fits.
    pub(crate) fn add(&mut self, values: &[f32]) {
        for &value in values {
            if value > 0.0 && value.is_finite() {
                while value >= self.limit {
                    self.widen();
                }
                // Below BINS since value < limit; the cast floors.
                self.bins[(value / self.limit * BINS as f32) as usize] += 1;
            }
        }
    }

    /// Takes over another one's counts.
    pub(crate) fn merge(mut self, mut other: Self) -> Self {
        while self.limit < other.limit {
            self.widen();
        }
        while other.limit < self.limit {
            other.widen();
        }
        for (bin, count) in self.bins.iter_mut().zip(other.bins) {
            *bin += count;
        }
        self
    }

    fn widen(&mut self) {
        for index in 0..BINS / 2 {
            self.bins[index] = self.bins[2 * index] + self.bins[2 * index + 1];
        }
        self.bins[BINS / 2..].fill(0);
        self.limit *= 2.0;
    }

    /// The scale of 255 steps above 0 whose weighted mean squared error is least. Clipping at c makes every value below c
    /// wrong by a rounding error of variance (c / 255)² / 12 and every value above wrong by its excess, which counts
    /// [`CLIPPING`] times: only a lone giant is given up for finer steps among the many. `None` if every value was 0.
    pub(crate) fn scale(&self) -> Option<f32> {
        let width = f64::from(self.limit) / BINS as f64;
        let last = self.bins.iter().rposition(|&count| count > 0)?;
        let total: f64 = self.bins.iter().map(|&count| count as f64).sum();
        // Sums over the values above the clip, grown as the clip comes down: count, Σ v, Σ v².
        let (mut above, mut sum, mut squares) = (0.0, 0.0, 0.0);
        let mut best = (f64::INFINITY, 0.0);
        for bin in (0..=last).rev() {
            let clip = (bin + 1) as f64 * width;
            let excess = squares - 2.0 * clip * sum + clip * clip * above;
            let cost = (total - above) * (clip / 255.0).powi(2) / 12.0 + CLIPPING * excess;
            if cost < best.0 {
                best = (cost, clip);
            }
            let (count, middle) = (self.bins[bin] as f64, (bin as f64 + 0.5) * width);
            above += count;
            sum += count * middle;
            squares += count * middle * middle;
        }
        Some((best.1 / 255.0) as f32)
    }
}

/// Scale and zero point of u8 for the class logits of single cells, by which their mean over a map errs least. Rounding
/// errors of a map's cells average out; what is clipped is taken to be so in all of them. So clipping counts as often as
/// there are cells.
pub(crate) fn head_params(logits: &[f32]) -> Result<QuantParams> {
    let (low, high) = logits.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
    ensure!((high - low).is_finite() && high > low, "the head gives the same logit everywhere; train it first");
    let ends = (1..=HEAD_CLIPS).flat_map(|a| (1..=HEAD_CLIPS).map(move |b| (a, b)));
    let candidates = ends.filter_map(|(a, b)| {
        let part = |end: f32, parts: usize| end * parts as f32 / HEAD_CLIPS as f32;
        let (low, high) = (part(low, a), part(high, b));
        let scale = (high - low) / 255.0;
        let excess = |v: f32| f64::from((v - high).max(low - v).max(0.0)).powi(2);
        let clipped = logits.iter().map(|&v| excess(v)).sum::<f64>() / logits.len() as f64;
        let cost = f64::from(scale).powi(2) / 12.0 + CELLS as f64 * clipped;
        // In 0..=255 since low ≤ 0 ≤ high.
        (scale > 0.0).then(|| (cost, QuantParams { scale, zero_point: (-low / scale).round() as u8 }))
    });
    let best = candidates.min_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, params)| params).context("the head's logits are too small to be told apart; train it first")
}

/// Clips that are tried on either side of the logits' range: parts of it, evenly spaced.
const HEAD_CLIPS: usize = 20;

/// How every layer's output is to be quantized.
pub(crate) struct Ranges {
    /// One per convolution of the trunk, zero point 0.
    pub(crate) trunk: Vec<QuantParams>,
    /// The head's.
    pub(crate) head: QuantParams,
}

/// Runs the float model on `samples` and chooses each layer's quantization.
pub(crate) fn ranges(model: &FloatModel, head: &FloatConv, samples: &[Sample]) -> Result<Ranges> {
    let device = device();
    let trunk = Trunk::new(model, &device);
    let progress = Progress::start("calibrating", samples.len());
    let none = || (vec![Histogram::default(); model.trunk.len()], Vec::new());
    let (histograms, logits) = samples
        .par_chunks(device::BATCH)
        .try_fold(none, |(mut histograms, mut logits), chunk| -> Result<_> {
            let inputs = chunk.iter().map(Sample::input).collect::<Result<Vec<_>>>()?;
            let images: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
            let mut failed = None;
            let map = trunk.forward_watched(model::batch(&images, &device), |index, output| {
                match model::numbers(output.clone()) {
                    Ok(values) => histograms[index].add(&values),
                    Err(error) => failed = Some(error),
                }
            });
            failed.map_or(Ok(()), Err)?;
            logits.extend(cell_logits(head, &model::numbers(map)?));
            progress.advance(chunk.len());
            Ok((histograms, logits))
        })
        .try_reduce(none, |(a, mut logits), (b, more)| {
            let merged = a.into_iter().zip(b).map(|(a, b)| a.merge(b)).collect();
            logits.extend(more);
            Ok((merged, logits))
        })?;
    progress.finish();
    let trunk = histograms
        .iter()
        .zip(&model.trunk)
        .map(|(histogram, conv)| {
            let scale = histogram
                .scale()
                .with_context(|| format!("{} gave nothing but zeros on {} images", conv.name, samples.len()))?;
            Ok(QuantParams { scale, zero_point: 0 })
        })
        .collect::<Result<_>>()?;
    Ok(Ranges { trunk, head: head_params(&logits)? })
}

/// The class logits of every cell of feature maps (NCHW).
fn cell_logits(head: &FloatConv, maps: &[f32]) -> Vec<f32> {
    let cells = CELLS;
    let mut out = Vec::new();
    for map in maps.chunks_exact(head.in_channels * cells) {
        for cell in 0..cells {
            let features: Vec<f32> = map.iter().skip(cell).step_by(cells).copied().collect();
            out.extend(model::logits(head, &features));
        }
    }
    out
}

/// Cells of the last feature map.
const CELLS: usize = (roentgen::network::vgg::INPUT_SIZE >> crate::weights::BLOCKS).pow(2);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn even_values_are_not_clipped_and_a_lone_giant_is() {
        let mut even = Histogram::default();
        let values: Vec<f32> = (1..100_000).map(|i| i as f32 / 1000.0).collect();
        even.add(&values);
        let clip = even.scale().unwrap() * 255.0;
        assert!((98.0..101.0).contains(&clip), "{clip}");
        // One value in a thousand million.
        let mut spiked = even.clone();
        spiked.bins.iter_mut().for_each(|count| *count *= 10_000);
        spiked.add(&[1000.0]);
        let clip = spiked.scale().unwrap() * 255.0;
        assert!(clip < 1000.0, "{clip}");
        assert_eq!(Histogram::default().scale(), None);
    }

    proptest! {
        #[test]
        fn the_chosen_scale_is_about_as_good_as_any(values in prop::collection::vec(0f32..40.0, 200..400)) {
            // The oracle quantizes the values themselves, for every clip from 1 % of the greatest to all of it.
            let error = |scale: f32| -> f64 {
                let of = |v: &f32| {
                    let error = f64::from(*v) - f64::from((v / scale).round().min(255.0) * scale);
                    error.powi(2) * if *v > 255.5 * scale { CLIPPING } else { 1.0 }
                };
                values.iter().map(of).sum()
            };
            let greatest = values.iter().copied().fold(0f32, f32::max);
            let least = (1..=100).map(|percent| error(greatest * percent as f32 / 100.0 / 255.0))
                .fold(f64::INFINITY, f64::min);
            let mut histogram = Histogram::default();
            histogram.add(&values);
            let chosen = error(histogram.scale().unwrap());
            // The histogram knows the rounding error only on average, and values to one bin.
            prop_assert!(chosen <= least * 1.6 + 1e-6, "{chosen} against {least}");
        }

        #[test]
        fn merging_is_counting_all(a in prop::collection::vec(0f32..9.0, 0..50), b in prop::collection::vec(0f32..900.0, 0..50)) {
            let count = |parts: &[&[f32]]| {
                let mut histogram = Histogram::default();
                parts.iter().for_each(|part| histogram.add(part));
                histogram
            };
            prop_assert_eq!(count(&[&a]).merge(count(&[&b])), count(&[&a, &b]));
        }

        #[test]
        fn a_maps_mean_is_as_near_as_by_the_whole_range(low in -50f32..50.0, width in 0.1f32..60.0, giant in 1f32..9.0,
            seed in any::<u64>()) {
            let mut random = crate::random::SplitMix::new(seed);
            let mut logits: Vec<f32> = (0..40 * CELLS).map(|_| random.uniform(low, low + width)).collect();
            logits[7] *= giant;
            let params = head_params(&logits).unwrap();
            let cost = |params: QuantParams| -> f64 {
                let mean = |map: &[f32]| {
                    map.iter().map(|&v| f64::from(params.dequantize(params.quantize(v)) - v)).sum::<f64>() / CELLS as f64
                };
                logits.chunks_exact(CELLS).map(|map| mean(map).powi(2)).sum::<f64>()
            };
            let (low, high) = logits.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
            let scale = (high - low) / 255.0;
            let whole = QuantParams { scale, zero_point: (-low / scale).round() as u8 };
            // The choice knows rounding errors only on average.
            prop_assert!(cost(params) <= 2.0 * cost(whole), "{} against {}", cost(params), cost(whole));
            prop_assert!(params.scale <= whole.scale * 1.001);
        }
    }

    #[test]
    fn a_head_that_tells_nothing_apart_is_refused() {
        assert!(head_params(&[0.0; 49]).is_err());
        assert!(head_params(&[f32::INFINITY, 0.0]).is_err());
        assert!(head_params(&[]).is_err());
    }
}

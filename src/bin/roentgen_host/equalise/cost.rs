//! Which factors equalise a pair of layers best: their cost, derived, and its least. Not what is done with them (see
//! `equalise`).
//!
//! Activations have one scale a layer, set by the widest channel; a narrow one gets few of the 255 steps. Weights have one
//! scale an output channel, set by the greatest weight: what widens a narrow channel makes small the weights that read it,
//! and coarse what is small beside others. So a balance is sought, as SmoothQuant does for activations and weights of
//! transformers (Xiao et al. 2022, arXiv:2211.10438), here by the noise itself. A rounding error has a variance of a twelfth
//! of its step squared. With `r_c` the greatest value of channel `c`, `a_c` how often it is not 0 (zeros are exact), `v_c`
//! its variance (its mean is the bias correction's affair), `m_oc` the greatest of the nine weights from `c` to output
//! channel `o` and `w²_oc` the sum of their squares,
//! the noise in the output `o` of the next layer is a twelfth of
//!
//! ```text
//! Δ²·Σ_c a_c·w²_oc·s_c²  +  δ_o²·9·Σ_c v_c / s_c²        Δ = max_c(r_c / s_c) / 255,  δ_o = max_c(m_oc·s_c) / 127
//! ```
//!
//! The outputs are not alike in what their noise does: it goes on through the layers after them. What a variance in channel
//! `o` adds to the variance of the class logits, if errors are independent, is found backwards from the head:
//! `g_c = a_c·Σ_o w²_oc·g_o`. The cost of a pair of layers is the sum of the above weighted by `g_o`. The second term counts
//! [`WEIGHTS`] times: see there.
//!
//! The factors of one layer enter no other layer's cost, since dividing a whole output channel leaves its weights' relative
//! error what it was. And the cost is convex in `t_c = ln s_c`: sums, products and maxima of exponentials of linear
//! functions of `t` are. So it has one minimum, which is approached by following the gradient (Adam, Kingma and Ba 2014),
//! with every maximum replaced by a p-norm of growing p; the best that was met counts, by the cost as it is.

use super::Channels;
use crate::weights::FloatConv;

/// How often the noise of the weights counts. Learned rounding takes part of it back, so that it might count less; but it is
/// the same at all places of a map, where that of activations averages out, so that it might count more. Measured with
/// VGG16 on 500 radiographs that chose nothing, ranges from 64: probabilities off by 0.0034, 0.0031 and 0.0035 (mean) where
/// it counts 0.2, 1 and 5 times, by 0.0043 without equalisation; logits by 0.071, 0.053 and 0.050, without by 0.061 (root
/// mean square).
const WEIGHTS: f64 = 1.0;

/// Most that a factor is above or below 1: what the least and the greatest channel are brought together by is 2¹⁶ then.
const GREATEST: f64 = 256.0;

/// Steps of the descent; the sharpness of the p-norms grows over them from the first to the second of [`SHARPNESS`].
const STEPS: usize = 300;
/// How far a step goes at first, in logarithms of factors.
const RATE: f64 = 0.05;
/// See [`STEPS`].
const SHARPNESS: (f64, f64) = (8.0, 128.0);

/// The nine weights of every output and input channel, in this order, put together.
pub(super) fn taps(conv: &FloatConv, start: f64, with: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let kernels = conv.weights.chunks_exact((conv.kernel * conv.kernel).max(1));
    kernels.map(|kernel| kernel.iter().fold(start, |all, &w| with(all, f64::from(w)))).collect()
}

/// The cost of a pair of layers.
pub(super) struct Cost {
    /// Input channels of the second layer.
    channels: usize,
    /// ln r_c; −∞ where the channel was always 0.
    range: Vec<f64>,
    /// a_c·Σ_o g_o·w²_oc.
    rounding: Vec<f64>,
    /// ln m_oc, −∞ where the weights are 0; a row an output channel.
    greatest: Vec<f64>,
    /// v_c times the second layer's taps a channel.
    variance: Vec<f64>,
    /// g_o.
    importance: Vec<f64>,
}

impl Cost {
    pub(super) fn new(own: &Channels, next: &FloatConv, importance: &[f64]) -> Self {
        let channels = next.in_channels;
        let squares = taps(next, 0.0, |sum, w| sum + w * w);
        let rounding = |c: usize| {
            let rows = importance.iter().zip(squares.chunks_exact(channels));
            own.share_alive(c) * rows.map(|(g, row)| g * row[c]).sum::<f64>()
        };
        let area = (next.kernel * next.kernel) as f64;
        Self {
            channels,
            range: own.greatest.iter().map(|&r| f64::from(r).ln()).collect(),
            rounding: (0..channels).map(rounding).collect(),
            greatest: taps(next, 0.0, |all, w| all.max(w.abs())).into_iter().map(f64::ln).collect(),
            variance: (0..channels).map(|c| area * own.variance(c)).collect(),
            importance: importance.to_vec(),
        }
    }

    /// The cost of factors whose logarithms are `t`.
    pub(super) fn of(&self, t: &[f64]) -> f64 {
        self.smooth(t, None).0
    }

    /// The cost of factors whose logarithms are `t`, with p-norms for maxima where a p is given, and the gradient of its
    /// logarithm.
    fn smooth(&self, t: &[f64], p: Option<f64>) -> (f64, Vec<f64>) {
        let narrowed: Vec<f64> = self.range.iter().zip(t).map(|(r, t)| r - t).collect();
        let (delta, of_delta) = maximum(&narrowed, p);
        let step = (2.0 * delta).exp() / (255.0 * 255.0);
        let noise: Vec<f64> = self.rounding.iter().zip(t).map(|(a, t)| a * (2.0 * t).exp()).collect();
        let inputs: Vec<f64> = self.variance.iter().zip(t).map(|(v, t)| v * (-2.0 * t).exp()).collect();
        let (noises, energy) = (noise.iter().sum::<f64>(), inputs.iter().sum::<f64>());
        // Σ_o g_o·δ_o², and how much of it hangs on each channel.
        let (mut steps, mut shares) = (0.0, vec![0.0; self.channels]);
        let mut scaled = vec![0.0; self.channels];
        for (row, g) in self.greatest.chunks_exact(self.channels).zip(&self.importance) {
            scaled.iter_mut().zip(row.iter().zip(t)).for_each(|(scaled, (m, t))| *scaled = m + t);
            let (delta, parts) = maximum(&scaled, p);
            let own = WEIGHTS * g * (2.0 * delta).exp() / (127.0 * 127.0);
            steps += own;
            shares.iter_mut().zip(parts).for_each(|(share, part)| *share += own * part);
        }
        let cost = step * noises + steps * energy;
        let gradient = (0..self.channels).map(|c| {
            let activations = step * (noise[c] - of_delta[c] * noises);
            let weights = shares[c] * energy - steps * inputs[c];
            if cost > 0.0 { 2.0 * (activations + weights) / cost } else { 0.0 }
        });
        (cost, gradient.collect())
    }

    /// The factors of least cost.
    pub(super) fn descend(&self) -> Vec<f32> {
        let live: Vec<bool> = self.range.iter().map(|r| r.is_finite()).collect();
        let (mut best, mut least) = (vec![0.0; self.channels], self.of(&vec![0.0; self.channels]));
        let mut t = best.clone();
        let (mut mean, mut square) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        for step in 0..STEPS {
            let done = step as f64 / STEPS as f64;
            let p = SHARPNESS.0 * (SHARPNESS.1 / SHARPNESS.0).powf(done);
            let (_, gradient) = self.smooth(&t, Some(p));
            let rate = RATE * (1.0 - done);
            // The sums start at 0; these make up for it.
            let grown = |decay: f64| 1.0 - decay.powi(step as i32 + 1);
            for c in (0..self.channels).filter(|&c| live[c]) {
                mean[c] = 0.9 * mean[c] + 0.1 * gradient[c];
                square[c] = 0.99 * square[c] + 0.01 * gradient[c] * gradient[c];
                let pace = (mean[c] / grown(0.9)) / ((square[c] / grown(0.99)).sqrt() + 1e-12);
                t[c] = (t[c] - rate * pace).clamp(-GREATEST.ln(), GREATEST.ln());
            }
            let cost = self.of(&t);
            if cost < least {
                (least, best) = (cost, t.clone());
            }
        }
        best.into_iter().map(|t| t.exp() as f32).collect()
    }
}

/// The greatest of some logarithms, and its derivative by each of them. With a p it is the logarithm of the p-norm instead,
/// without one the first of the greatest counts alone.
fn maximum(logarithms: &[f64], p: Option<f64>) -> (f64, Vec<f64>) {
    let greatest = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut parts = vec![0.0; logarithms.len()];
    if !greatest.is_finite() {
        return (greatest, parts);
    }
    let Some(p) = p else {
        if let Some(first) = logarithms.iter().position(|&l| l == greatest) {
            parts[first] = 1.0;
        }
        return (greatest, parts);
    };
    for (part, l) in parts.iter_mut().zip(logarithms) {
        let below = p * (l - greatest);
        // Beyond that it is nothing.
        *part = if below > -40.0 { below.exp() } else { 0.0 };
    }
    let sum: f64 = parts.iter().sum();
    parts.iter_mut().for_each(|part| *part /= sum);
    (greatest + sum.ln() / p, parts)
}

#[cfg(test)]
mod tests {
    use super::super::multiply;
    use super::super::tests::conv;
    use super::*;
    use crate::random::SplitMix;
    use proptest::prelude::*;

    /// A second layer, what it reads, and weights of its outputs.
    fn pair(seed: u64, inputs: usize, outputs: usize) -> (Channels, FloatConv, Vec<f64>) {
        let mut random = SplitMix::new(seed);
        let mut next = conv(&mut random, "block1_conv2", (outputs, inputs, 3));
        let spread: Vec<f32> = (0..inputs).map(|_| 10f32.powf(random.uniform(-1.0, 1.0))).collect();
        multiply(&mut next, &spread);
        let mut own = Channels::new(inputs);
        let values: Vec<f32> = (0..inputs * 20)
            .map(|i| random.uniform(-1.0, 1.0).max(0.0) * 10f32.powf(((i / 20 * 37) % 7) as f32 / 3.0 - 1.0))
            .collect();
        own.add(&values, 20);
        let importance = (0..outputs).map(|_| f64::from(random.uniform(0.1, 2.0))).collect();
        (own, next, importance)
    }

    /// The equations of the page's head, term by term.
    fn naive((own, next, importance): &(Channels, FloatConv, Vec<f64>), s: &[f64]) -> f64 {
        let range = |c: usize| f64::from(own.greatest[c]) / s[c];
        let delta = (0..s.len()).map(range).fold(0.0, f64::max) / 255.0;
        let mut cost = 0.0;
        for (o, g) in importance.iter().enumerate() {
            let w = |c: usize, k: usize| f64::from(next.weights[(o * s.len() + c) * 9 + k]);
            let mut step = 0f64;
            for (c, k) in (0..s.len()).flat_map(|c| (0..9).map(move |k| (c, k))) {
                step = step.max((w(c, k) * s[c]).abs() / 127.0);
            }
            for (c, &scale) in s.iter().enumerate() {
                for k in 0..9 {
                    cost += g * (delta * w(c, k) * scale).powi(2) * own.alive[c] / own.count;
                    let mean = own.sum[c] / own.count;
                    cost += WEIGHTS * g * step.powi(2) * (own.squares[c] / own.count - mean * mean) / scale.powi(2);
                }
            }
        }
        cost
    }

    proptest! {
        #[test]
        fn the_cost_is_that_of_plain_loops_and_the_gradient_its_slope(seed in any::<u64>(), inputs in 1usize..6,
            outputs in 1usize..5, t in prop::collection::vec(-2f64..2.0, 6)) {
            let pair = pair(seed, inputs, outputs);
            let (t, cost) = (&t[..inputs], Cost::new(&pair.0, &pair.1, &pair.2));
            let s: Vec<f64> = t.iter().map(|t| t.exp()).collect();
            let (fast, plain) = (cost.of(t), naive(&pair, &s));
            prop_assert!((fast - plain).abs() <= 1e-9 * plain, "{fast} and {plain}");
            let (_, gradient) = cost.smooth(t, Some(6.0));
            for c in 0..inputs {
                let at = |step: f64| {
                    let mut t = t.to_vec();
                    t[c] += step;
                    cost.smooth(&t, Some(6.0)).0.ln()
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                prop_assert!((slope - gradient[c]).abs() < 1e-5, "{slope} and {}", gradient[c]);
            }
        }
    }

    #[test]
    fn no_factors_of_a_fine_grid_are_much_better_than_those_found() {
        for seed in 0..8 {
            let pair = pair(seed, 3, 4);
            let cost = Cost::new(&pair.0, &pair.1, &pair.2);
            let found: Vec<f64> = cost.descend().into_iter().map(|s| f64::from(s).ln()).collect();
            // One factor may stay as it is: only their ratios count.
            let grid = (-40..=40).flat_map(|a| (-40..=40).map(move |b| [0.0, f64::from(a) / 8.0, f64::from(b) / 8.0]));
            let least = grid.map(|t| cost.of(&t)).fold(f64::INFINITY, f64::min);
            assert!(cost.of(&found) < 1.02 * least, "seed {seed}: {} against {least}", cost.of(&found));
            assert!(cost.of(&found) <= cost.of(&[0.0; 3]));
        }
    }
}

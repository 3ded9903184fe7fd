//! How far a figure could lie off by chance: Wilson's interval for proportions, a seeded bootstrap for everything else.
//! Says nothing of what a biased set of images does to a figure: no interval can.

use crate::random::SplitMix;

/// Lower and upper end of a 95 % confidence interval.
pub(crate) type Interval = [f64; 2];

/// The 97.5 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// How many resamples a bootstrap draws.
pub(crate) const RESAMPLES: usize = 1000;

/// The seed of every bootstrap: the same images give the same intervals.
pub(crate) const SEED: u64 = 20_200_411;

/// The score interval of a proportion of `hits` in `n` (E. B. Wilson, *Probable inference, the law of succession, and
/// statistical inference*, 1927), without continuity correction. Where `n` is 0 nothing is known: 0..=1.
pub(crate) fn wilson(hits: usize, n: usize) -> Interval {
    if n == 0 {
        return [0.0, 1.0];
    }
    let (count, share) = (n as f64, hits as f64 / n as f64);
    let denominator = 1.0 + Z * Z / count;
    let centre = (share + Z * Z / (2.0 * count)) / denominator;
    let half = Z * (share * (1.0 - share) / count + Z * Z / (4.0 * count * count)).sqrt() / denominator;
    // At no hit, or nothing but hits, the formula gives the end itself but for rounding.
    let low = if hits == 0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if hits == n { 1.0 } else { (centre + half).min(1.0) };
    [low, high]
}

/// Resamples of a set of images, as the number of times that each image was drawn. Every statistic of one evaluation is
/// computed on the same resamples, so that differences between them are paired.
pub(crate) struct Bootstrap {
    weights: Vec<Vec<u16>>,
}

impl Bootstrap {
    /// [`RESAMPLES`] draws of `n` images out of `n`, with replacement.
    pub(crate) fn new(n: usize, seed: u64) -> Self {
        let weights = (0..RESAMPLES as u64).map(|resample| {
            let mut random = SplitMix::of(&[seed, resample]);
            let mut weights = vec![0u16; n];
            for _ in 0..n {
                let weight = &mut weights[random.below(n)];
                *weight = weight.saturating_add(1);
            }
            weights
        });
        Self { weights: weights.collect() }
    }

    /// The percentile interval of a statistic (B. Efron 1979), which is told how often each image counts. Resamples on
    /// which it is undefined are left out; `None` where more than half are.
    pub(crate) fn interval(&self, statistic: impl Fn(&[u16]) -> Option<f64>) -> Option<Interval> {
        let mut values: Vec<f64> = self.weights.iter().filter_map(|weights| statistic(weights)).collect();
        if values.len() * 2 < RESAMPLES {
            return None;
        }
        values.sort_by(f64::total_cmp);
        Some([quantile(&values, 0.025), quantile(&values, 0.975)])
    }
}

/// The quantile of sorted values, interpolated linearly between neighbours; `values` is not empty.
fn quantile(values: &[f64], share: f64) -> f64 {
    let position = share * (values.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(values.len() - 1);
    values[below] + (values[above] - values[below]) * (position - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wilson_gives_the_published_intervals() {
        // Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (score, without correction).
        for (hits, n, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let [a, b] = wilson(hits, n);
            assert!((a - low).abs() < 5e-5 && (b - high).abs() < 5e-5, "{hits} of {n}: {a} {b}");
        }
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
        assert_eq!(wilson(29, 29)[1], 1.0);
    }

    proptest! {
        #[test]
        fn wilson_holds_the_share_and_mirrors(n in 1usize..2000, part in 0f64..=1.0) {
            let hits = (part * n as f64) as usize;
            let [low, high] = wilson(hits, n);
            let share = hits as f64 / n as f64;
            prop_assert!(0.0 <= low && low <= share && share <= high && high <= 1.0);
            let [mirrored_low, mirrored_high] = wilson(n - hits, n);
            prop_assert!((low - (1.0 - mirrored_high)).abs() < 1e-12 && (high - (1.0 - mirrored_low)).abs() < 1e-12);
        }
    }

    #[test]
    fn the_bootstrap_follows_its_seed_and_agrees_with_theory() {
        let n = 400;
        let mean = |weights: &[u16]| {
            let hits: usize = weights.iter().take(300).map(|&weight| usize::from(weight)).sum();
            Some(hits as f64 / n as f64)
        };
        let one = Bootstrap::new(n, 1).interval(mean);
        assert_eq!(one, Bootstrap::new(n, 1).interval(mean));
        assert_ne!(one, Bootstrap::new(n, 2).interval(mean));
        // Three quarters of 400: the standard error is 0.0217.
        let [low, high] = one.unwrap();
        assert!((low - (0.75 - Z * 0.021_65)).abs() < 0.006 && (high - (0.75 + Z * 0.021_65)).abs() < 0.006);
        assert_eq!(Bootstrap::new(n, 1).interval(|_| None), None);
        assert_eq!(
            Bootstrap::new(3, 1).interval(|weights| Some(weights.iter().map(|&w| f64::from(w)).sum())),
            Some([3.0; 2])
        );
    }
}

//! Random numbers that are the same on every machine, for ever: a seed in a model's notes must mean something in ten
//! years. Not for secrets.

/// Steele, Lea and Flood's SplitMix64 ("Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    /// The stream of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of several numbers together, e.g. seed, epoch and image.
    pub(crate) fn of(parts: &[u64]) -> Self {
        let mut state = Self(0);
        for &part in parts {
            state.0 ^= part;
            state.0 = state.next();
        }
        state
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `low..high`.
    pub(crate) fn uniform(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.next() >> 40) as f32 / (1u32 << 24) as f32;
        low + (high - low) * unit
    }

    /// Uniform in `0..end`; 0 where `end` is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // The bias of the remainder is below 2⁻⁴⁰ for anything that fits in memory.
        (self.next() % (end.max(1) as u64)) as usize
    }

    /// True with probability `p`.
    pub(crate) fn chance(&mut self, p: f32) -> bool {
        self.uniform(0.0, 1.0) < p
    }

    /// Standard normal (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f32 {
        let u = self.uniform(f32::EPSILON, 1.0);
        let v = self.uniform(0.0, std::f32::consts::TAU);
        (-2.0 * u.ln()).sqrt() * v.cos()
    }

    /// Fisher and Yates's shuffle.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_every_index_and_follows_the_seed() {
        let shuffled = |seed| {
            let mut order: Vec<usize> = (0..100).collect();
            SplitMix::new(seed).shuffle(&mut order);
            order
        };
        let mut sorted = shuffled(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
    }

    #[test]
    fn the_distributions_have_their_moments() {
        let mut random = SplitMix::of(&[1, 2, 3]);
        let n = 20_000;
        let uniform: f32 = (0..n).map(|_| random.uniform(2.0, 4.0)).sum::<f32>() / n as f32;
        assert!((uniform - 3.0).abs() < 0.03, "{uniform}");
        let normals: Vec<f32> = (0..n).map(|_| random.normal()).collect();
        let mean = normals.iter().sum::<f32>() / n as f32;
        let variance = normals.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n as f32;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}

//! How long images take: exact quantiles over a window of the last [`WINDOW`] reports, and sums since the start. A window
//! rather than a histogram: a box judges some hundred images a day, so that it is a day long, small, and needs no bounds
//! chosen beforehand for boards that differ by a factor of a thousand.

use crate::report::Timing;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How many reports the quantiles are over.
pub const WINDOW: usize = 256;

/// The four steps of one image, in milliseconds: decode, preprocess, infer, total.
type Steps = [f64; 4];

/// What is remembered of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Latencies {
    window: VecDeque<Steps>,
    count: u64,
    sums: Steps,
}

/// One step's quantiles over the window, by nearest rank: each is a time that one image really took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half of the images took no longer.
    pub p50: f64,
    /// Nine in ten.
    pub p90: f64,
    /// Ninety-nine in a hundred.
    pub p99: f64,
    /// The longest of the window.
    pub max: f64,
    /// The sum of all since the start.
    pub sum: f64,
}

/// How long images take, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many images the quantiles are over: the last ones, at most [`WINDOW`].
    pub window: u64,
    /// How many images there were since the start, whose times the sums add up.
    pub count: u64,
    /// File to radiograph.
    pub decode: Quantiles,
    /// Radiograph to tensor.
    pub preprocess: Quantiles,
    /// Tensor to evidence.
    pub infer: Quantiles,
    /// All of it.
    pub total: Quantiles,
}

impl Latencies {
    /// One report more.
    pub(super) fn note(&mut self, timing: &Timing) {
        let steps = [timing.decode, timing.preprocess, timing.infer, timing.total];
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(steps);
        self.count += 1;
        for (sum, step) in self.sums.iter_mut().zip(steps) {
            *sum += step;
        }
    }

    /// The quantiles; `None` before the first report.
    pub(super) fn quantiles(&self) -> Option<Latency> {
        if self.window.is_empty() {
            return None;
        }
        let of = |step: usize| {
            let mut times: Vec<f64> = self.window.iter().map(|steps| steps[step]).collect();
            times.sort_by(f64::total_cmp);
            let rank = |quantile: f64| {
                let rank = (quantile * times.len() as f64).ceil() as usize;
                times[rank.clamp(1, times.len()) - 1]
            };
            Quantiles { p50: rank(0.5), p90: rank(0.9), p99: rank(0.99), max: rank(1.0), sum: self.sums[step] }
        };
        let [decode, preprocess, infer, total] = std::array::from_fn(of);
        Some(Latency { window: self.window.len() as u64, count: self.count, decode, preprocess, infer, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_last_images_and_sums_those_of_all() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantiles(), None);
        // 1000 falls out of the window again.
        for total in [1000.0].into_iter().chain((1..=WINDOW).map(|i| i as f64)) {
            latencies.note(&Timing { decode: 1.0, preprocess: 2.0, infer: total / 2.0, total });
        }
        let found = latencies.quantiles().expect("there are some");
        assert_eq!((found.window, found.count), (WINDOW as u64, WINDOW as u64 + 1));
        let Quantiles { p50, p90, p99, max, sum } = found.total;
        // By nearest rank of 1 … 256: ⌈0.5·256⌉, ⌈0.9·256⌉, ⌈0.99·256⌉.
        assert_eq!([p50, p90, p99, max], [128.0, 231.0, 254.0, 256.0]);
        assert_eq!(sum, 1000.0 + (256.0 * 257.0) / 2.0);
        assert_eq!(found.infer.p50, 64.0);
        assert_eq!((found.decode.p99, found.preprocess.max), (1.0, 2.0));
    }

    #[test]
    fn one_image_is_every_quantile() {
        let mut latencies = Latencies::default();
        latencies.note(&Timing { decode: 1.0, preprocess: 2.0, infer: 3.0, total: 6.0 });
        let found = latencies.quantiles().expect("there is one");
        assert_eq!([found.infer.p50, found.infer.p90, found.infer.p99, found.infer.max], [3.0; 4]);
    }
}

//! Which images a step sees, and their augmented copies, made ahead of the training. Everything follows from the seed
//! and the step's number, so that a resumed run sees what an uninterrupted one would have seen.

use crate::augment::{Strength, augment};
use crate::dataset::Sample;
use crate::lower_cache::LowerCache;
use crate::random::SplitMix;
use anyhow::Result;
use half::f16;
use rayon::prelude::*;
use roentgen::report::Label;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// Labelled images in memory.
pub(crate) struct Images {
    /// 224 × 224 grey levels each.
    pub(crate) inputs: Vec<Vec<u8>>,
    /// Their classes.
    pub(crate) labels: Vec<Label>,
}

impl Images {
    /// Reads and preprocesses every sample.
    pub(crate) fn read(samples: &[Sample]) -> Result<Self> {
        let inputs = samples.par_iter().map(Sample::input).collect::<Result<_>>()?;
        Ok(Self { inputs, labels: samples.iter().map(|sample| sample.label).collect() })
    }
}

/// What the frozen blocks are to be asked about, or have been.
pub(crate) enum Input {
    /// 224 × 224 grey levels.
    Image(Vec<u8>),
    /// What the frozen blocks made of them, as their cache kept it.
    Lower(Vec<f16>),
}

/// One step's images, augmented, with their labels.
pub(crate) struct Step {
    /// The images.
    pub(crate) inputs: Vec<Input>,
    /// Their records in the cache of the frozen blocks, where there is one.
    pub(crate) records: Vec<usize>,
    /// Their classes.
    pub(crate) labels: Vec<Label>,
}

/// How steps are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Images a step.
    pub(crate) batch: usize,
    /// How far classes are evened out, 0..1.
    pub(crate) balance: f64,
    /// How strongly images are changed, 0..1.
    pub(crate) augmentation: f32,
    /// How many augmented copies of an image there are; 0: a new one at every draw.
    pub(crate) copies: usize,
    /// Where all chance comes from.
    pub(crate) seed: u64,
}

/// Makes the steps of `range` on all cores, a few ahead of their use.
pub(crate) fn loader(train: Images, plan: Plan, range: Range<usize>, cache: Option<Arc<LowerCache>>) -> Receiver<Step> {
    let (sender, receiver) = sync_channel(4);
    let strength = Strength::scaled(plan.augmentation);
    std::thread::spawn(move || {
        let mut random = SplitMix::of(&[plan.seed, 0xa6]);
        let mut draw = Draw::new(&train.labels, plan.balance);
        let mut draws = vec![0usize; train.labels.len()];
        for step in 0..range.end {
            // The piles of the steps before a resumed one are drawn as they were, and only drawn.
            let chosen: Vec<usize> = (0..plan.batch).map(|_| draw.next(&mut random)).collect();
            let records: Vec<usize> = chosen
                .iter()
                .map(|&index| {
                    draws[index] += 1;
                    index * plan.copies + (draws[index] - 1) % plan.copies.max(1)
                })
                .collect();
            if step < range.start {
                continue;
            }
            let inputs = (0..plan.batch)
                .into_par_iter()
                .map(|place| {
                    if let Some(kept) = cache.as_ref().and_then(|cache| cache.get(records[place])) {
                        return Input::Lower(kept);
                    }
                    let stream = match plan.copies {
                        0 => [plan.seed, step as u64, place as u64],
                        _ => [plan.seed, u64::MAX, records[place] as u64],
                    };
                    Input::Image(augment(&train.inputs[chosen[place]], &strength, &mut SplitMix::of(&stream)))
                })
                .collect();
            let labels = chosen.iter().map(|&index| train.labels[index]).collect();
            if sender.send(Step { inputs, records, labels }).is_err() {
                // The training ended early.
                return;
            }
        }
    });
    receiver
}

/// What multiplies `count` features of a step: 0 with probability `dropped`, else what keeps their mean.
pub(crate) fn kept(seed: u64, step: usize, count: usize, dropped: f64) -> Vec<f32> {
    let mut random = SplitMix::of(&[seed, 0xd0, step as u64]);
    let scale = (1.0 / (1.0 - dropped)) as f32;
    let below = (dropped * 65536.0).round() as u64;
    let mut out = Vec::with_capacity(count + 3);
    while out.len() < count {
        let bits = random.next();
        out.extend((0..4).map(|part| if (bits >> (16 * part)) & 0xffff < below { 0.0 } else { scale }));
    }
    out.truncate(count);
    out
}

/// Draws images: the class by chance, then the next image of the class's shuffled pile.
struct Draw {
    piles: Vec<Vec<usize>>,
    left: Vec<Vec<usize>>,
    shares: Vec<f64>,
}

impl Draw {
    fn new(labels: &[Label], balance: f64) -> Self {
        let piles: Vec<Vec<usize>> = Label::ALL
            .into_iter()
            .map(|label| (0..labels.len()).filter(|&index| labels[index] == label).collect::<Vec<_>>())
            .filter(|pile| !pile.is_empty())
            .collect();
        let shares = piles.iter().map(|pile| (pile.len() as f64).powf(1.0 - balance)).collect();
        let left = vec![Vec::new(); piles.len()];
        Self { piles, left, shares }
    }

    fn next(&mut self, random: &mut SplitMix) -> usize {
        let sum: f64 = self.shares.iter().sum();
        let mut at = f64::from(random.uniform(0.0, 1.0)) * sum;
        let mut class = 0;
        while class + 1 < self.shares.len() && at >= self.shares[class] {
            at -= self.shares[class];
            class += 1;
        }
        if self.left[class].is_empty() {
            self.left[class] = self.piles[class].clone();
            random.shuffle(&mut self.left[class]);
        }
        self.left[class].pop().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn drawing_evens_classes_out_as_told_and_sees_every_image() {
        let labels: Vec<Label> = (0..1000).map(|i| if i < 900 { Label::Normal } else { Label::Covid }).collect();
        for (balance, expected) in [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)] {
            let mut draw = Draw::new(&labels, balance);
            let mut random = SplitMix::new(7);
            let drawn: Vec<usize> = (0..20_000).map(|_| draw.next(&mut random)).collect();
            let share = drawn.iter().filter(|&&index| index >= 900).count() as f64 / drawn.len() as f64;
            assert!((share - expected).abs() < 0.02, "{balance}: {share}");
            assert_eq!(drawn.into_iter().collect::<BTreeSet<_>>().len(), 1000);
        }
    }

    #[test]
    fn a_loader_that_starts_later_gives_the_same_steps() {
        let images = || Images {
            inputs: (0..7).map(|seed| roentgen::radiograph::phantom::phantom(seed, 224)).collect(),
            labels: (0..7).map(|i| if i < 5 { Label::Normal } else { Label::Covid }).collect(),
        };
        let bytes = |step: &Step| -> Vec<Vec<u8>> {
            let image = |input: &Input| match input {
                Input::Image(image) => image.clone(),
                Input::Lower(_) => panic!("there is no cache"),
            };
            step.inputs.iter().map(image).collect()
        };
        for copies in [0, 2] {
            let plan = Plan { batch: 3, balance: 0.5, augmentation: 0.5, copies, seed: 9 };
            let all: Vec<Step> = loader(images(), plan, 0..12, None).iter().collect();
            let late: Vec<Step> = loader(images(), plan, 9..12, None).iter().collect();
            assert_eq!((all.len(), late.len()), (12, 3));
            for (a, b) in all[9..].iter().zip(&late) {
                assert!(bytes(a) == bytes(b) && a.labels == b.labels && a.records == b.records);
            }
            let different: BTreeSet<Vec<u8>> = all.iter().flat_map(bytes).collect();
            let records: BTreeSet<usize> = all.iter().flat_map(|step| step.records.clone()).collect();
            if copies == 0 {
                assert_eq!(different.len(), 36, "every draw is changed anew");
            } else {
                assert!(different.len() == records.len() && records.len() <= 14, "{records:?}");
            }
        }
    }

    #[test]
    fn dropping_keeps_the_mean_and_drops_the_share_it_was_told_to() {
        let kept = kept(1, 2, 100_001, 0.3);
        let zeros = kept.iter().filter(|&&value| value == 0.0).count() as f64 / kept.len() as f64;
        let mean = kept.iter().map(|&value| f64::from(value)).sum::<f64>() / kept.len() as f64;
        assert_eq!(kept.len(), 100_001);
        assert!((zeros - 0.3).abs() < 0.01 && (mean - 1.0).abs() < 0.01, "{zeros} {mean}");
    }
}

//! A trunk of random weights, for training that starts from nothing. Not its training: with a few thousand images the
//! ImageNet weights of `roentgen-host import` are a far better start.

use crate::random::SplitMix;
use crate::weights::{FloatConv, FloatModel};
use roentgen::network::vgg::{Step, TRUNK};
use std::collections::BTreeMap;

/// The mean and the deviation of a chest radiograph's greys, which the first layer takes out: of 255.
const GREY: (f32, f32) = (120.0, 60.0);

/// VGG16's trunk with its widths divided by `narrower` (1 for VGG16 itself), drawn as He et al. 2015 propose
/// ("Delving deep into rectifiers", equation 10): normal with variance 2 / fan-in, biases 0.
pub(crate) fn random_trunk(seed: u64, narrower: usize) -> FloatModel {
    let width = |channels: usize| if channels == 1 { 1 } else { (channels / narrower.max(1)).max(1) };
    let mut trunk: Vec<FloatConv> = Vec::new();
    for step in TRUNK {
        let Step::Conv(name, inputs, outputs) = step else {
            continue;
        };
        let (in_channels, out_channels) = (width(inputs), width(outputs));
        let fan_in = 9 * in_channels;
        let deviation = (2.0 / fan_in as f32).sqrt();
        let mut random = SplitMix::of(&[seed, 0x5c, trunk.len() as u64]);
        let weights = (0..out_channels * fan_in).map(|_| deviation * random.normal()).collect();
        let bias = vec![0.0; out_channels];
        trunk.push(FloatConv { name: name.into(), out_channels, in_channels, kernel: 3, weights, bias });
    }
    // The network reads bare greys: what would make them mean 0 and deviation 1 is folded into the first layer.
    if let Some(first) = trunk.first_mut() {
        for (kernel, bias) in first.weights.chunks_exact_mut(9).zip(&mut first.bias) {
            kernel.iter_mut().for_each(|weight| *weight /= GREY.1);
            *bias = -GREY.0 * kernel.iter().sum::<f32>();
        }
    }
    let notes = BTreeMap::from([("source".into(), format!("random weights (He et al. 2015), seed {seed}"))]);
    FloatModel { trunk, head: None, notes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Trunk, batch};

    #[test]
    fn a_random_trunk_is_a_vgg16_that_passes_a_radiograph_on_at_its_size() {
        assert!(random_trunk(1, 1).check(1).is_ok());
        let model = random_trunk(1, 16);
        model.check(1).unwrap();
        assert_eq!((model.trunk.len(), model.features()), (13, 32));
        assert_ne!(model, random_trunk(2, 16));
        let device = crate::device::device();
        let image = roentgen::radiograph::phantom::phantom(3, 224);
        let mut sizes = Vec::new();
        Trunk::new(&model, &device).forward_watched(batch(&[&image], &device), |_, x| {
            sizes.push(crate::model::numbers(x.clone().square().mean().reshape([1])).unwrap()[0].sqrt());
        });
        // He's gain keeps the activations' size; pooling, few channels and correlated neighbours let it wander.
        assert!(sizes.iter().all(|size| (0.05..20.0).contains(size)), "{sizes:?}");
    }
}

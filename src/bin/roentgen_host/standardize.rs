//! Features to mean 0 and deviation 1 while a head is trained, and back into the head's weights afterwards.

use crate::weights::FloatConv;

/// Mean and inverse deviation of every feature over the training images.
pub(crate) struct Standardize {
    mean: Vec<f64>,
    factor: Vec<f64>,
}

impl Standardize {
    /// Measures them. `None` without any image.
    pub(crate) fn fit(features: &[Vec<f32>]) -> Option<Self> {
        let n = features.len() as f64;
        let mut mean = vec![0f64; features.first()?.len()];
        let mut square = mean.clone();
        for x in features {
            for (sum, &value) in mean.iter_mut().zip(x) {
                *sum += f64::from(value) / n;
            }
        }
        for x in features {
            for ((sum, &value), mean) in square.iter_mut().zip(x).zip(&mean) {
                *sum += (f64::from(value) - mean).powi(2) / n;
            }
        }
        // A feature that never changes on the training images tells nothing: its factor of 0 leaves it out.
        let factor = square.iter().map(|variance| if *variance > 1e-12 { 1.0 / variance.sqrt() } else { 0.0 });
        Some(Self { factor: factor.collect(), mean })
    }

    /// One image's features, standardized.
    pub(crate) fn apply(&self, features: &[f32]) -> Vec<f32> {
        let pairs = self.mean.iter().zip(&self.factor);
        features.iter().zip(pairs).map(|(&x, (mean, factor))| ((f64::from(x) - mean) * factor) as f32).collect()
    }

    /// A head for standardized features as one for plain features: the same function.
    pub(crate) fn unfold(&self, head: &FloatConv) -> FloatConv {
        let mut plain = head.clone();
        for (row, bias) in plain.weights.chunks_exact_mut(head.in_channels).zip(&mut plain.bias) {
            let mut offset = f64::from(*bias);
            for (w, (mean, factor)) in row.iter_mut().zip(self.mean.iter().zip(&self.factor)) {
                let scaled = f64::from(*w) * factor;
                offset -= scaled * mean;
                *w = scaled as f32;
            }
            *bias = offset as f32;
        }
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::logits;

    #[test]
    fn a_head_unfolded_gives_what_it_gave_on_standardized_features() {
        let images: Vec<Vec<f32>> =
            (0..50).map(|i| vec![(i as f32).sin() * 30.0 + 5.0, 7.0, (i as f32 * 1.7).cos()]).collect();
        let standardize = Standardize::fit(&images).unwrap();
        let head = FloatConv {
            name: "head".into(),
            out_channels: 4,
            in_channels: 3,
            kernel: 1,
            weights: (0..12).map(|i| (i as f32 * 0.9).sin()).collect(),
            bias: vec![0.1, -0.2, 0.3, 0.4],
        };
        let plain = standardize.unfold(&head);
        let mut sums = [0f64; 3];
        for image in &images {
            let standardized = standardize.apply(image);
            for (sum, value) in sums.iter_mut().zip(&standardized) {
                *sum += f64::from(*value);
            }
            for (a, b) in logits(&plain, image).iter().zip(logits(&head, &standardized)) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
        }
        assert!(sums.iter().all(|sum| sum.abs() < 1e-3), "{sums:?}");
        assert_eq!(standardize.apply(&images[0])[1], 0.0);
    }
}

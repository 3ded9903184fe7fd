//! How a chest radiograph lies in the image: a linear softmax classifier on the oriented gradients of its
//! [`View`](crate::assess::view::View). Not whether it is a chest radiograph: of anything else it makes what comes nearest.

use crate::assess::view::GRADIENTS;

/// How a chest radiograph lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pose {
    /// As it is read: head up, air dark.
    Upright,
    /// Head down, turned or mirrored.
    UpsideDown,
    /// Black and white exchanged.
    Inverted,
    /// Turned by a quarter to the left.
    TurnedLeft,
    /// Turned by a quarter to the right.
    TurnedRight,
    /// Half of it.
    Part,
}

impl Pose {
    /// All, in the order of the classifier's rows.
    pub const ALL: [Pose; 6] =
        [Pose::Upright, Pose::UpsideDown, Pose::Inverted, Pose::TurnedLeft, Pose::TurnedRight, Pose::Part];
}

/// The classifier: logits = weights · gradients + bias.
#[derive(Debug, Clone, PartialEq)]
pub struct PoseClassifier {
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl PoseClassifier {
    /// From 6 rows of 512 weights and 6 biases; refused with the reason where they are not that, or not finite.
    pub fn new(weights: Vec<f32>, bias: Vec<f32>) -> Result<Self, String> {
        if weights.len() != Pose::ALL.len() * GRADIENTS || bias.len() != Pose::ALL.len() {
            return Err(format!("{} weights and {} biases", weights.len(), bias.len()));
        }
        if !weights.iter().chain(&bias).all(|value| value.is_finite()) {
            return Err("a number that is not finite".into());
        }
        Ok(Self { weights, bias })
    }

    /// Weights and biases, as given to [`PoseClassifier::new`].
    pub fn parts(&self) -> (&[f32], &[f32]) {
        (&self.weights, &self.bias)
    }

    /// How probable it is that the radiograph is upright (0..=1), and the most probable of the other poses.
    pub fn judge(&self, gradients: &[f64]) -> (f64, Pose) {
        let logits: Vec<f64> = self
            .weights
            .chunks_exact(GRADIENTS)
            .zip(&self.bias)
            .map(|(row, &bias)| {
                row.iter().zip(gradients).map(|(&w, x)| f64::from(w) * x).sum::<f64>() + f64::from(bias)
            })
            .collect();
        let greatest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - greatest).exp()).sum();
        let [_, others @ ..] = Pose::ALL;
        let other = others
            .into_iter()
            .zip(logits.iter().skip(1))
            .fold((Pose::Part, f64::NEG_INFINITY), |best, (p, &l)| if l > best.1 { (p, l) } else { best });
        ((logits.first().copied().unwrap_or(0.0) - greatest).exp() / sum, other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probability_is_the_softmax_and_the_pose_the_best_of_the_others() {
        let mut weights = vec![0.0; Pose::ALL.len() * GRADIENTS];
        weights[2 * GRADIENTS + 7] = 2.0;
        let classifier = PoseClassifier::new(weights, vec![1.0, 0.0, 0.0, 0.5, 0.0, 0.0]).expect("sound");
        let mut gradients = vec![0.0; GRADIENTS];
        let (upright, other) = classifier.judge(&gradients);
        let e = std::f64::consts::E;
        assert!((upright - e / (e + 4.0 + 0.5f64.exp())).abs() < 1e-12);
        assert_eq!(other, Pose::TurnedLeft);
        gradients[7] = 1.0;
        assert_eq!(classifier.judge(&gradients).1, Pose::Inverted);
    }

    #[test]
    fn other_sizes_and_numbers_are_refused() {
        assert!(PoseClassifier::new(vec![0.0; 5], vec![0.0; 6]).is_err());
        let mut weights = vec![0.0; Pose::ALL.len() * GRADIENTS];
        weights[9] = f32::NAN;
        assert!(PoseClassifier::new(weights, vec![0.0; 6]).is_err());
    }
}

//! Fitting the pose classifier: multinomial logistic regression on the leading principal components of the gradients.

use super::principal::Principal;
use anyhow::{Result, anyhow};
use rayon::prelude::*;
use roentgen::assess::gates::{Pose, PoseClassifier};
use roentgen::assess::view::GRADIENTS;

/// Principal components that the classifier may use.
const COMPONENTS: usize = 96;
/// Steps of accelerated gradient descent.
const STEPS: usize = 250;
/// Weight of the squared weights, times the number of rows.
const RIDGE: f64 = 10.0;

/// Fits the classifier to gradients and the poses they are of.
pub(crate) fn fit(rows: &[Vec<f32>], poses: &[Pose]) -> Result<PoseClassifier> {
    let basis = Principal::of(rows, &vec![0; rows.len()], 1, COMPONENTS)?;
    let mean = &basis.means[0];
    let whitened: Vec<Vec<f64>> = rows
        .par_iter()
        .map(|row| {
            let project = |(component, variance): (&Vec<f64>, &f64)| {
                let along: f64 =
                    component.iter().zip(row).zip(mean).map(|((v, &x), mean)| v * (f64::from(x) - mean)).sum();
                along / variance.sqrt()
            };
            let mut x: Vec<f64> = basis.components.iter().zip(&basis.variances).map(project).collect();
            x.push(1.0); // the bias
            x
        })
        .collect();
    let truth: Vec<usize> = poses.iter().map(|pose| Pose::ALL.iter().position(|p| p == pose).unwrap_or(0)).collect();
    let fitted = descend(&whitened, &truth);
    // Back to weights on the gradients themselves.
    let (mut weights, mut biases) = (Vec::new(), Vec::new());
    for row in &fitted {
        let mut out = vec![0.0; GRADIENTS];
        for ((component, variance), w) in basis.components.iter().zip(&basis.variances).zip(row) {
            out.iter_mut().zip(component).for_each(|(out, v)| *out += w * v / variance.sqrt());
        }
        let bias = row.last().copied().unwrap_or(0.0) - out.iter().zip(mean).map(|(w, m)| w * m).sum::<f64>();
        weights.extend(out.into_iter().map(|w| w as f32));
        biases.push(bias as f32);
    }
    PoseClassifier::new(weights, biases).map_err(|reason| anyhow!("the pose gate could not be fitted: {reason}"))
}

/// Nesterov's method on the mean cross-entropy with a ridge, from 0. On whitened columns the curvature is at most about 1,
/// so that a step of 1 is safe: the softmax contributes a factor of at most 1/2.
fn descend(rows: &[Vec<f64>], truth: &[usize]) -> Vec<Vec<f64>> {
    const STEP: f64 = 1.0;
    let width = rows.first().map_or(0, Vec::len);
    let ridge = RIDGE / rows.len().max(1) as f64;
    let mut weights = vec![vec![0.0; width]; Pose::ALL.len()];
    let mut ahead = weights.clone();
    for step in 0..STEPS {
        let gradient = gradient(&ahead, rows, truth);
        let momentum = step as f64 / (step as f64 + 3.0);
        for ((w, a), g) in weights.iter_mut().flatten().zip(ahead.iter_mut().flatten()).zip(gradient.iter().flatten()) {
            let next = *a - STEP * (g + ridge * *a);
            *a = next + momentum * (next - *w);
            *w = next;
        }
    }
    weights
}

/// The gradient of the mean cross-entropy.
fn gradient(weights: &[Vec<f64>], rows: &[Vec<f64>], truth: &[usize]) -> Vec<Vec<f64>> {
    let zero = || vec![vec![0.0; weights[0].len()]; weights.len()];
    // Chunks of a fixed size, summed in order: the same result on any number of threads.
    let parts: Vec<Vec<Vec<f64>>> = rows
        .par_chunks(256)
        .zip(truth.par_chunks(256))
        .map(|(rows, truth)| {
            let mut sum = zero();
            for (row, &truth) in rows.iter().zip(truth) {
                let logits: Vec<f64> =
                    weights.iter().map(|w| w.iter().zip(row).map(|(w, x)| w * x).sum::<f64>()).collect();
                let greatest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = logits.iter().map(|logit| (logit - greatest).exp()).collect();
                let all: f64 = powers.iter().sum();
                for (class, (sum, power)) in sum.iter_mut().zip(powers).enumerate() {
                    let error = power / all - f64::from(u8::from(class == truth));
                    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += error * x);
                }
            }
            sum
        })
        .collect();
    let mut out = zero();
    for part in &parts {
        for (out, part) in out.iter_mut().flatten().zip(part.iter().flatten()) {
            *out += part / rows.len() as f64;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix;

    #[test]
    fn poses_that_differ_in_their_gradients_are_told_apart() {
        let mut random = SplitMix::new(5);
        let mut row = |pose: usize| -> Vec<f32> {
            (0..GRADIENTS).map(|i| 0.05 + 0.02 * random.normal() + if i % 7 == pose { 0.02 } else { 0.0 }).collect()
        };
        let poses: Vec<Pose> = (0..600).map(|i| Pose::ALL[i % 6]).collect();
        let rows: Vec<Vec<f32>> = (0..600).map(|i| row(i % 6)).collect();
        let classifier = fit(&rows, &poses).unwrap();
        let right = (0..120).filter(|i| {
            let gradients: Vec<f64> = row(i % 6).iter().map(|&x| f64::from(x)).collect();
            let (upright, other) = classifier.judge(&gradients);
            if i % 6 == 0 { upright > 0.5 } else { upright < 0.5 && other == Pose::ALL[i % 6] }
        });
        assert!(right.count() >= 114);
    }
}

//! AdamW (Loshchilov and Hutter 2019, "Decoupled weight decay regularization", algorithm 2), its state open so that a
//! checkpoint can hold it. Weights decay, biases do not: a bias costs no capacity, and pulling it to zero moves a
//! layer's operating point.

use crate::network::{Layer, Net};
use burn::tensor::Tensor as Burn;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
/// What keeps a division by a vanishing second moment finite.
const EPSILON: f64 = 1e-8;

/// The optimizer and its state.
pub(crate) struct AdamW {
    /// Share of a weight that is taken away in a step, times the step size.
    pub(crate) decay: f64,
    /// Steps taken.
    pub(crate) steps: usize,
    /// Running mean of every layer's gradients, the head's last.
    pub(crate) first: Vec<Layer>,
    /// Running mean of their squares.
    pub(crate) second: Vec<Layer>,
}

impl AdamW {
    /// An optimizer that has taken no step.
    pub(crate) fn new(net: &Net, decay: f64) -> Self {
        let zeros = || net.layers().map(Layer::zeros).collect();
        Self { decay, steps: 0, first: zeros(), second: zeros() }
    }

    /// One step of size `rate` against the gradients, which come in the order of [`Net::layers`].
    pub(crate) fn step(&mut self, net: &Net, gradients: &[Layer], rate: f64) -> Net {
        self.steps += 1;
        let (steps, decay) = (self.steps, self.decay);
        net.map(|index, layer| {
            let (first, second, gradient) = (&mut self.first[index], &mut self.second[index], &gradients[index]);
            let weight = gradient.weight.clone();
            let bias = gradient.bias.clone();
            Layer {
                weight: update(&layer.weight, weight, &mut first.weight, &mut second.weight, rate, decay, steps),
                bias: update(&layer.bias, bias, &mut first.bias, &mut second.bias, rate, 0.0, steps),
            }
        })
    }
}

fn update<const D: usize>(
    value: &Burn<D>,
    gradient: Burn<D>,
    first: &mut Burn<D>,
    second: &mut Burn<D>,
    rate: f64,
    decay: f64,
    steps: usize,
) -> Burn<D> {
    *first = first.clone().mul_scalar(BETA_1) + gradient.clone().mul_scalar(1.0 - BETA_1);
    *second = second.clone().mul_scalar(BETA_2) + gradient.square().mul_scalar(1.0 - BETA_2);
    let steps = i32::try_from(steps).unwrap_or(i32::MAX);
    let (scale_1, scale_2) = (1.0 - BETA_1.powi(steps), 1.0 - BETA_2.powi(steps));
    let root = second.clone().sqrt().mul_scalar(1.0 / scale_2.sqrt()).add_scalar(EPSILON);
    value.clone().mul_scalar(1.0 - rate * decay) - first.clone().div(root).mul_scalar(rate / scale_1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::numbers;
    use crate::network::{Precision, Stack};
    use crate::scratch::random_trunk;
    use crate::weights::FloatConv;

    /// The algorithm as it stands in the paper, on one number.
    fn naive(mut value: f64, gradients: &[f64], rate: f64, decay: f64) -> f64 {
        let (mut m, mut v) = (0.0, 0.0);
        for (t, g) in gradients.iter().enumerate() {
            let t = t as i32 + 1;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
            value -= rate * (m_hat / (v_hat.sqrt() + 1e-8) + decay * value);
        }
        value
    }

    #[test]
    fn steps_are_those_of_the_paper_and_biases_do_not_decay() {
        let device = crate::device::device();
        let model = random_trunk(3, 64);
        let mut head = FloatConv { name: "head".into(), out_channels: 4, ..model.trunk[12].clone() };
        head.weights.truncate(4 * head.in_channels * 9);
        head.bias = vec![0.7, -0.2, 0.1, 2.0];
        let mut net =
            Net { stack: Stack::new(&model, 12..13, Precision::F32, &device), head: Layer::new(&head, &device) };
        let (rate, decay) = (0.05, 0.3);
        let mut optimizer = AdamW::new(&net, decay);
        let gradients = [0.5, -0.25, 2.0, 1e-3];
        for gradient in gradients {
            let layers: Vec<Layer> = net
                .layers()
                .map(|layer| Layer {
                    weight: layer.weight.ones_like().mul_scalar(gradient),
                    bias: layer.bias.ones_like().mul_scalar(gradient),
                })
                .collect();
            net = optimizer.step(&net, &layers, rate);
        }
        let close = |before: &[f32], after: Vec<f32>, decay: f64| {
            for (&before, after) in before.iter().zip(after) {
                let expected = naive(f64::from(before), &gradients, rate, decay);
                assert!((expected - f64::from(after)).abs() < 1e-5, "{before}: {after}, expected {expected}");
            }
        };
        close(&head.weights, numbers(net.head.weight.clone()).unwrap(), decay);
        close(&head.bias, numbers(net.head.bias.clone()).unwrap(), 0.0);
        close(&model.trunk[12].weights, numbers(net.stack.layers[0].weight.clone()).unwrap(), decay);
    }
}

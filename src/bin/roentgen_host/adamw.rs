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

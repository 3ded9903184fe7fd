//! The part of the network that is fine-tuned, and the frozen part below it, in full or mixed precision. Not the loop
//! that trains it (see `finetune`) and not its file (see `weights`).
//!
//! Mixed precision as in Micikevicius et al. 2018 ("Mixed precision training"), with bfloat16: weights, gradients of
//! weights, moments and averages stay in f32; the convolutions are computed, forwards and backwards, on copies rounded
//! to bfloat16, whose exponents are those of f32, so that no loss scaling is needed. The first layer, the average
//! over the last map and the head stay in f32: there is nothing to gain, and the greys and class logits keep their digits.

use crate::model::numbers;
use crate::weights::{FloatConv, FloatModel};
use anyhow::Result;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, FloatDType, Gradients, Tensor as Burn, TensorData, activation::relu};

/// In which numbers convolutions are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Precision {
    /// 32 bits everywhere.
    F32,
    /// Convolutions in bfloat16, everything else in 32 bits: about twice as fast where the CPU or GPU has it.
    Bf16,
}

/// One convolution's numbers on a device.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Output channel, input channel, row, column.
    pub(crate) weight: Burn<4>,
    /// One per output channel.
    pub(crate) bias: Burn<1>,
}

impl Layer {
    /// Puts a convolution on the device.
    pub(crate) fn new(conv: &FloatConv, device: &Device) -> Self {
        let k = conv.kernel;
        let weights = TensorData::new(conv.weights.clone(), [conv.out_channels, conv.in_channels, k, k]);
        let bias = TensorData::new(conv.bias.clone(), [conv.out_channels]);
        Self { weight: Burn::from_data(weights, device), bias: Burn::from_data(bias, device) }
    }

    /// The same shape, filled with zeros.
    pub(crate) fn zeros(&self) -> Self {
        Self { weight: self.weight.zeros_like(), bias: self.bias.zeros_like() }
    }

    /// Writes the numbers back into a convolution.
    pub(crate) fn store(&self, conv: &mut FloatConv) -> Result<()> {
        conv.weights = numbers(self.weight.clone())?;
        conv.bias = numbers(self.bias.clone())?;
        Ok(())
    }

    /// A copy whose gradients are kept.
    fn tracked(&self) -> Self {
        Self {
            weight: self.weight.clone().autodiff().require_grad(),
            bias: self.bias.clone().autodiff().require_grad(),
        }
    }

    /// The gradients of a [`Layer::tracked`] copy.
    fn gradients(&self, gradients: &mut Gradients) -> Option<Self> {
        Some(Self { weight: self.weight.grad_remove(gradients)?, bias: self.bias.grad_remove(gradients)? })
    }

    /// Moves towards `other`: `decay` of itself and the rest of `other`.
    fn blend(&self, other: &Self, decay: f64) -> Self {
        let rest = 1.0 - decay;
        Self {
            weight: self.weight.clone().mul_scalar(decay) + other.weight.clone().mul_scalar(rest),
            bias: self.bias.clone().mul_scalar(decay) + other.bias.clone().mul_scalar(rest),
        }
    }

    fn convolve(&self, x: Burn<4>, precision: Precision) -> Burn<4> {
        let [_, inputs, rows, columns] = self.weight.dims();
        let options = ConvOptions::new([1, 1], [rows / 2, columns / 2], [1, 1], 1);
        let (x, weight, bias) = match precision {
            Precision::Bf16 if inputs > 1 => (
                x.cast(FloatDType::BF16),
                self.weight.clone().cast(FloatDType::BF16),
                self.bias.clone().cast(FloatDType::BF16),
            ),
            _ => (x.cast(FloatDType::F32), self.weight.clone(), self.bias.clone()),
        };
        conv2d(x, weight, Some(bias), options)
    }
}

/// Convolutions that follow each other, each with its ReLU and some with a pooling.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    /// The convolutions, from below.
    pub(crate) layers: Vec<Layer>,
    pools: Vec<bool>,
    precision: Precision,
}

impl Stack {
    /// The convolutions `range` of the model's trunk.
    pub(crate) fn new(
        model: &FloatModel,
        range: std::ops::Range<usize>,
        precision: Precision,
        device: &Device,
    ) -> Self {
        Self {
            layers: model.trunk[range.clone()].iter().map(|conv| Layer::new(conv, device)).collect(),
            pools: range.map(|index| model.pools_after(index)).collect(),
            precision,
        }
    }

    /// What leaves the last convolution.
    pub(crate) fn forward(&self, mut x: Burn<4>) -> Burn<4> {
        for (layer, &pool) in self.layers.iter().zip(&self.pools) {
            x = relu(layer.convolve(x, self.precision));
            if pool {
                x = crate::model::pool(x);
            }
        }
        x
    }
}

/// The part that is trained: upper convolutions and head.
#[derive(Debug, Clone)]
pub(crate) struct Net {
    /// The convolutions.
    pub(crate) stack: Stack,
    /// The 1 × 1 convolution to the class logits.
    pub(crate) head: Layer,
}

impl Net {
    /// Logits (batch × 4) of what the frozen part gives; `kept` multiplies the last map where features are dropped.
    pub(crate) fn forward(&self, x: Burn<4>, kept: Option<Burn<4>>) -> Burn<2> {
        let mut map = self.stack.forward(x).cast(FloatDType::F32);
        if let Some(kept) = kept {
            map = map * kept;
        }
        // The head is linear, so averaging before it gives the mean of the evidence map, for 49 times less.
        let [batch, channels, rows, columns] = map.dims();
        let pooled = map.reshape([batch, channels, rows * columns]).mean_dim(2).reshape([batch, channels]);
        let [classes, ..] = self.head.weight.dims();
        let weight = self.head.weight.clone().reshape([classes, channels]).transpose();
        pooled.matmul(weight) + self.head.bias.clone().reshape([1, classes])
    }

    /// All layers, the head last.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.stack.layers.iter().chain(std::iter::once(&self.head))
    }

    /// The same with every layer, the head last, put through `change`.
    pub(crate) fn map(&self, mut change: impl FnMut(usize, &Layer) -> Layer) -> Self {
        let layers: Vec<Layer> =
            self.stack.layers.iter().enumerate().map(|(index, layer)| change(index, layer)).collect();
        let head = change(layers.len(), &self.head);
        Self { stack: Stack { layers, ..self.stack.clone() }, head }
    }

    /// A copy whose gradients are kept.
    pub(crate) fn tracked(&self) -> Self {
        self.map(|_, layer| layer.tracked())
    }

    /// The gradients of a [`Net::tracked`] copy, in the order of [`Net::layers`]; `None` if one is missing.
    pub(crate) fn gradients(&self, mut gradients: Gradients) -> Option<Vec<Layer>> {
        self.layers().map(|layer| layer.gradients(&mut gradients)).collect()
    }

    /// Moves towards `other`: `decay` of itself and the rest of `other`.
    pub(crate) fn blend(&self, other: &Self, decay: f64) -> Self {
        let others: Vec<&Layer> = other.layers().collect();
        self.map(|index, layer| layer.blend(others[index], decay))
    }

    /// The same net computing in another precision.
    pub(crate) fn with_precision(&self, precision: Precision) -> Self {
        Self { stack: Stack { precision, ..self.stack.clone() }, head: self.head.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A VGG of two convolutions a part, with numbers that depend on `seed`.
    fn model(seed: f32) -> FloatModel {
        let conv = |name: &str, out_channels: usize, in_channels: usize, kernel: usize| {
            let n = out_channels * in_channels * kernel * kernel;
            let gain = (2.0 / (in_channels * kernel * kernel) as f32).sqrt();
            FloatConv {
                name: name.into(),
                out_channels,
                in_channels,
                kernel,
                weights: (0..n).map(|i| gain * ((i as f32 + seed) * 12.9898).sin() * 1.4).collect(),
                bias: (0..out_channels).map(|i| (i as f32 + seed).cos() * 0.1).collect(),
            }
        };
        FloatModel {
            trunk: vec![conv("block1_conv1", 8, 1, 3), conv("block2_conv1", 16, 8, 3), conv("block2_conv2", 16, 16, 3)],
            head: Some(conv("head", 4, 16, 1)),
            notes: BTreeMap::new(),
        }
    }

    fn gradients(precision: Precision) -> Vec<Vec<f32>> {
        let device = crate::device::device();
        let model = model(1.0);
        let net = Net {
            stack: Stack::new(&model, 1..3, precision, &device),
            head: Layer::new(model.head.as_ref().unwrap(), &device),
        };
        let frozen = Stack::new(&model, 0..1, precision, &device);
        let greys: Vec<f32> = (0..2 * 32 * 32).map(|i| ((i * i) % 256) as f32).collect();
        let x = frozen.forward(Burn::from_data(TensorData::new(greys, [2, 1, 32, 32]), &device) / 128.0);
        let tracked = net.tracked();
        let logits = tracked.forward(x.autodiff(), None);
        let weights = Burn::<2>::from_data([[1.0, -2.0, 0.5, 0.3], [-0.7, 1.1, 0.2, -0.4]], &device).autodiff();
        let gradients = tracked.gradients((logits * weights).sum().backward()).unwrap();
        gradients
            .iter()
            .flat_map(|layer| [layer.weight.clone().reshape([-1]), layer.bias.clone()])
            .map(|g| numbers(g).unwrap())
            .collect()
    }

    #[test]
    fn gradients_in_bfloat16_point_where_those_in_f32_do() {
        for (exact, rounded) in gradients(Precision::F32).iter().zip(gradients(Precision::Bf16)) {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
            let cosine = dot(exact, &rounded) / (dot(exact, exact) * dot(&rounded, &rounded)).sqrt();
            assert!(cosine > 0.995, "{cosine}");
            assert!(dot(exact, exact) > 0.0);
        }
    }
}

//! The trunk as a burn module: the float forward pass. Not its training (see `training`) and not its file (see `weights`).

use crate::weights::{FloatConv, FloatModel};
use anyhow::{Result, anyhow};
use burn::module::{Module, Param};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor as Burn, TensorData, activation::relu};
use roentgen::network::vgg::INPUT_SIZE;

/// The convolutions of the trunk, with a pooling after the last one of each block.
#[derive(Module, Debug)]
pub(crate) struct Trunk {
    convs: Vec<Conv2d>,
    #[module(skip)]
    pools: Vec<bool>,
}

impl Trunk {
    /// Puts the model's weights on the device.
    pub(crate) fn new(model: &FloatModel, device: &Device) -> Self {
        Self {
            convs: model.trunk.iter().map(|conv| conv2d(conv, device)).collect(),
            pools: (0..model.trunk.len()).map(|index| model.pools_after(index)).collect(),
        }
    }

    /// The last feature map (batch, channels, 7, 7) of images (batch, 1, 224, 224) of grey levels 0–255.
    pub(crate) fn forward(&self, images: Burn<4>) -> Burn<4> {
        self.forward_watched(images, |_, _| {})
    }

    /// As [`Trunk::forward`], showing what is left of every convolution's output to `watch`, with the layer's index:
    /// after its ReLU and, where one follows, the pooling.
    pub(crate) fn forward_watched(&self, images: Burn<4>, mut watch: impl FnMut(usize, &Burn<4>)) -> Burn<4> {
        let mut x = images;
        for (index, (conv, &pool)) in self.convs.iter().zip(&self.pools).enumerate() {
            x = relu(conv.forward(x));
            if pool {
                x = self::pool(x);
            }
            watch(index, &x);
        }
        x
    }
}

/// The 2 × 2 max pooling that ends a block.
pub(crate) fn pool(x: Burn<4>) -> Burn<4> {
    max_pool2d(x, MaxPoolOptions::new([2, 2]))
}

/// One convolution with its weights on the device.
pub(crate) fn conv2d(conv: &FloatConv, device: &Device) -> Conv2d {
    let k = conv.kernel;
    let mut module = Conv2dConfig::new([conv.in_channels, conv.out_channels], [k, k])
        .with_padding(PaddingConfig2d::Explicit(k / 2, k / 2, k / 2, k / 2))
        .with_initializer(burn::module::Initializer::Zeros)
        .init(device);
    let weights = TensorData::new(conv.weights.clone(), [conv.out_channels, conv.in_channels, k, k]);
    module.weight = Param::from_data(weights, device);
    module.bias = Some(Param::from_data(TensorData::new(conv.bias.clone(), [conv.out_channels]), device));
    module
}

/// Preprocessed images (224 × 224 grey levels each) as one batch.
pub(crate) fn batch(images: &[&[u8]], device: &Device) -> Burn<4> {
    let values: Vec<f32> = images.iter().flat_map(|image| image.iter().map(|&g| f32::from(g))).collect();
    Burn::from_data(TensorData::new(values, [images.len(), 1, INPUT_SIZE, INPUT_SIZE]), device)
}

/// A feature map (batch, channels, rows, columns) averaged over its cells: one vector an image.
pub(crate) fn pooled(map: Burn<4>) -> Result<Vec<Vec<f32>>> {
    let [_, channels, rows, columns] = map.dims();
    let cells = rows * columns;
    let values = numbers(map)?;
    Ok(values
        .chunks_exact(channels * cells)
        .map(|image| image.chunks_exact(cells).map(|plane| plane.iter().sum::<f32>() / cells as f32).collect())
        .collect())
}

/// A tensor's numbers, last extent fastest.
pub(crate) fn numbers<const D: usize>(tensor: Burn<D>) -> Result<Vec<f32>> {
    tensor.into_data().try_into_vec::<f32>().map_err(|error| anyhow!("burn gave no f32 tensor: {error:?}"))
}

/// The head on pooled features: because averaging and the 1 × 1 convolution are both linear, the mean of the evidence
/// map is the same as the linear layer on the averaged features.
pub(crate) fn logits(head: &FloatConv, pooled: &[f32]) -> [f32; 4] {
    let mut out = [0.0; 4];
    for ((logit, row), bias) in out.iter_mut().zip(head.weights.chunks_exact(head.in_channels)).zip(&head.bias) {
        let sum: f64 = row.iter().zip(pooled).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        *logit = (sum + f64::from(*bias)) as f32;
    }
    out
}

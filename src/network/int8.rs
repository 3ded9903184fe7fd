//! The quantized network: its layers with their integers, and the definition of its forward pass (by naive loops).
//! Not fast: the witness that every backend is held against.

use crate::quant::QuantParams;

/// A quantized convolution, stride 1, padded so that rows and columns stay the same (a border of `input.zero_point`).
#[derive(Debug, Clone, PartialEq)]
pub struct Conv {
    /// Its name, e.g. `block1_conv1`; the ONNX node carries it.
    pub name: String,
    /// Channels it reads.
    pub in_channels: usize,
    /// Channels it writes.
    pub out_channels: usize,
    /// 3 or 1: rows and columns of the kernel.
    pub kernel: usize,
    /// Weights, symmetric (zero point 0), in the order output channel, kernel row, kernel column, input channel.
    pub weights: Vec<i8>,
    /// One weight scale per output channel.
    pub weight_scales: Vec<f32>,
    /// One bias per output channel, in units of `input.scale × weight_scale`.
    pub bias: Vec<i32>,
    /// How its input is quantized.
    pub input: QuantParams,
    /// How its output is quantized. A zero point of 0 makes the saturation a ReLU.
    pub output: QuantParams,
}

/// One step of the trunk.
#[derive(Debug, Clone, PartialEq)]
pub enum Layer {
    /// A convolution with its saturation (which is the ReLU).
    Conv(Conv),
    /// The maximum over 2 × 2 cells, stride 2.
    MaxPool2,
}

/// A quantized VGG-like network: trunk, whose last layer's output is the feature map, and head, whose output is the
/// evidence map.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Rows and columns of the one-channel input.
    pub input_size: usize,
    /// The trunk, in order.
    pub trunk: Vec<Layer>,
    /// The 1 × 1 convolution to the four class logits.
    pub head: Conv,
}

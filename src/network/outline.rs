//! A network without its weights: all that a plan is made from. Small, so that it can lie beside packed weights in a file,
//! and a start that finds them need not read the network itself.

use super::int8::{Checker, Conv, Layer, Network, NetworkError};
use super::onnx::{Model, OnnxError};
use crate::quant::QuantParams;
use serde::{Deserialize, Serialize};

/// The outline of a network that was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outline {
    /// Rows and columns of the one-channel input.
    input_size: usize,
    /// The trunk, in order; it begins with a convolution.
    trunk: Vec<OutlineLayer>,
    /// The head.
    head: OutlineConv,
}

/// A layer of the trunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum OutlineLayer {
    /// A convolution.
    Conv(OutlineConv),
    /// The maximum over 2 × 2 cells, stride 2.
    MaxPool2,
}

/// A convolution without its weights: see [`Conv`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutlineConv {
    /// Its name.
    pub name: String,
    /// Channels it reads.
    pub in_channels: usize,
    /// Channels it writes.
    pub out_channels: usize,
    /// 3 or 1.
    pub kernel: usize,
    /// How its input is quantized.
    pub input: QuantParams,
    /// How its output is quantized.
    pub output: QuantParams,
    /// The greatest over output channels of the sums of positive weights and of negative ones without their sign: what
    /// decides [whether Winograd is exact](crate::kernels::winograd::Winograd::is_exact_for).
    pub greatest_sum: i64,
}

impl Outline {
    /// Of a network; fails where [`Network::check`] does.
    pub fn of(network: &Network) -> Result<Self, NetworkError> {
        network.check()?;
        let trunk = network.trunk.iter().map(OutlineLayer::of).collect();
        Ok(Self { input_size: network.input_size, trunk, head: OutlineConv::of(&network.head) })
    }

    /// Of a file; the same as of the network that it holds, of which one layer is in memory at a time.
    pub fn read(model: &Model) -> Result<Self, OnnxError> {
        let mut checker = Checker::new(model.input_size())?;
        let mut trunk = Vec::new();
        let mut layers = model.layers().peekable();
        while let Some(layer) = layers.next() {
            let layer = layer?;
            match layer {
                Layer::Conv(head) if layers.peek().is_none() => {
                    checker.head(&head)?;
                    return Ok(Self { input_size: model.input_size(), trunk, head: OutlineConv::of(&head) });
                }
                _ => {
                    checker.layer(&layer)?;
                    trunk.push(OutlineLayer::of(&layer));
                }
            }
        }
        Err(OnnxError::Graph("its last node is no head".into()))
    }

    /// Rows and columns of the one-channel input.
    pub fn input_size(&self) -> usize {
        self.input_size
    }

    /// The trunk, in order; it begins with a convolution.
    pub fn trunk(&self) -> &[OutlineLayer] {
        &self.trunk
    }

    /// The head.
    pub fn head(&self) -> &OutlineConv {
        &self.head
    }

    /// How the image is quantized: the first convolution's input.
    pub fn input(&self) -> QuantParams {
        match self.trunk.first() {
            Some(OutlineLayer::Conv(conv)) => conv.input,
            _ => self.head.input,
        }
    }

    /// Rows and columns of the feature map and of the evidence map.
    pub fn map_size(&self) -> usize {
        let pools = self.trunk.iter().filter(|layer| matches!(layer, OutlineLayer::MaxPool2)).count();
        u32::try_from(pools).ok().and_then(|pools| self.input_size.checked_shr(pools)).unwrap_or(0)
    }
}

impl OutlineLayer {
    fn of(layer: &Layer) -> Self {
        match layer {
            Layer::Conv(conv) => Self::Conv(OutlineConv::of(conv)),
            Layer::MaxPool2 => Self::MaxPool2,
        }
    }
}

impl OutlineConv {
    fn of(conv: &Conv) -> Self {
        let sum = |weights: &[i8], sign: i64| weights.iter().map(|&w| (sign * i64::from(w)).max(0)).sum::<i64>();
        let filters = conv.weights.chunks((conv.kernel * conv.kernel * conv.in_channels).max(1));
        Self {
            name: conv.name.clone(),
            in_channels: conv.in_channels,
            out_channels: conv.out_channels,
            kernel: conv.kernel,
            input: conv.input,
            output: conv.output,
            greatest_sum: filters.map(|weights| sum(weights, 1).max(sum(weights, -1))).max().unwrap_or(0),
        }
    }
}

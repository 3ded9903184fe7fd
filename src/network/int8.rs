//! The quantized network: its layers with their integers, and the definition of its forward pass (by plain loops).
//! Not fast: the witness that every backend is held against. Not its file format: that is [`crate::network::onnx`].

use crate::kernels::reference;
use crate::quant::{QuantParams, Requantize, portable_weight_scale};
use crate::tensor::Tensor;
use std::collections::BTreeSet;

/// Most channels a layer may have.
pub const MAX_CHANNELS: usize = 4096;
/// Most layers a trunk may have.
pub const MAX_LAYERS: usize = 64;
/// Longest name a layer may have.
const MAX_NAME: usize = 64;
/// How many units in the last place a scale is moved, at most, so as to be unlike its neighbours.
const MOST_NUDGES: u32 = 64;
/// Most rows and columns an input may have.
pub const MAX_INPUT_SIZE: usize = 1024;

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

/// Why a network is no network, or an image not one for it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NetworkError {
    /// A layer contradicts itself or the layer before it.
    #[error("layer {layer}: {reason}")]
    Layer {
        /// The layer's name.
        layer: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The network as a whole is impossible.
    #[error("network: {0}")]
    Shape(String),
    /// The image has another shape than the network reads.
    #[error("the image has shape {found:?}, the network reads {expected:?} (NHWC)")]
    Image {
        /// The image's shape, NHWC.
        found: [usize; 4],
        /// The network's, NHWC.
        expected: [usize; 4],
    },
}

impl Conv {
    /// One [`Requantize`] an output channel.
    pub fn requantize(&self) -> Result<Vec<Requantize>, NetworkError> {
        let unusable = |(channel, w_scale): (usize, &f32)| {
            let (x, y) = (self.input.scale, self.output.scale);
            Requantize::new(x, *w_scale, self.output).ok_or_else(|| {
                self.error(format!("channel {channel}: scales {x} × {w_scale} / {y} give no usable multiplier"))
            })
        };
        self.weight_scales.iter().enumerate().map(unusable).collect()
    }

    /// Runs this layer by the reference.
    pub fn forward(&self, input: &Tensor<u8>) -> Result<Tensor<u8>, NetworkError> {
        let requantize = self.requantize()?;
        let convolution = reference::Convolution {
            kernel: self.kernel,
            weights: &self.weights,
            bias: &self.bias,
            x_zero_point: self.input.zero_point,
            requantize: &requantize,
        };
        reference::conv(input, convolution).ok_or_else(|| self.error("its lengths disagree with its channels".into()))
    }

    /// Checks lengths, scales, and that no accumulator can leave 32 bits whatever the image.
    fn check(&self) -> Result<(), NetworkError> {
        // Tensors and constants of the ONNX file are called after their layer, so that its name must not be another's.
        let plain = self.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let reserved = ["", "image", "evidence", "features"].contains(&self.name.as_str());
        if !plain || reserved || self.name.starts_with("pool") || self.name.len() > MAX_NAME {
            return Err(
                self.error("a name is up to 64 of A-Z, a-z, 0-9 and _, and not an input's, output's or pool's".into())
            );
        }
        let channels = 1..=MAX_CHANNELS;
        if !channels.contains(&self.in_channels) || !channels.contains(&self.out_channels) {
            return Err(self.error(format!("reads {} and writes {} channels", self.in_channels, self.out_channels)));
        }
        if self.kernel != 1 && self.kernel != 3 {
            return Err(self.error(format!("its kernel is {0} × {0}; 1 × 1 and 3 × 3 are known", self.kernel)));
        }
        // Cannot overflow: the factors are bounded above.
        let taps = self.kernel * self.kernel * self.in_channels;
        let lengths = [self.weights.len(), self.weight_scales.len(), self.bias.len()];
        let expected = [taps * self.out_channels, self.out_channels, self.out_channels];
        if lengths != expected {
            return Err(self.error(format!("weights, scales, biases number {lengths:?} instead of {expected:?}")));
        }
        self.requantize()?;
        for (channel, (weights, bias)) in self.weights.chunks_exact(taps).zip(&self.bias).enumerate() {
            let magnitude: i64 = weights.iter().map(|&w| i64::from(w).abs()).sum();
            if magnitude * 255 + i64::from(*bias).abs() > i64::from(i32::MAX) {
                return Err(self.error(format!("channel {channel}: its sum can exceed 32 bits (bias {bias})")));
            }
        }
        Ok(())
    }

    fn error(&self, reason: String) -> NetworkError {
        NetworkError::Layer { layer: self.name.clone(), reason }
    }
}

impl Network {
    /// Checks that the layers fit one another, that every scale is usable and that no accumulator can leave 32 bits.
    pub fn check(&self) -> Result<(), NetworkError> {
        let mut checker = Checker::new(self.input_size)?;
        self.trunk.iter().try_for_each(|layer| checker.layer(layer))?;
        checker.head(&self.head)
    }

    /// The convolutions in order, the head last.
    pub fn convolutions(&self) -> impl Iterator<Item = &Conv> {
        let trunk = self.trunk.iter().filter_map(|layer| match layer {
            Layer::Conv(conv) => Some(conv),
            Layer::MaxPool2 => None,
        });
        trunk.chain(std::iter::once(&self.head))
    }

    /// The same network with weight scales moved by some 10⁻⁷ to where every runtime computes the same multipliers; see
    /// [`portable_weight_scale`]. Bundles are written so.
    #[must_use]
    pub fn with_portable_scales(mut self) -> Self {
        let trunk = self.trunk.iter_mut().filter_map(|layer| match layer {
            Layer::Conv(conv) => Some(conv),
            Layer::MaxPool2 => None,
        });
        for conv in trunk.chain(std::iter::once(&mut self.head)) {
            let portable = |w_scale: f32| portable_weight_scale(conv.input.scale, w_scale, conv.output.scale);
            conv.weight_scales = conv.weight_scales.iter().map(|&w_scale| portable(w_scale)).collect();
            if let [first, rest @ ..] = &mut conv.weight_scales[..]
                && !rest.is_empty()
                && rest.iter().all(|w_scale| w_scale == first)
            {
                // With one scale for all channels tract requantizes in fixed point, which rounds otherwise than f32.
                let next = (1..MOST_NUDGES).map(|step| portable(f32::from_bits(first.to_bits().saturating_add(step))));
                let another = next.into_iter().find(|w_scale| w_scale != first);
                *first = another.unwrap_or(*first);
            }
        }
        self
    }

    /// Rows and columns of the feature map and of the evidence map.
    pub fn map_size(&self) -> usize {
        let pools = self.trunk.iter().filter(|layer| matches!(layer, Layer::MaxPool2)).count();
        u32::try_from(pools).ok().and_then(|pools| self.input_size.checked_shr(pools)).unwrap_or(0)
    }

    /// How the image is quantized: the first convolution's input.
    pub fn input(&self) -> QuantParams {
        self.convolutions().next().map_or(self.head.input, |conv| conv.input)
    }

    /// Runs the network on one image of shape 1 × input_size × input_size × 1. Returns the evidence map and the last
    /// feature map, both quantized, NHWC. Takes seconds for VGG16: it is the definition.
    pub fn forward(&self, image: &Tensor<u8>) -> Result<(Tensor<u8>, Tensor<u8>), NetworkError> {
        self.check()?;
        let expected = [1, self.input_size, self.input_size, 1];
        if image.shape() != expected {
            return Err(NetworkError::Image { found: image.shape(), expected });
        }
        let mut features = image.clone();
        for layer in &self.trunk {
            features = match layer {
                Layer::Conv(conv) => conv.forward(&features)?,
                Layer::MaxPool2 => reference::max_pool_2(&features),
            };
        }
        let evidence = self.head.forward(&features)?;
        Ok((evidence, features))
    }
}

/// Checks a network a layer at a time, for who does not hold all of it at once.
#[derive(Debug)]
pub struct Checker {
    input_size: usize,
    layers: usize,
    pools: u32,
    names: BTreeSet<String>,
    /// The convolution before: its name, what it writes, how that is quantized.
    before: Option<(String, usize, QuantParams)>,
}

impl Checker {
    /// Of a network that reads so many rows and columns.
    pub fn new(input_size: usize) -> Result<Self, NetworkError> {
        if !(1..=MAX_INPUT_SIZE).contains(&input_size) {
            return Err(NetworkError::Shape(format!("input size {input_size} is not in 1..={MAX_INPUT_SIZE}")));
        }
        Ok(Self { input_size, layers: 0, pools: 0, names: BTreeSet::new(), before: None })
    }

    /// The next layer of the trunk.
    pub fn layer(&mut self, layer: &Layer) -> Result<(), NetworkError> {
        self.layers += 1;
        if self.layers > MAX_LAYERS {
            return Err(NetworkError::Shape(format!("more than the {MAX_LAYERS} layers that are allowed")));
        }
        match layer {
            Layer::Conv(conv) => self.conv(conv),
            Layer::MaxPool2 if self.before.is_none() => {
                Err(NetworkError::Shape("the trunk does not begin with a convolution".into()))
            }
            Layer::MaxPool2 => {
                self.pools += 1;
                Ok(())
            }
        }
    }

    /// The head, last of all.
    pub fn head(mut self, head: &Conv) -> Result<(), NetworkError> {
        if self.before.is_none() {
            return Err(NetworkError::Shape("the trunk does not begin with a convolution".into()));
        }
        if self.input_size.checked_shr(self.pools).unwrap_or(0) == 0 {
            return Err(NetworkError::Shape(format!("an input of {} pixels is pooled away", self.input_size)));
        }
        self.conv(head)
    }

    fn conv(&mut self, conv: &Conv) -> Result<(), NetworkError> {
        conv.check()?;
        if !self.names.insert(conv.name.clone()) {
            return Err(conv.error("another layer has the same name".into()));
        }
        let channels = self.before.as_ref().map_or(1, |(_, channels, _)| *channels);
        if conv.in_channels != channels {
            return Err(conv.error(format!("it reads {} channels but is given {channels}", conv.in_channels)));
        }
        if let Some((name, _, given)) = self.before.as_ref().filter(|(_, _, given)| *given != conv.input) {
            return Err(conv.error(format!("it reads {:?} but {name} gives {given:?}", conv.input)));
        }
        self.before = Some((conv.name.clone(), conv.out_channels, conv.output));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(name: &str, in_channels: usize, out_channels: usize, kernel: usize) -> Conv {
        let params = QuantParams { scale: 1.0, zero_point: 0 };
        Conv {
            name: name.into(),
            in_channels,
            out_channels,
            kernel,
            weights: vec![1; out_channels * kernel * kernel * in_channels],
            weight_scales: vec![0.125; out_channels],
            bias: vec![0; out_channels],
            input: params,
            output: params,
        }
    }

    fn network() -> Network {
        let trunk = vec![Layer::Conv(conv("a", 1, 2, 3)), Layer::MaxPool2, Layer::Conv(conv("b", 2, 3, 3))];
        Network { input_size: 4, trunk, head: conv("head", 3, 4, 1) }
    }

    #[test]
    fn the_forward_pass_of_a_small_network_is_what_one_computes_by_hand() {
        let image = Tensor::filled([1, 4, 4, 1], 8);
        let (evidence, features) = network().forward(&image).expect("a sound network");
        // a: 4, 6 or 9 taps of 8, an eighth of them: 4 in the corners, 6 at the edges, 9 inside; each quadrant has a 9.
        // b: all four pixels see 4 taps of 2 channels of 9: 72 / 8 = 9. head: 27 / 8 = 3.375.
        assert_eq!((features.shape(), features.data()), ([1, 2, 2, 3], &[9; 12][..]));
        assert_eq!((evidence.shape(), evidence.data()), ([1, 2, 2, 4], &[3; 16][..]));
    }

    #[test]
    fn networks_that_contradict_themselves_are_refused_by_the_layer_at_fault() {
        let refused = |change: fn(&mut Network)| {
            let mut network = network();
            change(&mut network);
            network.check().expect_err("must be refused").to_string()
        };
        assert!(refused(|n| n.head.in_channels = 2).starts_with("layer head: weights"));
        assert!(refused(|n| n.head = conv("head", 5, 4, 1)).contains("it reads 5 channels but is given 3"));
        assert!(refused(|n| n.head.input.zero_point = 1).contains("but b gives"));
        assert!(refused(|n| n.head.bias[2] = i32::MIN).contains("channel 2: its sum can exceed 32 bits"));
        assert!(refused(|n| n.head.weight_scales[1] = f32::NAN).contains("channel 1"));
        assert!(refused(|n| n.head.kernel = 5).contains("5 × 5"));
        assert!(refused(|n| n.trunk.insert(0, Layer::MaxPool2)).contains("begin with a convolution"));
        assert!(refused(|n| n.trunk.extend(vec![Layer::MaxPool2; 2])).contains("pooled away"));
        assert!(refused(|n| n.trunk.extend(vec![Layer::MaxPool2; 70])).contains("layers"));
        assert!(refused(|n| n.head.name = "b".into()).contains("layer b: another layer has the same name"));
        assert!(refused(|n| n.head.name = "pool1".into()).contains("a name is"));
        assert!(refused(|n| n.head.name = "a.b".into()).contains("a name is"));
        assert!(refused(|n| n.input_size = usize::MAX).contains("input size"));
    }

    #[test]
    fn an_image_of_another_shape_is_refused() {
        let error = network().forward(&Tensor::filled([1, 4, 5, 1], 0)).expect_err("must be refused");
        assert!(matches!(error, NetworkError::Image { .. }));
    }
}

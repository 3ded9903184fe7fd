//! ONNX → `Network`. Refuses, by the node's name, whatever is not a network that [`super::write`] could have written;
//! never panics, whatever the bytes.

use super::limits::{self, MAX_STRUCTURE};
use super::pieces::Pieces;
use super::proto::{GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, attribute_type, data_type};
use super::{EVIDENCE, FEATURES, INPUT, MIN_OPSET};
use crate::network::int8::{Conv, Layer, MAX_CHANNELS, MAX_INPUT_SIZE, MAX_LAYERS, Network, NetworkError};
use crate::quant::QuantParams;
use bytes::{Buf, Bytes};
use prost::Message;
use std::collections::BTreeMap;

/// The largest file that is read, in bytes: four times an int8 VGG16.
pub const MAX_BYTES: usize = 64 << 20;

/// Why an ONNX file is not a network that this program runs.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file is larger than [`MAX_BYTES`].
    #[error("the file has {found} bytes; at most {MAX_BYTES} are read")]
    TooLarge {
        /// Its size in bytes.
        found: usize,
    },
    /// The file has more names, nodes and attributes than any such network.
    #[error("the file has {found} bytes besides raw tensor data; at most {MAX_STRUCTURE} are read")]
    TooMuchStructure {
        /// How many bytes.
        found: usize,
    },
    /// Not an ONNX file, or a damaged one.
    #[error("not an ONNX file, or a damaged one: {0}")]
    Decode(#[from] prost::DecodeError),
    /// Something about the graph as a whole.
    #[error("the graph is not a quantized VGG: {0}")]
    Graph(String),
    /// Something about one node.
    #[error("node {node}: {reason}")]
    Node {
        /// The node's name, or its position where it has none.
        node: String,
        /// What is wrong.
        reason: String,
    },
    /// The layers were read but do not make a network.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Reads a network from the bytes of an ONNX file.
pub fn read(bytes: &[u8]) -> Result<Network, OnnxError> {
    Model::parse(Bytes::copy_from_slice(bytes).into())?.network()
}

/// An ONNX file whose structure has been read and found to be a chain of layers. Each layer is decoded when it is asked for,
/// and its weights can be forgotten then, so that a network need not be in memory twice.
#[derive(Debug, Clone)]
pub struct Model {
    input_size: usize,
    graph: GraphProto,
}

impl Model {
    /// Reads the structure: limits, operator set, input, outputs, names.
    pub fn parse(file: Pieces) -> Result<Self, OnnxError> {
        if file.remaining() > MAX_BYTES {
            return Err(OnnxError::TooLarge { found: file.remaining() });
        }
        limits::check(file.clone())?;
        let model = ModelProto::decode(file)?;
        let opset = model.opset_import.iter().find(|set| set.domain.is_empty() || set.domain == "ai.onnx");
        match opset.map(|set| set.version) {
            Some(version) if version >= MIN_OPSET => {}
            Some(version) => {
                return Err(graph_error(format!("operator set {version}; at least {MIN_OPSET} is needed")));
            }
            None => return Err(graph_error("it names no operator set of ONNX".into())),
        }
        let graph = model.graph.ok_or_else(|| graph_error("the file holds no graph".into()))?;
        let input_size = input_size(&graph, &constants(&graph))?;
        let outputs: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
        if outputs != [EVIDENCE, FEATURES] {
            return Err(graph_error(format!("its outputs are {outputs:?} instead of {EVIDENCE} and {FEATURES}")));
        }
        match graph.node.len() {
            0 => Err(graph_error("it has no nodes".into())),
            1..=MAX_NODES => Ok(Self { input_size, graph }),
            nodes => Err(graph_error(format!("{nodes} nodes; {MAX_NODES} are allowed"))),
        }
    }

    /// Rows and columns of the one-channel input.
    pub fn input_size(&self) -> usize {
        self.input_size
    }

    /// How many layers there are, the head being the last.
    pub fn depth(&self) -> usize {
        self.graph.node.len()
    }

    /// The layer of that number, read from its node. What the layers make together is checked by
    /// [`crate::network::int8::Checker`].
    pub fn layer(&self, position: usize) -> Result<Layer, OnnxError> {
        let (constants, nodes) = (constants(&self.graph), &self.graph.node);
        let proto = nodes.get(position).ok_or_else(|| graph_error(format!("it has no node number {position}")))?;
        let node = Node { proto, position, constants: &constants };
        let reads = position.checked_sub(1).map_or(INPUT, |before| first_output(&nodes[before]));
        let is_head = position + 1 == nodes.len();
        if is_head && reads != FEATURES {
            return Err(graph_error(format!("the trunk ends in {reads} instead of {FEATURES}")));
        }
        let layer = node.layer(reads)?;
        let output = node.output()?;
        match (&layer, is_head) {
            (Layer::MaxPool2, true) => Err(node.error("the head must be a QLinearConv".into())),
            (Layer::Conv(_), true) if output != EVIDENCE => Err(node.error(format!("the head must write {EVIDENCE}"))),
            _ => Ok(layer),
        }
    }

    /// All layers in order, the head last.
    pub fn layers(&self) -> impl Iterator<Item = Result<Layer, OnnxError>> + '_ {
        (0..self.depth()).map(|position| self.layer(position))
    }

    /// The same as [`Self::layer`]; its weights are forgotten then, unless a later layer has the same.
    pub fn take(&mut self, position: usize) -> Result<Layer, OnnxError> {
        let layer = self.layer(position)?;
        let (done, later) = self.graph.node.split_at(position + 1);
        let weights = done.last().and_then(|node| node.input.get(3));
        if let Some(weights) = weights.filter(|name| !later.iter().any(|node| node.input.contains(name))) {
            let tensor = self.graph.initializer.iter_mut().find(|tensor| tensor.name == *weights);
            tensor.into_iter().for_each(|tensor| tensor.raw_data = Bytes::new());
        }
        Ok(layer)
    }

    /// The whole network, checked.
    pub fn network(&self) -> Result<Network, OnnxError> {
        let mut trunk = self.layers().collect::<Result<Vec<_>, _>>()?;
        let Some(Layer::Conv(head)) = trunk.pop() else {
            return Err(graph_error("the head must be a QLinearConv".into()));
        };
        let network = Network { input_size: self.input_size, trunk, head };
        network.check()?;
        Ok(network)
    }
}

/// Most nodes of a graph: the trunk and the head.
const MAX_NODES: usize = MAX_LAYERS + 1;

fn constants(graph: &GraphProto) -> BTreeMap<&str, &TensorProto> {
    graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect()
}

/// What a node writes, or nothing: [`Node::output`] refuses a node that does not write one tensor.
fn first_output(node: &NodeProto) -> &str {
    node.output.first().map_or("", String::as_str)
}

/// Rows and columns of the one input, which must be u8, one channel, square and of fixed size.
fn input_size(graph: &GraphProto, constants: &BTreeMap<&str, &TensorProto>) -> Result<usize, OnnxError> {
    // Old files list their constants among the inputs.
    let inputs: Vec<_> = graph.input.iter().filter(|input| !constants.contains_key(input.name.as_str())).collect();
    let [input] = inputs[..] else {
        return Err(graph_error(format!("it has {} inputs instead of one", inputs.len())));
    };
    if input.name != INPUT {
        return Err(graph_error(format!("its input is called {} instead of {INPUT}", input.name)));
    }
    let tensor = input.r#type.as_ref().and_then(|TypeProto { tensor_type }| tensor_type.as_ref());
    let dims = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| &shape.dim[..]).unwrap_or_default();
    let dims: Vec<i64> = dims.iter().map(|dim| dim.dim_value).collect();
    match (tensor.map(|tensor| tensor.elem_type), &dims[..]) {
        (Some(data_type::UINT8), &[1, 1, rows, columns]) if rows == columns => usize::try_from(rows)
            .ok()
            .filter(|size| (1..=MAX_INPUT_SIZE).contains(size))
            .ok_or_else(|| graph_error(format!("its input has {rows} rows; 1 to {MAX_INPUT_SIZE} are read"))),
        (element, _) => Err(graph_error(format!(
            "its input must be u8 of shape [1, 1, size, size], not type {} of shape {dims:?}",
            element.unwrap_or_default()
        ))),
    }
}

/// A node, with what is needed to read it and to name it.
struct Node<'a> {
    proto: &'a NodeProto,
    position: usize,
    constants: &'a BTreeMap<&'a str, &'a TensorProto>,
}

impl<'a> Node<'a> {
    /// The layer it is, given the name of the tensor it must read.
    fn layer(&self, reads: &str) -> Result<Layer, OnnxError> {
        if self.proto.input.first().map(String::as_str) != Some(reads) {
            return Err(self.error(format!("it must read {reads}: the layers form one chain")));
        }
        if !self.proto.domain.is_empty() && self.proto.domain != "ai.onnx" {
            return Err(self.error(format!("operators of {} are not known", self.proto.domain)));
        }
        match self.proto.op_type.as_str() {
            "QLinearConv" => self.conv().map(Layer::Conv),
            "MaxPool" => {
                self.attributes(&[("kernel_shape", &[2, 2]), ("strides", &[2, 2])], &[("pads", &[0; 4])])?;
                Ok(Layer::MaxPool2)
            }
            other => Err(self.error(format!("operator {other} is neither QLinearConv nor MaxPool"))),
        }
    }

    fn conv(&self) -> Result<Conv, OnnxError> {
        let name = |index: usize| self.proto.input.get(index).map_or("", String::as_str);
        if self.proto.input.len() != 9 {
            return Err(self.error(format!("QLinearConv with {} inputs instead of 9", self.proto.input.len())));
        }
        let weights = self.constant(name(3))?;
        let [out_channels, in_channels, kernel, columns] = self.extents(weights)?[..] else {
            return Err(self.error("its weights do not have four extents".into()));
        };
        if kernel != columns || (kernel != 1 && kernel != 3) {
            return Err(self.error(format!("its kernel is {kernel} × {columns}; 1 × 1 and 3 × 3 are known")));
        }
        let (shape, border) = ([kernel as i64; 2], [kernel as i64 / 2; 4]);
        // Without pads an ONNX convolution has none, which for 1 × 1 is what the layer has.
        let pads: (&str, &[i64]) = ("pads", &border);
        let fixed: &[(&str, &[i64])] = if kernel == 1 { &[] } else { &[pads] };
        let optional: [(&str, &[i64]); 5] =
            [("dilations", &[1, 1]), ("group", &[1]), ("kernel_shape", &shape), ("strides", &[1, 1]), pads];
        self.attributes(fixed, &optional)?;

        let taps = kernel * kernel;
        let oihw = self.elements(weights, data_type::INT8, |b: [u8; 1]| i8::from_le_bytes(b), |i| i as i8)?;
        let mut ohwi = Vec::with_capacity(oihw.len());
        for filter in oihw.chunks_exact((in_channels * taps).max(1)) {
            for tap in 0..taps {
                ohwi.extend((0..in_channels).map(|c| filter[c * taps + tap]));
            }
        }
        drop(oihw);
        let zero_points =
            self.elements(self.constant(name(5))?, data_type::INT8, |b: [u8; 1]| i8::from_le_bytes(b), |i| i as i8)?;
        if zero_points.iter().any(|&zero_point| zero_point != 0) {
            return Err(self.error("its weights are not symmetric: a zero point is not 0".into()));
        }
        Ok(Conv {
            name: self.proto.name.clone(),
            in_channels,
            out_channels,
            kernel,
            weights: ohwi,
            weight_scales: self.floats(self.constant(name(4))?)?,
            bias: self.elements(self.constant(name(8))?, data_type::INT32, i32::from_le_bytes, |i| i)?,
            input: self.params(name(1), name(2))?,
            output: self.params(name(6), name(7))?,
        })
    }

    /// Checks the node's attributes: those of `required` must be there, those of `optional` may be, and each must have
    /// the value given. Others are refused unless they have a value that changes nothing.
    fn attributes(&self, required: &[(&str, &[i64])], optional: &[(&str, &[i64])]) -> Result<(), OnnxError> {
        let harmless: [(&str, &[i64]); 3] = [("ceil_mode", &[0]), ("storage_order", &[0]), ("dilations", &[1, 1])];
        for attribute in &self.proto.attribute {
            if attribute.name == "auto_pad" && attribute.s == b"NOTSET" {
                continue;
            }
            let one = [attribute.i];
            let value: &[i64] = if attribute.r#type == attribute_type::INT { &one } else { &attribute.ints };
            let known = required.iter().chain(optional).chain(&harmless).find(|(name, _)| *name == attribute.name);
            match known {
                Some((_, expected)) if value == *expected => {}
                Some((name, expected)) => {
                    return Err(self.error(format!("attribute {name} is {value:?} instead of {expected:?}")));
                }
                None => return Err(self.error(format!("attribute {} is not known", attribute.name))),
            }
        }
        match required.iter().find(|(name, _)| !self.proto.attribute.iter().any(|given| given.name == *name)) {
            Some((name, _)) => Err(self.error(format!("attribute {name} is missing"))),
            None => Ok(()),
        }
    }

    fn params(&self, scale: &str, zero_point: &str) -> Result<QuantParams, OnnxError> {
        let scales = self.floats(self.constant(scale)?)?;
        let zero_points = self.elements(
            self.constant(zero_point)?,
            data_type::UINT8,
            |b: [u8; 1]| u8::from_le_bytes(b),
            |i| i as u8,
        )?;
        match (&scales[..], &zero_points[..]) {
            (&[scale], &[zero_point]) => Ok(QuantParams { scale, zero_point }),
            _ => Err(self.error("an activation must have one scale and one zero point".into())),
        }
    }

    fn output(&self) -> Result<&'a str, OnnxError> {
        match &self.proto.output[..] {
            [output] => Ok(output),
            outputs => Err(self.error(format!("it writes {} tensors instead of one", outputs.len()))),
        }
    }

    fn constant(&self, name: &str) -> Result<&'a TensorProto, OnnxError> {
        self.constants.get(name).copied().ok_or_else(|| self.error(format!("no constant is called {name:?}")))
    }

    fn extents(&self, tensor: &TensorProto) -> Result<Vec<usize>, OnnxError> {
        let bounded = |&extent: &i64| usize::try_from(extent).ok().filter(|extent| (1..=MAX_CHANNELS).contains(extent));
        let extents: Option<Vec<usize>> = tensor.dims.iter().map(bounded).collect();
        let refusal = || self.error(format!("{} has extents {:?} beyond 1..={MAX_CHANNELS}", tensor.name, tensor.dims));
        extents.filter(|extents| extents.len() <= 4).ok_or_else(refusal)
    }

    fn floats(&self, tensor: &TensorProto) -> Result<Vec<f32>, OnnxError> {
        if tensor.data_type == data_type::FLOAT && tensor.raw_data.is_empty() {
            self.check_count(tensor, tensor.float_data.len())?;
            return Ok(tensor.float_data.clone());
        }
        self.elements(tensor, data_type::FLOAT, f32::from_le_bytes, |i| i as f32)
    }

    /// The elements of a constant, from `raw_data` or `int32_data`, as many as its extents say.
    fn elements<T, const N: usize>(
        &self,
        tensor: &TensorProto,
        data_type: i32,
        from_le_bytes: fn([u8; N]) -> T,
        from_i32: fn(i32) -> T,
    ) -> Result<Vec<T>, OnnxError> {
        if tensor.data_type != data_type {
            let found = tensor.data_type;
            return Err(self.error(format!("{} has element type {found} instead of {data_type}", tensor.name)));
        }
        if tensor.data_location != 0 {
            return Err(self.error(format!("{} lies in another file; it must be in this one", tensor.name)));
        }
        if tensor.raw_data.is_empty() {
            self.check_count(tensor, tensor.int32_data.len())?;
            return Ok(tensor.int32_data.iter().map(|&i| from_i32(i)).collect());
        }
        let (elements, rest) = tensor.raw_data.as_chunks::<N>();
        if !rest.is_empty() {
            return Err(self.error(format!("{} ends within an element", tensor.name)));
        }
        self.check_count(tensor, elements.len())?;
        Ok(elements.iter().map(|&bytes| from_le_bytes(bytes)).collect())
    }

    fn check_count(&self, tensor: &TensorProto, found: usize) -> Result<(), OnnxError> {
        // At most four extents of at most MAX_CHANNELS: the product fits 64 bits, and where usize has 32 it is checked.
        let expected = self.extents(tensor)?.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        if expected != Some(found) {
            return Err(self.error(format!("{} holds {found} elements, not {:?}", tensor.name, tensor.dims)));
        }
        Ok(())
    }

    fn error(&self, reason: String) -> OnnxError {
        let name = &self.proto.name;
        let node = if name.is_empty() { format!("number {}", self.position) } else { name.clone() };
        OnnxError::Node { node, reason }
    }
}

fn graph_error(reason: String) -> OnnxError {
    OnnxError::Graph(reason)
}

//! `Network` → ONNX. Not the reverse: see [`super::read`].

use super::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type, data_type,
};
use super::{EVIDENCE, FEATURES, INPUT, OPSET};
use crate::network::int8::{Conv, Layer, Network};
use crate::quant::QuantParams;
use crate::report::NOTICE;
use prost::Message;

/// The version of the file format that is written: the one that goes with [`OPSET`].
const IR_VERSION: i64 = 7;

/// Writes a network as an ONNX file. The network should pass [`Network::check`]; one that does not gives a file that
/// [`super::read`] refuses.
pub fn write(network: &Network) -> Vec<u8> {
    let mut graph = GraphProto {
        name: "roentgen".into(),
        doc_string: "VGG trunk without its classifier, then a 1x1 convolution to four class logits a cell. \
                     The mean of `evidence` over rows and columns, dequantized, is the logits."
            .into(),
        input: vec![value(
            INPUT,
            [1, network.input_size, network.input_size],
            "The preprocessed radiograph's grey levels: one channel, 0 black, air dark, bone bright.",
        )],
        ..GraphProto::default()
    };

    let mut reads = Edge { tensor: INPUT.to_owned(), params: edge_params(&mut graph, INPUT, network.input()) };
    let mut channels = 1;
    let mut pools = 0;
    for (index, layer) in network.trunk.iter().enumerate() {
        let is_last = index + 1 == network.trunk.len();
        match layer {
            Layer::Conv(conv) => {
                let tensor = if is_last { FEATURES.to_owned() } else { conv.name.clone() };
                reads = push_conv(&mut graph, conv, &reads, tensor);
                channels = conv.out_channels;
            }
            Layer::MaxPool2 => {
                pools += 1;
                let name = format!("pool{pools}");
                let tensor = if is_last { FEATURES.to_owned() } else { name.clone() };
                graph.node.push(max_pool(&name, &reads.tensor, &tensor));
                reads.tensor = tensor; // The integers keep their meaning: same scale, same zero point.
            }
        }
    }
    push_conv(&mut graph, &network.head, &reads, EVIDENCE.to_owned());

    let map = network.map_size();
    graph.output = vec![
        value(EVIDENCE, [network.head.out_channels, map, map], "One logit a class and cell, quantized."),
        value(FEATURES, [channels, map, map], "The trunk's last feature map, quantized."),
    ];
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "roentgen".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: format!("Chest radiograph screening, int8 VGG. {NOTICE}"),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
    };
    model.encode_to_vec()
}

/// A tensor between two nodes, and the names of the two constants that say how it is quantized.
struct Edge {
    tensor: String,
    params: [String; 2],
}

/// Adds the convolution's node and constants; returns the edge it writes.
fn push_conv(graph: &mut GraphProto, conv: &Conv, reads: &Edge, tensor: String) -> Edge {
    let name = &conv.name;
    let output_params = edge_params(graph, name, conv.output);
    let constant = |suffix: &str| format!("{name}.{suffix}");
    let (taps, channels) = (conv.kernel * conv.kernel, conv.in_channels);
    // From output channel, row, column, input channel to ONNX's output channel, input channel, row, column.
    let mut oihw = Vec::with_capacity(conv.weights.len());
    for filter in conv.weights.chunks_exact((taps * channels).max(1)) {
        for c in 0..channels {
            oihw.extend((0..taps).map(|tap| filter[tap * channels + c] as u8));
        }
    }
    let per_channel = [conv.out_channels];
    graph.initializer.extend([
        tensor_of(constant("weight"), data_type::INT8, &[conv.out_channels, channels, conv.kernel, conv.kernel], oihw),
        tensor_of(
            constant("weight_scale"),
            data_type::FLOAT,
            &per_channel,
            bytes(&conv.weight_scales, f32::to_le_bytes),
        ),
        // Symmetric weights: one zero for all channels.
        tensor_of(constant("weight_zero_point"), data_type::INT8, &[], vec![0]),
        tensor_of(constant("bias"), data_type::INT32, &per_channel, bytes(&conv.bias, i32::to_le_bytes)),
    ]);
    let [x_scale, x_zero_point] = reads.params.clone();
    let [y_scale, y_zero_point] = output_params.clone();
    let border = (conv.kernel / 2) as i64;
    graph.node.push(NodeProto {
        input: vec![
            reads.tensor.clone(),
            x_scale,
            x_zero_point,
            constant("weight"),
            constant("weight_scale"),
            constant("weight_zero_point"),
            y_scale,
            y_zero_point,
            constant("bias"),
        ],
        output: vec![tensor.clone()],
        name: name.clone(),
        op_type: "QLinearConv".into(),
        attribute: vec![
            ints("dilations", &[1, 1]),
            int("group", 1),
            ints("kernel_shape", &[conv.kernel as i64; 2]),
            ints("pads", &[border; 4]),
            ints("strides", &[1, 1]),
        ],
        ..NodeProto::default()
    });
    Edge { tensor, params: output_params }
}

fn max_pool(name: &str, reads: &str, writes: &str) -> NodeProto {
    NodeProto {
        input: vec![reads.to_owned()],
        output: vec![writes.to_owned()],
        name: name.to_owned(),
        op_type: "MaxPool".into(),
        attribute: vec![ints("kernel_shape", &[2, 2]), ints("pads", &[0; 4]), ints("strides", &[2, 2])],
        ..NodeProto::default()
    }
}

/// Adds the constants that say how the tensor that `owner` gives is quantized; returns their names.
fn edge_params(graph: &mut GraphProto, owner: &str, params: QuantParams) -> [String; 2] {
    let names = [format!("{owner}.scale"), format!("{owner}.zero_point")];
    let [scale, zero_point] = names.clone();
    graph.initializer.push(tensor_of(scale, data_type::FLOAT, &[], params.scale.to_le_bytes().to_vec()));
    graph.initializer.push(tensor_of(zero_point, data_type::UINT8, &[], vec![params.zero_point]));
    names
}

fn bytes<T: Copy>(values: &[T], to_le_bytes: fn(T) -> [u8; 4]) -> Vec<u8> {
    values.iter().flat_map(|&value| to_le_bytes(value)).collect()
}

fn tensor_of(name: String, data_type: i32, dims: &[usize], raw_data: Vec<u8>) -> TensorProto {
    let dims = dims.iter().map(|&extent| extent as i64).collect();
    TensorProto { name, data_type, dims, raw_data: raw_data.into(), ..TensorProto::default() }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: attribute_type::INT, ..AttributeProto::default() }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    let ints = ints.to_vec();
    AttributeProto { name: name.into(), ints, r#type: attribute_type::INTS, ..AttributeProto::default() }
}

/// A u8 tensor of the graph's interface: batch 1, then `extents` (channels, rows, columns).
fn value(name: &str, extents: [usize; 3], doc_string: &str) -> ValueInfoProto {
    let dim = std::iter::once(1).chain(extents).map(|extent| DimensionProto { dim_value: extent as i64 }).collect();
    let tensor_type = TensorTypeProto { elem_type: data_type::UINT8, shape: Some(TensorShapeProto { dim }) };
    let r#type = Some(TypeProto { tensor_type: Some(tensor_type) });
    ValueInfoProto { name: name.into(), r#type, doc_string: doc_string.into() }
}

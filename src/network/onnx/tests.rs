//! What the ONNX reader must accept and refuse.

use super::proto::{ModelProto, NodeProto, TensorProto};
use super::{read, write};
use crate::network::int8::{Conv, Layer, Network};
use crate::quant::QuantParams;
use proptest::prelude::*;
use prost::Message;

fn conv(name: &str, channels: (usize, usize), kernel: usize, input: QuantParams, output: QuantParams) -> Conv {
    let (in_channels, out_channels) = channels;
    let weights = (0..out_channels * kernel * kernel * in_channels).map(|i| (i * 37 % 256) as u8 as i8).collect();
    let weight_scales = (0..out_channels).map(|o| 0.01 + o as f32 / 512.0).collect();
    let bias = (0..out_channels as i32).map(|o| (o - 2) * 1000).collect();
    Conv { name: name.into(), in_channels, out_channels, kernel, weights, weight_scales, bias, input, output }
}

fn network() -> Network {
    let params = |scale, zero_point| QuantParams { scale, zero_point };
    let (a, b, c, d) = (params(1.0, 0), params(0.5, 3), params(0.25, 0), params(0.125, 131));
    let trunk = vec![
        Layer::Conv(conv("block1_conv1", (1, 3), 3, a, b)),
        Layer::MaxPool2,
        Layer::Conv(conv("block2_conv1", (3, 5), 3, b, c)),
        Layer::MaxPool2,
    ];
    Network { input_size: 8, trunk, head: conv("head", (5, 4), 1, c, d) }
}

/// The network's file with one thing changed in its message; what the reader says to it.
fn refusal(change: fn(&mut ModelProto)) -> String {
    let mut model = ModelProto::decode(&write(&network())[..]).expect("just written");
    change(&mut model);
    read(&model.encode_to_vec()).expect_err("must be refused").to_string()
}

fn node(model: &mut ModelProto, index: usize) -> &mut NodeProto {
    &mut model.graph.as_mut().expect("a graph").node[index]
}

fn weights(model: &mut ModelProto) -> &mut TensorProto {
    let constants = &mut model.graph.as_mut().expect("a graph").initializer;
    constants.iter_mut().find(|tensor| tensor.name == "block1_conv1.weight").expect("the first layer's weights")
}

#[test]
fn what_is_written_is_read_back_unchanged() {
    let mut network = network();
    assert_eq!(read(&write(&network)).expect("sound"), network);
    network.trunk.pop(); // a trunk that ends in a convolution
    assert_eq!(read(&write(&network)).expect("sound"), network);
}

#[test]
fn constants_as_typed_fields_are_read_like_raw_ones() {
    let mut model = ModelProto::decode(&write(&network())[..]).expect("just written");
    for tensor in &mut model.graph.as_mut().expect("a graph").initializer {
        let raw = std::mem::take(&mut tensor.raw_data);
        let words = || raw.chunks_exact(4).map(|word| <[u8; 4]>::try_from(word).expect("four bytes"));
        match tensor.data_type {
            1 => tensor.float_data = words().map(f32::from_le_bytes).collect(),
            6 => tensor.int32_data = words().map(i32::from_le_bytes).collect(),
            2 => tensor.int32_data = raw.iter().map(|&byte| i32::from(byte)).collect(),
            _ => tensor.int32_data = raw.iter().map(|&byte| i32::from(byte as i8)).collect(),
        }
    }
    assert_eq!(read(&model.encode_to_vec()).expect("sound"), network());
}

#[test]
fn other_graphs_are_refused_by_the_node_at_fault() {
    let cases: [(fn(&mut ModelProto), &str); 13] = [
        (|m| m.graph = None, "holds no graph"),
        (|m| m.opset_import[0].version = 11, "operator set 11"),
        (|m| m.graph.as_mut().expect("a graph").node.clear(), "no nodes"),
        (|m| m.graph.as_mut().expect("a graph").output.swap(0, 1), "its outputs are"),
        (|m| m.graph.as_mut().expect("a graph").input.clear(), "0 inputs"),
        (|m| node(m, 0).op_type = "Conv".into(), "node block1_conv1: operator Conv"),
        (|m| node(m, 1).attribute[2].ints = vec![1, 1], "node pool1: attribute strides is [1, 1]"),
        (|m| node(m, 1).attribute.clear(), "node pool1: attribute kernel_shape is missing"),
        (|m| node(m, 2).input[0] = "image".into(), "node block2_conv1: it must read pool1"),
        (|m| node(m, 2).input[3] = "nothing".into(), "node block2_conv1: no constant is called \"nothing\""),
        (|m| drop(node(m, 0).attribute.remove(3)), "node block1_conv1: attribute pads is missing"),
        (|m| node(m, 4).domain = "com.microsoft".into(), "node head: operators of com.microsoft"),
        (|m| weights(m).dims = vec![3, 1, 3, 4], "node block1_conv1: its kernel is 3 × 4"),
    ];
    for (change, expected) in cases {
        let said = refusal(change);
        assert!(said.contains(expected), "expected {expected:?}, was told {said:?}");
    }
}

#[test]
fn a_constant_of_the_wrong_length_or_in_another_file_is_refused() {
    assert!(refusal(|m| weights(m).raw_data.truncate(5)).contains("elements"));
    assert!(refusal(|m| weights(m).data_location = 1).contains("another file"));
    assert!(refusal(|m| weights(m).dims = vec![i64::MAX; 4]).contains("extents"));
    assert!(refusal(|m| weights(m).dims = vec![0; 4]).contains("extents"));
}

#[test]
fn a_file_that_would_decode_to_many_times_its_size_is_refused_undecoded() {
    let mut bytes = write(&network());
    // A million empty operator sets, two bytes each, at the end of the model.
    bytes.extend([8 << 3 | 2, 0].repeat(1 << 20));
    let said = read(&bytes).expect_err("must be refused").to_string();
    assert!(said.contains("besides raw tensor data"), "{said}");
}

#[test]
fn large_weights_do_not_count_as_structure() {
    let mut network = network();
    let Some(Layer::Conv(first)) = network.trunk.first().cloned() else { panic!("a convolution") };
    let wide = |name: &str, channels| Layer::Conv(conv(name, channels, 3, first.output, first.output));
    let (narrow, broad) = (first.out_channels, 512);
    network
        .trunk
        .splice(1..1, [wide("in", (narrow, broad)), wide("mid", (broad, broad)), wide("out", (broad, narrow))]);
    let bytes = write(&network);
    assert_eq!(read(&bytes).expect("sound"), network);
    assert!(bytes.len() > 2 << 20, "{} bytes", bytes.len());
}

proptest! {
    #[test]
    fn damaged_files_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>()) {
        let mut bytes = write(&network());
        for (index, value) in flips {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        // Either outcome is right; that it comes is what is tested. What is read can be written and read again.
        if let Ok(network) = read(&bytes) {
            prop_assert_eq!(read(&write(&network)).expect("was read once"), network);
        }
        bytes.truncate(cut.index(bytes.len()));
        let _ = read(&bytes);
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes).is_err());
    }
}

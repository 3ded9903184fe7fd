//! VGG16's convolutions out of a float ONNX file, such as the model zoo's. Not a general ONNX reader: it looks at Conv
//! and MaxPool nodes in graph order, up to the fifth pooling, and takes the graph for a chain.

use crate::weights::{BLOCKS, FloatConv, FloatModel};
use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use roentgen::network::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, data_type};
use std::collections::{BTreeMap, HashMap};

/// ONNX's number for f16, which quantized networks have no use for.
const FLOAT16: i32 = 10;

/// Reads the trunk.
pub(crate) fn read(bytes: &[u8]) -> Result<FloatModel> {
    let model = ModelProto::decode(bytes).context("neither a safetensors nor an ONNX file, or damaged")?;
    let graph = model.graph.context("an ONNX file without a graph")?;
    let constants: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let trunk = trunk(&graph, &constants)?;
    let mut notes = BTreeMap::new();
    if !graph.name.is_empty() {
        notes.insert("source".into(), format!("ONNX graph {:?} by {:?}", graph.name, model.producer_name));
    }
    Ok(FloatModel { trunk, head: None, notes })
}

fn trunk(graph: &GraphProto, constants: &HashMap<&str, &TensorProto>) -> Result<Vec<FloatConv>> {
    let mut trunk = Vec::new();
    let (mut block, mut place) = (1, 0);
    for node in &graph.node {
        match node.op_type.as_str() {
            "Conv" => {
                place += 1;
                let name = format!("block{block}_conv{place}");
                let conv = conv(name, node, constants).with_context(|| format!("node {:?}", node.name))?;
                trunk.push(conv);
            }
            "MaxPool" if block == BLOCKS => return Ok(trunk),
            "MaxPool" => (block, place) = (block + 1, 0),
            "BatchNormalization" => {
                bail!("node {:?}: VGG16 with batch normalization is not read; use the plain one", node.name)
            }
            _ => {}
        }
    }
    bail!("the graph ends in block {block}; VGG16 has {BLOCKS} MaxPool nodes")
}

fn conv(name: String, node: &NodeProto, constants: &HashMap<&str, &TensorProto>) -> Result<FloatConv> {
    let constant = |index: usize, what: &str| -> Result<&TensorProto> {
        let name = node.input.get(index).with_context(|| format!("it has no {what}"))?;
        constants.get(name.as_str()).copied().with_context(|| format!("its {what} {name:?} is no initializer"))
    };
    let weight = constant(1, "weight")?;
    let extents: Vec<usize> = weight.dims.iter().map(|&d| usize::try_from(d)).collect::<Result<_, _>>()?;
    let &[out_channels, in_channels, rows, columns] = extents.as_slice() else {
        bail!("its weight has shape {:?}, a convolution's has four extents", weight.dims);
    };
    ensure!(rows == columns, "its kernel is {rows} × {columns}; VGG16 has square ones only");
    for attribute in &node.attribute {
        let ordinary = match attribute.name.as_str() {
            "strides" | "dilations" => attribute.ints.iter().all(|&value| value == 1),
            "pads" => attribute.ints.iter().all(|&value| value == rows as i64 / 2),
            "group" => attribute.i == 1,
            _ => true,
        };
        ensure!(ordinary, "its {} are not those of VGG16", attribute.name);
    }
    let (weights, bias) = (numbers(weight)?, numbers(constant(2, "bias")?)?);
    Ok(FloatConv { name, out_channels, in_channels, kernel: rows, weights, bias })
}

/// The elements of an f32 or f16 tensor.
fn numbers(tensor: &TensorProto) -> Result<Vec<f32>> {
    ensure!(tensor.data_location == 0, "{:?} lies in another file; import a single-file ONNX", tensor.name);
    match tensor.data_type {
        data_type::FLOAT if tensor.raw_data.is_empty() => Ok(tensor.float_data.clone()),
        data_type::FLOAT => {
            let (words, rest) = tensor.raw_data.as_chunks::<4>();
            ensure!(rest.is_empty(), "{:?} is cut off", tensor.name);
            Ok(words.iter().map(|&word| f32::from_le_bytes(word)).collect())
        }
        FLOAT16 => {
            let (words, rest) = tensor.raw_data.as_chunks::<2>();
            ensure!(rest.is_empty() && !words.is_empty(), "{:?} is cut off", tensor.name);
            Ok(words.iter().map(|&word| half::f16::from_le_bytes(word).to_f32()).collect())
        }
        other => bail!("{:?} has element type {other}; only f32 and f16 are read", tensor.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roentgen::network::onnx::proto::AttributeProto;

    /// A chain of five blocks with one convolution each, as an exporter would write it.
    fn model(strides: i64) -> ModelProto {
        let mut graph = GraphProto { name: "vgg".into(), ..Default::default() };
        for block in 0..6u8 {
            let in_channels = if block == 0 { 3 } else { 2 };
            let weights: Vec<f32> = (0..2 * in_channels * 9).map(|i| i as f32 + f32::from(block)).collect();
            let raw: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
            graph.initializer.push(TensorProto {
                dims: vec![2, in_channels, 3, 3],
                data_type: data_type::FLOAT,
                name: format!("w{block}"),
                raw_data: raw.into(),
                ..Default::default()
            });
            graph.initializer.push(TensorProto {
                dims: vec![2],
                data_type: data_type::FLOAT,
                name: format!("b{block}"),
                float_data: vec![1.0, 2.0],
                ..Default::default()
            });
            let node = |op: &str, input: Vec<String>| NodeProto {
                op_type: op.into(),
                name: format!("{op}{block}"),
                input,
                ..Default::default()
            };
            let mut conv = node("Conv", vec!["x".into(), format!("w{block}"), format!("b{block}")]);
            conv.attribute.push(AttributeProto {
                name: "strides".into(),
                ints: vec![strides; 2],
                ..Default::default()
            });
            graph.node.extend([conv, node("Relu", vec![]), node("MaxPool", vec![])]);
        }
        ModelProto { graph: Some(graph), ..Default::default() }
    }

    #[test]
    fn the_convolutions_before_the_fifth_pooling_are_the_trunk() {
        let read = read(&model(1).encode_to_vec()).unwrap();
        let names: Vec<&str> = read.trunk.iter().map(|conv| conv.name.as_str()).collect();
        assert_eq!(names, [1, 2, 3, 4, 5].map(|b| format!("block{b}_conv1")));
        assert_eq!(read.trunk[1].weights[..3], [1.0, 2.0, 3.0]);
        assert_eq!(read.trunk[4].bias, [1.0, 2.0]);
        read.check(3).unwrap();
    }

    #[test]
    fn what_is_no_vgg_is_refused_by_node() {
        let told = |model: ModelProto| format!("{:#}", read(&model.encode_to_vec()).unwrap_err());
        assert!(told(model(2)).contains("Conv0"), "{}", told(model(2)));
        let mut short = model(1);
        short.graph.as_mut().unwrap().node.truncate(6);
        assert!(told(short).contains("block 3"));
        let mut missing = model(1);
        missing.graph.as_mut().unwrap().initializer.remove(2);
        assert!(told(missing).contains("w1"));
        assert!(read(b"\xff\xff\xff").is_err());
    }
}

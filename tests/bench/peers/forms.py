"""The bundle's network in the forms that peers read best: QuantizeLinear/DequantizeLinear ONNX, and ncnn's param and bin.

The weights are the bundle's own int8 numbers in each. ONNX Runtime and TFLite need no other form than the bundle's files.
"""

import struct
from pathlib import Path

import numpy
import onnx
from network import Conv, Network
from onnx import helper, numpy_helper

NCNN_MAGIC = 7767517
"""First line of a .param file."""
NCNN_INT8_TAG = 0x000D4B38
"""Precedes int8 weights in a .bin file."""


def write_qdq(source: Path, path: Path) -> None:
    """Writes model.onnx's QLinearConv nodes as DequantizeLinear, Conv, QuantizeLinear with the same integers and scales.

    OpenVINO's reader refuses per-channel QLinearConv; this form it runs in int8 from the image to the outputs.
    """
    model = onnx.load(source)
    constants = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    nodes, used = [], {}
    for node in model.graph.node:
        if node.op_type != "QLinearConv":
            nodes.append(node)
            continue
        x, x_scale, x_zero, w, w_scale, _, y_scale, y_zero, bias = node.input
        name, channels = node.name, constants[w].shape[0]
        used |= {key: constants[key] for key in (x_scale, x_zero, w, w_scale, y_scale, y_zero, bias)}
        used[f"{name}.zeros_i8"] = numpy.zeros(channels, numpy.int8)
        used[f"{name}.zeros_i32"] = numpy.zeros(channels, numpy.int32)
        used[f"{name}.bias_scale"] = (constants[x_scale] * constants[w_scale]).astype(numpy.float32)
        conv = helper.make_node("Conv", [f"{name}.x", f"{name}.w", f"{name}.b"], [f"{name}.y"], name)
        conv.attribute.extend(node.attribute)
        nodes += [
            helper.make_node("DequantizeLinear", [x, x_scale, x_zero], [f"{name}.x"]),
            helper.make_node("DequantizeLinear", [w, w_scale, f"{name}.zeros_i8"], [f"{name}.w"], axis=0),
            helper.make_node("DequantizeLinear", [bias, f"{name}.bias_scale", f"{name}.zeros_i32"], [f"{name}.b"], axis=0),
            conv,
            helper.make_node("QuantizeLinear", [f"{name}.y", y_scale, y_zero], [node.output[0]]),
        ]
    tensors = [numpy_helper.from_array(values, key) for key, values in used.items()]
    graph = helper.make_graph(nodes, "qdq", model.graph.input, model.graph.output, tensors)
    qdq = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(qdq)
    onnx.save(qdq, path)


def ncnn_param(network: Network) -> str:
    """ncnn's graph. Where a convolution follows another the int8 is handed on; a pooling runs on f32, as ncnn's own
    `ncnn2int8` has it (its int8 pooling is wrong on x86)."""
    lines, blobs = ["Input image 0 1 image"], 1
    for layer, following in zip(network.layers, (*network.layers[1:], None)):
        reads = "features_1" if layer.reads == "features" else layer.reads
        if isinstance(layer, Conv):
            channels, _, kernel, _ = layer.weights.shape
            term = 102 if isinstance(following, Conv) else 2
            lines.append(
                f"Convolution {layer.name} 1 1 {reads} {layer.writes} 0={channels} 1={kernel} 4={kernel // 2} 5=1 "
                f"6={layer.weights.size} 8={term} 9={int(layer.relu)}"
            )
        else:
            lines.append(f"Pooling {layer.name} 1 1 {reads} {layer.writes} 0=0 1=2 2=2 5=1")
        blobs += 1
        if layer.writes == "features":
            lines.append("Split split 1 2 features features_0 features_1")
            blobs += 2
    return "\n".join([str(NCNN_MAGIC), f"{len(lines)} {blobs}", *lines, ""])


def ncnn_bin(network: Network) -> bytes:
    """ncnn's weights: the bundle's int8 as they are, biases as f32, and scales (steps a unit, so one over ours).

    ncnn's activations are signed: -127 to 127, so half of ours' 255 steps above 0. Its outputs must differ.
    """
    parts = []
    for layer, following in zip(network.layers, (*network.layers[1:], None)):
        if not isinstance(layer, Conv):
            continue
        weights, scales = layer.weights.tobytes(), layer.weight_scales.astype(numpy.float64)
        parts += [
            struct.pack("<I", NCNN_INT8_TAG),
            weights + bytes(-len(weights) % 4),
            (layer.bias * (layer.in_scale * scales)).astype("<f4").tobytes(),
            (1.0 / scales).astype("<f4").tobytes(),
            struct.pack("<f", 127 / (255 * layer.in_scale)),
        ]
        if isinstance(following, Conv):
            parts.append(struct.pack("<f", 127 / (255 * layer.out_scale)))
    return b"".join(parts)


def write_ncnn(network: Network, stem: Path) -> None:
    """Writes STEM.param and STEM.bin."""
    stem.with_suffix(".param").write_text(ncnn_param(network))
    stem.with_suffix(".bin").write_bytes(ncnn_bin(network))

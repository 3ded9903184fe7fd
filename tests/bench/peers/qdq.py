"""The bundle's network as ONNX with QuantizeLinear/DequantizeLinear pairs, the form that OpenVINO reads as int8.

The integers are the bundle's own. ONNX Runtime and TFLite read the bundle's files; ncnn's form is ncnn_form.py.
"""

from pathlib import Path

import numpy
import onnx
from onnx import helper, numpy_helper


def write(source: Path, path: Path) -> None:
    """Writes model.onnx with each QLinearConv as DequantizeLinear, Conv, QuantizeLinear: same integers, same scales.

    OpenVINO's reader refuses per-channel QLinearConv; this form it runs in int8 from the image to the outputs.
    """
    model = onnx.load(source)
    constants = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    used: dict[str, numpy.ndarray] = {}
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
            helper.make_node(
                "DequantizeLinear", [bias, f"{name}.bias_scale", f"{name}.zeros_i32"], [f"{name}.b"], axis=0
            ),
            conv,
            helper.make_node("QuantizeLinear", [f"{name}.y", y_scale, y_zero], [node.output[0]]),
        ]
    tensors = [numpy_helper.from_array(values, key) for key, values in used.items()]
    graph = helper.make_graph(nodes, "qdq", model.graph.input, model.graph.output, tensors)
    qdq = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(qdq)
    onnx.save(qdq, path)

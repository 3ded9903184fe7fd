"""Reads the bundle's network out of its model.onnx.

Not a general ONNX reader: it knows what `roentgen-host quantize` writes, QLinearConv and MaxPool in one line.
"""

from pathlib import Path

import numpy
import onnx
from layers import Conv, Network, Pool
from onnx import numpy_helper


class Unsupported(Exception):
    """The model is not one that these programs can hand to the peers; the message says why."""


def read(path: Path) -> Network:
    """Reads a bundle's model.onnx."""
    graph = onnx.load(path).graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    layers: list[Conv | Pool] = []
    for node in graph.node:
        if node.op_type == "MaxPool":
            layers.append(Pool(node.name, node.input[0], node.output[0]))
        elif node.op_type == "QLinearConv":
            x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = node.input
            if constants[x_zero].any() or constants[w_zero].any():
                raise Unsupported(f"{node.name}: an input or weight zero_point other than 0 is not handed to the peers")
            weights = constants[w]
            layers.append(
                Conv(
                    name=node.name,
                    reads=x,
                    writes=node.output[0],
                    shape=weights.shape,
                    weights=weights.tobytes(),
                    weight_scales=tuple(numpy.broadcast_to(constants[w_scale], weights.shape[:1]).tolist()),
                    bias=tuple(constants[bias].tolist()),
                    in_scale=float(constants[x_scale]),
                    out_scale=float(constants[y_scale]),
                    out_zero_point=int(constants[y_zero]),
                )
            )
        else:
            raise Unsupported(f"{node.name}: operator {node.op_type} is not handed to the peers")
    shape = [dimension.dim_value for dimension in graph.input[0].type.tensor_type.shape.dim]
    if shape[:2] != [1, 1] or shape[2] != shape[3]:
        raise Unsupported(f"{path}: the input has shape {shape} instead of [1, 1, N, N]")
    return Network(shape[2], tuple(layers))

"""Reads the bundle's network out of its model.onnx: layers, integers, scales.

Not a general ONNX reader: it knows what `roentgen-host quantize` writes, QLinearConv and MaxPool in one line.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy
import onnx
from onnx import numpy_helper


class Unsupported(Exception):
    """The model is not one that these programs can hand to the peers; the message says why."""


@dataclass(frozen=True)
class Conv:
    """A quantized convolution, stride 1, padded to keep rows and columns."""

    name: str
    reads: str
    writes: str
    weights: numpy.ndarray
    """i8: output channel, input channel, kernel row, kernel column."""
    weight_scales: numpy.ndarray
    """f32, one an output channel."""
    bias: numpy.ndarray
    """i32, one an output channel, in units of input scale × weight scale."""
    in_scale: float
    out_scale: float
    out_zero_point: int

    @property
    def relu(self) -> bool:
        """Whether the saturation at 0 is a ReLU."""
        return self.out_zero_point == 0


@dataclass(frozen=True)
class Pool:
    """The maximum over 2 × 2 cells, stride 2."""

    name: str
    reads: str
    writes: str


@dataclass(frozen=True)
class Network:
    """The layers in order, and the size of the one-channel input."""

    size: int
    layers: tuple[Conv | Pool, ...]

    def macs(self) -> int:
        """Multiplications with accumulation of one inference by the definition, border included."""
        size, total = self.size, 0
        for layer in self.layers:
            if isinstance(layer, Pool):
                size //= 2
            else:
                total += size * size * layer.weights.size
        return total


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
            scales = numpy.broadcast_to(constants[w_scale].astype(numpy.float32), weights.shape[:1])
            layers.append(
                Conv(
                    node.name, x, node.output[0], weights, scales, constants[bias],
                    float(constants[x_scale]), float(constants[y_scale]), int(constants[y_zero]),
                )
            )
        else:
            raise Unsupported(f"{node.name}: operator {node.op_type} is not handed to the peers")
    shape = [dimension.dim_value for dimension in graph.input[0].type.tensor_type.shape.dim]
    if shape[:2] != [1, 1] or shape[2] != shape[3]:
        raise Unsupported(f"{path}: the input has shape {shape} instead of [1, 1, N, N]")
    return Network(shape[2], tuple(layers))

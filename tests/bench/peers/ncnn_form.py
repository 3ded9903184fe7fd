"""The bundle's network in ncnn's own format: .param (the graph) and .bin (the integers). Pure: no library needed.

The weights are the bundle's int8 numbers as they are. ncnn's activations are signed, -127 to 127: after a ReLU it has
127 steps where the bundle has 255, so that its outputs must differ. That is ncnn's int8, not a fault of this form.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from layers import Conv, Network, Pool

MAGIC = 7767517
"""First line of a .param file."""
INT8_TAG = 0x000D4B38
"""Precedes int8 weights in a .bin file."""
INT8, INT8_TO_INT8 = 2, 102
"""Scale terms of a convolution: weights by channel, output f32 or handed on as int8."""


def _with_next(network: Network) -> Iterator[tuple[Conv | Pool, bool]]:
    """Each layer, and whether it hands int8 on: as in ncnn's own `ncnn2int8`, only from convolution to convolution.
    A pooling runs on f32: ncnn's x86 pooling takes int8 for something else, and gives nonsense."""
    for layer, following in zip(network.layers, (*network.layers[1:], None)):
        yield layer, isinstance(layer, Conv) and isinstance(following, Conv)


def param(network: Network) -> str:
    """The .param file."""
    lines, blobs = ["Input image 0 1 image"], 1
    for layer, int8_on in _with_next(network):
        reads = "features_1" if layer.reads == "features" else layer.reads
        if isinstance(layer, Conv):
            channels, inputs, rows, columns = layer.shape
            term = INT8_TO_INT8 if int8_on else INT8
            lines.append(
                f"Convolution {layer.name} 1 1 {reads} {layer.writes} 0={channels} 1={columns} 11={rows} "
                f"4={columns // 2} 14={rows // 2} 5=1 6={channels * inputs * rows * columns} 8={term} "
                f"9={int(layer.relu)}"
            )
        else:
            lines.append(f"Pooling {layer.name} 1 1 {reads} {layer.writes} 0=0 1=2 2=2 5=1")
        blobs += 1
        if layer.writes == "features":  # read by the head and from outside: a blob may have one reader only
            lines.append("Split split 1 2 features features_0 features_1")
            blobs += 2
    return "\n".join([str(MAGIC), f"{len(lines)} {blobs}", *lines, ""])


def _steps(scale: float) -> float:
    """ncnn's scale of activations: its 127 steps over what the bundle's 255 span."""
    return 127 / (255 * scale)


def binary(network: Network) -> bytes:
    """The .bin file: a convolution's weights, bias, and scales as steps a unit, one over the bundle's."""
    parts = []
    for layer, int8_on in _with_next(network):
        if isinstance(layer, Conv):
            floats = [bias * layer.in_scale * scale for bias, scale in zip(layer.bias, layer.weight_scales)]
            floats += [1 / scale for scale in layer.weight_scales] + [_steps(layer.in_scale)]
            if int8_on:
                floats.append(_steps(layer.out_scale))
            padding = bytes(-len(layer.weights) % 4)
            parts += [struct.pack("<I", INT8_TAG), layer.weights, padding, struct.pack(f"<{len(floats)}f", *floats)]
    return b"".join(parts)


def write(network: Network, stem: Path) -> None:
    """Writes STEM.param and STEM.bin."""
    stem.with_suffix(".param").write_text(param(network))
    stem.with_suffix(".bin").write_bytes(binary(network))

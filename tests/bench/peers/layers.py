"""The bundle's network as plain values: layers, integers, scales. No file format, no library: network.py reads it."""

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Conv:
    """A quantized convolution, stride 1, padded to keep rows and columns."""

    name: str
    reads: str
    writes: str
    shape: tuple[int, int, int, int]
    """Of the weights: output channels, input channels, kernel rows, kernel columns."""
    weights: bytes
    """i8, in that order."""
    weight_scales: tuple[float, ...]
    """One an output channel."""
    bias: tuple[int, ...]
    """One an output channel, in units of input scale × weight scale."""
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
                total += size * size * prod(layer.shape)
        return total

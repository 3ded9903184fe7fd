"""What a bundle promises: its input's size, the scales of its outputs, and their bytes for its golden images.

Needs numpy alone, so that the process that times a peer carries little else. The layers are network.py's.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy


@dataclass(frozen=True)
class Golden:
    """An image and the bytes that it must give, rows × columns × channels."""

    image: numpy.ndarray
    evidence: numpy.ndarray
    features: numpy.ndarray


@dataclass(frozen=True)
class Contract:
    """A bundle's manifest, as far as it is needed here."""

    bundle: Path
    name: str
    size: int
    outputs: dict[str, tuple[float, int]]

    @staticmethod
    def read(bundle: Path) -> "Contract":
        """Reads bundle.toml."""
        manifest = tomllib.loads((bundle / "bundle.toml").read_text())
        outputs = {name: (output["scale"], output["zero_point"]) for name, output in manifest["outputs"].items()}
        return Contract(bundle, f"{manifest['name']} {manifest['version']}", manifest["input"]["rows"], outputs)

    def output(self, name: str) -> tuple[float, int]:
        """Scale and zero point of an output."""
        return self.outputs[name]

    def golden(self) -> list[Golden]:
        """The golden vectors, in order; at least one."""
        images = sorted((self.bundle / "golden").glob("*.image.u8"))
        if not images:
            raise ValueError(f"{self.bundle}/golden holds no golden vectors: make the bundle again with roentgen-host")

        def part(image: Path, name: str) -> numpy.ndarray:
            return numpy.fromfile(image.with_name(image.name.replace(".image.", f".{name}.")), numpy.uint8)

        return [
            Golden(part(image, "image").reshape(self.size, self.size), part(image, "evidence"), part(image, "features"))
            for image in images
        ]

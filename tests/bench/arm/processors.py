"""The processors that are emulated, and what a program may know of them. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Processor:
    """One model of QEMU's."""

    name: str
    stands_for: str
    """Boards that have it, or its like."""
    bar: float
    """What Roentgen's instructions may be at most, as a share of XNNPACK's."""
    midr: int | None = None
    """Its MIDR_EL1, by which Linux names a core in /proc/cpuinfo; none where the model is no real core."""
    scalable: bool = False
    """Whether it has SVE and SME, which tract then uses, though they take it more instructions than SDOT does."""


PROCESSORS = [
    Processor("cortex-a53", "NEON: Raspberry Pi 3, Coral Dev Board", 0.6, 0x410FD034),
    Processor("cortex-a72", "NEON: Raspberry Pi 4", 0.6, 0x410FD083),
    Processor("cortex-a76", "NEON with dot products: Raspberry Pi 5", 0.95, 0x414FD0B1),
    Processor("max", "NEON with dot and matrix products of i8: recent cores", 0.95, scalable=True),
]
"""Cortex-a72 has the instructions of cortex-a53 and runs the same code of ours; XNNPACK has other kernels for it."""

DEFAULT = ["cortex-a53", "cortex-a76", "max"]


def cpuinfo(midr: int, cores: int) -> str:
    """What /proc/cpuinfo would say of so many such cores: QEMU shows the host's, in which no ARM core is named."""
    core = (
        "BogoMIPS\t: 100.00\n"
        "Features\t: fp asimd cpuid\n"
        f"CPU implementer\t: {midr >> 24:#04x}\n"
        "CPU architecture: 8\n"
        f"CPU variant\t: {midr >> 20 & 0xF:#x}\n"
        f"CPU part\t: {midr >> 4 & 0xFFF:#05x}\n"
        f"CPU revision\t: {midr & 0xF}\n\n"
    )
    return "".join(f"processor\t: {number}\n{core}" for number in range(cores))

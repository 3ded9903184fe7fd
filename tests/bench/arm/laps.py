"""What the plugin `count.so` wrote: instructions by kind between the lines that a program printed."""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

Counts = dict[str, int]


@dataclass(frozen=True)
class Lap:
    """What ran before a line was printed, since the line before."""

    line: str
    counts: Counts


class Failed(Exception):
    """A program did not run; the message says which, and what it said."""


def parse(printed: str, counted: str) -> list[Lap]:
    """Pairs the lines that were printed with the counts. What follows the last line is dropped."""
    lines = printed.splitlines()
    laps = [{kind: int(number) for kind, number in (word.split("=") for word in line.split())}
            for line in counted.splitlines()]  # fmt: skip
    if len(laps) != len(lines) + 1:
        raise Failed(f"{len(lines)} lines were printed and {len(laps)} laps counted; the program must flush every line")
    return [Lap(line, counts) for line, counts in zip(lines, laps)]


def last_inference(laps: list[Lap], end: str = "inference") -> list[Lap]:
    """The laps of the last inference: those after the line `end` that is last but one, up to the last."""
    ends = [index for index, lap in enumerate(laps) if lap.line == end]
    if len(ends) < 2:
        raise Failed("two inferences are needed: the first one also makes what all need")
    return laps[ends[-2] + 1 : ends[-1] + 1]


def total(laps: list[Lap]) -> Counts:
    """The sum of all laps."""
    kinds = dict.fromkeys(kind for lap in laps for kind in lap.counts)
    return {kind: sum(lap.counts.get(kind, 0) for lap in laps) for kind in kinds}


def run(plugin: Path, processor: str, prefix: Path, command: list[str | Path]) -> list[Lap]:
    """Runs an ARM program on an emulated processor. `prefix` is where it finds its libraries, and its /proc/cpuinfo."""
    with tempfile.TemporaryDirectory() as folder:
        counted = Path(folder) / "counted"
        result = subprocess.run(
            ["qemu-aarch64", "-plugin", f"{plugin},to={counted}", *map(str, command)],
            env=os.environ | {"QEMU_CPU": processor, "QEMU_LD_PREFIX": str(prefix)},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise Failed(f"{command[0]} on {processor} ended with {result.returncode}: {result.stderr.strip()}")
        return parse(result.stdout, counted.read_text())

"""Counts the instructions of one inference under QEMU, ours and the peers', and writes a table. Start it with `run`.

Not a test: nothing here fails because something takes many instructions. A program that computes something else is
called so in the table.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import laps
import table
from laps import Failed, Lap
from processors import DEFAULT, PROCESSORS, Processor, cpuinfo

ROOT = Path(__file__).parents[3]
CACHE = ROOT / ".cache/bench-arm"
EXAMPLES = ROOT / "target/arm/aarch64-unknown-linux-gnu/release/examples"
TRACT = ROOT / "target/arm-tract/aarch64-unknown-linux-gnu/release/tract-peer"
LIBRARIES = Path("/usr/aarch64-linux-gnu")
SCHEMA = "roentgen.arm/1"
NO_SVE = "tract, SVE and SME off"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests/bench/arm/run", description=__doc__)
    names = [processor.name for processor in PROCESSORS]
    parser.add_argument("--cpu", action="append", choices=names, help=f"a processor (default {', '.join(DEFAULT)})")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="only runtimes with this word in their names"
    )
    parser.add_argument("--kernels", metavar="NAME", help="ours with these kernels instead of the best")
    parser.add_argument("--layers", action="store_true", help="also every kernel of ours on every layer")
    parser.add_argument(
        "--bundle", type=Path, default=ROOT / "models/cxr-vgg16", metavar="DIR", help="the model bundle"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench", metavar="DIR", help="where the results go")
    return parser.parse_args()


def described(root: Path) -> str:
    """Which state of this checkout is measured; outside a checkout (a tarball, no git) the package's version."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, cwd=root)
        if found.returncode == 0 and found.stdout.strip():
            return found.stdout.strip()
    except OSError:
        pass  # no git: the same as no checkout
    package = tomllib.loads((root / "Cargo.toml").read_text())["package"]
    return f"{package['version']} (no git checkout)"


def versions() -> dict[str, str]:
    """Of everything that was counted or that counts."""
    locked = (Path(__file__).parent / "tract/Cargo.lock").read_text(), (ROOT / "Cargo.lock").read_text()
    tract = [re.search(r'name = "tract-onnx"\nversion = "([^"]*)"', lock) for lock in locked]
    found = [match.group(1) if match else "none" for match in tract]
    if found[0] != found[1]:
        raise Failed(f"tract is {found[0]} here and {found[1]} in Roentgen: change tests/bench/arm/tract/Cargo.toml")

    def first_line(*command: str | Path) -> str:
        """What a program that must be there prints first."""
        output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
        return output[0] if output else ""

    qemu = first_line("qemu-aarch64", "--version").partition("(")[0].split()[-1]
    return {
        "Roentgen": described(ROOT),
        "TensorFlow Lite": "2.17.1",
        "tract": found[0],
        "rustc": first_line(ROOT / ".cache/aarch64/rustc", "--version").split()[1],
        "QEMU": qemu,
    }


def told(processor: Processor) -> Path:
    """A prefix in which programs find ARM's libraries and a /proc/cpuinfo that names the core."""
    prefix = CACHE / "prefix" / processor.name
    (prefix / "proc").mkdir(parents=True, exist_ok=True)
    (prefix / "proc/cpuinfo").write_text(cpuinfo(processor.midr or 0, os.cpu_count() or 1))
    if not (prefix / "lib").is_symlink():
        (prefix / "lib").symlink_to(LIBRARIES / "lib")
    return prefix


class Bench:
    """One run of the benchmark."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.image = given.bundle / "golden/00.image.u8"
        self.golden = (given.bundle / "golden/00.evidence.u8").read_bytes()

    def infer(self, cpu: str, prefix: Path, program: Path, model: str, *more: str) -> tuple[list[Lap], int]:
        """The laps of the second inference, and in how many bytes its evidence map differs from the golden one."""
        output = CACHE / "output.u8"
        output.unlink(missing_ok=True)
        command = [program, self.given.bundle / model, self.image, "2", output, *more]
        counted = laps.run(CACHE / "count.so", cpu, prefix, command)
        written = output.read_bytes()
        differing = sum(a != b for a, b in zip(written, self.golden)) + abs(len(written) - len(self.golden))
        return laps.last_inference(counted), differing

    def measure(self, processor: Processor) -> list[dict]:
        """All programs on one processor."""
        kernels = [self.given.kernels] if self.given.kernels else []
        known = told(processor) if processor.midr is not None else LIBRARIES
        field = [
            ("Roentgen", "ours", EXAMPLES / "infer", "model.onnx", LIBRARIES, kernels),
            ("XNNPACK", "xnnpack", CACHE / "xnnpack", "model.tflite", known, []),
            ("tract", "tract", TRACT, "model.onnx", known, []),
        ]
        if processor.midr is not None:
            field.insert(2, ("XNNPACK, core unknown", "xnnpack", CACHE / "xnnpack", "model.tflite", LIBRARIES, []))
        if processor.scalable:
            field.append((NO_SVE, "tract", TRACT, "model.onnx", known, []))
        measured = []
        for name, family, program, model, prefix, more in field:
            if self.given.only and not any(word.lower() in name.lower() for word in self.given.only):
                continue
            print(f"== {processor.name}: {name}", file=sys.stderr, flush=True)
            cpu = f"{processor.name},sve=off,sme=off" if name == NO_SVE else processor.name
            counted, differing = self.infer(cpu, prefix, program, model, *more)
            entry = {"name": name, "family": family, "counts": laps.total(counted), "differing_bytes": differing}
            if family == "ours":
                pairs = [(lap.line.partition("\t"), lap.counts["all"]) for lap in counted]
                entry["steps"] = [
                    {"step": step, "kernel": kernel, "instructions": number} for (step, _, kernel), number in pairs
                ]
            measured.append(entry)
        return measured

    def layers(self, processor: Processor) -> dict[str, list[dict]]:
        """Every stage of every kernel on every layer, by the kernels' name."""
        environment = os.environ | {"QEMU_CPU": processor.name, "QEMU_LD_PREFIX": str(LIBRARIES)}
        listed = ["qemu-aarch64", str(EXAMPLES / "kernels")]
        names = subprocess.run(listed, capture_output=True, text=True, check=True, env=environment).stdout.split()
        name = self.given.kernels or names[0]
        print(f"== {processor.name}: every kernel of {name}", file=sys.stderr, flush=True)
        counted = laps.run(CACHE / "count.so", processor.name, LIBRARIES, [EXAMPLES / "count", name])
        stages = [(*lap.line.split("\t"), lap.counts["all"]) for lap in counted]
        keys = ("layer", "kernel", "stage", "instructions")
        return {name: [dict(zip(keys, stage)) for stage in stages if stage[2] != "prepared"]}


def main() -> None:
    """Measures and writes."""
    given = arguments()
    bench = Bench(given)
    results = {
        "schema": SCHEMA,
        "date": datetime.date.today().isoformat(),
        "model": given.bundle.resolve().name,
        "versions": versions(),
        "processors": [],
    }
    for processor in PROCESSORS:
        if processor.name not in (given.cpu or DEFAULT):
            continue
        entry = {"name": processor.name, "stands_for": processor.stands_for, "bar": processor.bar}
        entry["measured"] = bench.measure(processor)
        if given.layers:
            entry["layers"] = bench.layers(processor)
        results["processors"].append(entry)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "arm.json").write_text(json.dumps(results, indent=1) + "\n")
    page = table.markdown(results)
    (given.out / "arm.md").write_text(page + table.steps(results) + table.kernels(results))
    print(page)


if __name__ == "__main__":
    try:
        main()
    except (Failed, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"tests/bench/arm/run: {error}")

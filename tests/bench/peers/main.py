"""Runs Roentgen and the peers on the same int8 VGG16, interleaved; writes table, JSON and plot. Start it with `run`.

Not a test: nothing here fails because something is slow. A peer that computes something else is called so in the table.
"""

import argparse
import hashlib
import json
import os
import platform
import shlex
import sys
import sysconfig
from pathlib import Path

import bars
import ceiling
import contenders
import energy
import held
import machine
import ncnn_form
import network
import plot
import qdq
import summary
import table
from contenders import Contender, NotThere
from contract import Contract

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CACHE = ROOT / ".cache"
SCHEMA = "roentgen.peers/1"

PAIRS = "from QuantizeLinear/DequantizeLinear pairs, since it does not read QLinearConv by channel"
SATURATES = "without VNNI it adds products in 16 bits that saturate"
SEVEN_BITS = "the same int8 weights, but its activations are signed: 127 steps where the bundle has 255"


class Stop(Exception):
    """The benchmark cannot go on; the message says what to do."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests/bench/peers/run", description=__doc__)
    cores = len(os.sched_getaffinity(0))
    threads = ",".join(str(number) for number in sorted({1, min(2, cores), cores}))
    parser.add_argument(
        "--roentgend", type=Path, metavar="FILE", help="the program to measure; otherwise `run` builds it"
    )
    parser.add_argument(
        "--bundle", type=Path, default=ROOT / "models/cxr-vgg16", metavar="DIR", help="the model bundle"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="rounds of fresh processes (default 5; 0: write again)"
    )
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="timed inferences a process (default 20)")
    parser.add_argument("--threads", default=threads, metavar="N,N", help=f"numbers of threads (default {threads})")
    parser.add_argument(
        "--native",
        action="append",
        type=shlex.split,
        metavar="OPTIONS",
        help="also our native backend with options of `roentgend bench`, such as --native='--kernel avx512vnni' "
        "(otherwise --direct-only, --memory small and --memory fast; with --avx2: --kernel avx2)",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="only contenders with this word in their names"
    )
    parser.add_argument("--avx2", action="store_true", help="hold the peers to AVX2")
    parser.add_argument("--quick", action="store_true", help="one round of five runs: a look, not a measurement")
    parser.add_argument(
        "--add", action="store_true", help="add rounds to the results that are there, instead of beginning anew"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench", metavar="DIR", help="where the results go")
    given = parser.parse_args()
    try:
        given.threads = [int(number) for number in given.threads.split(",")]
    except ValueError:
        parser.error("--threads takes numbers and commas, such as 1,2")
    if min(given.threads) < 1 or given.rounds < 0 or given.runs < 1:
        parser.error("--threads and --runs must be 1 or more, --rounds 0 or more")
    if given.quick:
        given.rounds, given.runs = 1, 5
    given.bundle, given.roentgend = (
        given.bundle.resolve(),
        (given.roentgend or ROOT / "target/release/roentgend").resolve(),
    )
    return given


def hold() -> dict[str, str]:
    """The environment that holds peers to AVX2."""
    if platform.machine() != "x86_64":
        raise Stop("--avx2 needs an x86-64 machine")
    stamp = (HERE / "requirements.txt").read_text() + (HERE / "held.c").read_text() + (HERE / "held.py").read_text()
    site_packages = Path(sysconfig.get_paths()["platlib"])
    environment = held.hold(site_packages, CACHE / "bench-avx2", HERE / "held.c", stamp)
    return environment | {"ONEDNN_MAX_CPU_ISA": "AVX2"}


def field(given: argparse.Namespace) -> list[Contender]:
    """Everybody who runs. Writes the models that peers need in a form of their own."""
    models = CACHE / "bench-models"
    models.mkdir(parents=True, exist_ok=True)
    onnx, tflite = given.bundle / "model.onnx", given.bundle / "model.tflite"
    qdq.write(onnx, models / "qdq.onnx")
    ncnn_form.write(network.read(onnx), models / "ncnn")
    environment = hold() if given.avx2 else {}

    def peer(name: str, loader: str, model: Path, note: str = "") -> Contender:
        return contenders.peer(name, loader, model, given.bundle, environment, note)

    everybody = [
        peer("ONNX Runtime", "onnxruntime", onnx, SATURATES if given.avx2 else ""),
        peer("OpenVINO", "openvino", models / "qdq.onnx", PAIRS),
        peer("TFLite (XNNPACK)", "tflite", tflite),
        peer("ncnn", "ncnn", models / "ncnn", SEVEN_BITS),
    ]
    if given.avx2:
        everybody.insert(1, peer("ONNX Runtime, exact", "onnxruntime-exact", onnx, "with session.x64quantprecision"))
        variants = given.native or [["--kernel", "avx2"]]
    else:
        everybody += [contenders.ours(given.roentgend, given.bundle, backend) for backend in ("native", "onnx")]
        everybody.append(contenders.ours(given.roentgend, given.bundle, "native", keeps=CACHE / "bench-packed"))
        variants = given.native or [["--direct-only"], ["--memory", "small"], ["--memory", "fast"]]
    everybody += [contenders.ours(given.roentgend, given.bundle, "native", options) for options in variants]
    chosen = [one for one in everybody if not given.only or any(word in one.name for word in given.only)]
    if not chosen:
        raise Stop(f"no contender is called so: there are {', '.join(one.name for one in everybody)}")
    return chosen


def begin(given: argparse.Namespace, path: Path) -> dict:
    """New results, or with --add those that are there."""
    contract = Contract.read(given.bundle)
    program = given.roentgend.read_bytes() if given.roentgend.exists() else b""
    results = {
        "schema": SCHEMA,
        "mode": "avx2" if given.avx2 else "native",
        "machine": machine.describe(),
        "bundle": contract.name,
        "roentgend_sha256": hashlib.sha256(program).hexdigest(),
        "macs": network.read(given.bundle / "model.onnx").macs(),
        "runs": given.runs,
        "energy": energy.unavailable(),
        "rounds": 0,
        "ceilings": {},
        "missing": [],
        "samples": [],
    }
    if given.rounds == 0 and not path.exists():
        raise Stop(f"there is no {path} yet: run without --rounds 0")
    if not path.exists() or (given.rounds > 0 and not given.add):
        return results
    known = json.loads(path.read_text())
    if given.rounds == 0:
        return known
    for key in ("schema", "mode", "machine", "bundle", "roentgend_sha256", "runs"):
        if known.get(key) != results[key]:
            raise Stop(f"{path} has {key} {known.get(key)}, this is {results[key]}: run without --add")
    return results | {key: known[key] for key in ("rounds", "ceilings", "samples")}


def measure(given: argparse.Namespace, results: dict, everybody: list[Contender]) -> None:
    """All rounds. Each begins with another contender, so that nobody always follows the same one."""
    program = ceiling.build(HERE / "ceiling.c", CACHE / "bench-models")
    verified = {
        keys: contenders.verified(given.roentgend, given.bundle, keys, CACHE / "bench-models")
        for keys in {one.verify for one in everybody if one.verify}
    }
    for one in everybody:
        for threads in given.threads:
            try:
                contenders.fill(one, threads, dict(os.environ))
            except NotThere as error:
                miss(results, one, threads, error)
    for turn in range(given.rounds):
        for threads in given.threads:
            rates = ceiling.measure(program, threads)
            known = results["ceilings"].get(str(threads), {})
            results["ceilings"][str(threads)] = ceiling.highest([rates, known])
            first = (results["rounds"] + turn) % len(everybody)
            for one in everybody[first:] + everybody[:first]:
                if any((one.name, threads) == (entry["contender"], entry["threads"]) for entry in results["missing"]):
                    continue
                try:
                    sample = contenders.run(one, threads, given.runs, dict(os.environ))
                except NotThere as error:
                    miss(results, one, threads, error)
                    continue
                facts = {"contender": one.name, "ours": one.ours, "threads": threads, "note": one.note}
                results["samples"].append(facts | verified.get(one.verify, {}) | sample)
                print(f"{one.name}, {summary.in_threads(threads)}: {sample['median_ms']:.1f} ms", file=sys.stderr)
    results["rounds"] += given.rounds


def miss(results: dict, one: Contender, threads: int, error: NotThere) -> None:
    """Says and writes down that a contender is not there; it is not tried again."""
    print(f"{one.name}, {summary.in_threads(threads)}: not there: {error}", file=sys.stderr)
    results["missing"].append({"contender": one.name, "threads": threads, "reason": str(error)})


def report(results: dict, path: Path) -> None:
    """Writes JSON, table and plot."""
    chosen = {
        int(threads): ceiling.int8(rates, results["mode"] == "avx2") for threads, rates in results["ceilings"].items()
    }
    ceilings = {threads: rate for threads, found in chosen.items() if found for _, rate in [found]}
    results["instruction"] = next((found[0] for found in chosen.values() if found), "no known instruction")
    results["python_mb"] = max((sample.get("python_mb", 0.0) for sample in results["samples"]), default=0.0)
    rows = summary.rows(results["samples"], results["macs"], ceilings)
    results["summary"] = [row.as_json() for row in rows]
    verdicts = bars.verdicts(rows, results["mode"] == "avx2")
    results["bars"] = [verdict.as_json() for verdict in verdicts]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    text = table.markdown(results, rows, verdicts)
    path.with_suffix(".md").write_text(text)
    about = results["machine"]
    held_to = ", all held to AVX2" if results["mode"] == "avx2" else ""
    subtitle = f"{about['cpu']}, {about['cores']} cores, {about['date']}"
    path.with_suffix(".svg").write_text(plot.svg(rows, f"Int8 VGG16, 224 × 224, batch 1{held_to}", subtitle))
    print(text)
    print(f"written: {path}, .md and .svg", file=sys.stderr)


def main() -> int:
    """Measures and writes; returns the exit code."""
    given = arguments()
    path = given.out / ("peers-avx2.json" if given.avx2 else "peers.json")
    try:
        results = begin(given, path)
        if given.rounds:
            measure(given, results, field(given))
        report(results, path)
    except (Stop, ceiling.CeilingError, held.HoldError, network.Unsupported, OSError, ValueError) as error:
        print(f"tests/bench/peers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One peer in one fresh process: loads, infers, measures itself, and prints one line of JSON.

Usage: child.py PEER MODEL BUNDLE THREADS RUNS
Cold start runs from before the runtime is imported to the first outputs (Python and numpy are up by then). Peak memory
is VmHWM after the timed runs; `python_mb` is what it was before the runtime was imported. Outputs are compared with the
bundle's golden vectors.
"""

import json
import sys
import time
from pathlib import Path

import numpy
import runtimes
from contract import Contract


def peak_mb() -> float:
    """The largest resident set so far, in 10^6 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmHWM in /proc/self/status")


def main() -> None:
    """Measures and prints."""
    name, model, bundle, threads, runs = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
    contract = Contract.read(bundle)
    vectors = contract.golden()
    python_mb = peak_mb()

    started = time.perf_counter()
    peer = runtimes.LOADERS[name](model, threads, contract)
    image = peer.prepare(vectors[0].image)
    peer.infer(image)
    cold_start = time.perf_counter() - started

    times = []
    begun = time.monotonic()
    for _ in range(runs):
        run = time.perf_counter()
        peer.infer(image)
        times.append((time.perf_counter() - run) * 1e3)
    ended = time.monotonic()
    peak = peak_mb()

    differing, largest, total = 0, 0, 0
    for vector in vectors:
        found = peer.outputs(peer.infer(peer.prepare(vector.image)))
        for values, expected in zip(found, (vector.evidence, vector.features)):
            difference = numpy.abs(values.reshape(-1).astype(int) - expected.astype(int))
            differing += int(numpy.count_nonzero(difference))
            largest = max(largest, int(difference.max()))
            total += expected.size
    result = {
        "median_ms": float(numpy.median(times)),
        "min_ms": min(times),
        "cold_start_ms": cold_start * 1e3,
        "peak_rss_mb": peak,
        "python_mb": python_mb,
        "differing_bytes": differing,
        "largest_difference": largest,
        "compared_bytes": total,
        "kernel": peer.kernels,
        "version": f"{peer.package} {peer.version()}",
        "timed": [begun, ended],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

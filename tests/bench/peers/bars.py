"""Holds the figures against the bars that Roentgen sets itself. Pure: from rows to verdicts; nothing fails by them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from summary import Row, in_threads

NATIVE = "roentgend native"
BEST_KERNEL = "avx512vnni"
"""The kernels that the bars of `SPEED` and `DIRECT` are for."""

SPEED = {1: 1.45, 2: 1.65}
"""Least speed against the fastest peer, by number of threads."""
DIRECT = {1: 0.98, 2: 1.15}
"""The same without Winograd's convolution."""
SPEED_AVX2 = 2.0
"""The same with the AVX2 kernels against peers that are held to AVX2, whatever the number of threads."""
SCALING = 1.85
"""Least ratio of the medians in one and two threads."""
COLD_START_MS = 100.0
"""Longest cold start in two threads, from packed weights."""
MEMORY_MB = {" --memory small": 40.0, "": 75.0, " --memory fast": 150.0}
"""Largest resident set by options of the native backend, whatever the number of threads."""


@dataclass(frozen=True)
class Verdict:
    """One figure and its bar."""

    what: str
    found: float | None
    """None where it was not measured."""
    bar: float
    at_most: bool
    unit: str
    remark: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met, by the figure as it was measured, not as it is printed."""
        if self.found is None:
            return None
        return self.found <= self.bar if self.at_most else self.found >= self.bar

    def as_json(self) -> dict[str, object]:
        """For the results file."""
        return asdict(self) | {"met": self.met}


def _remark(row: Row, rows: list[Row]) -> str:
    """Which peer the speed is against; where that one computes something else, also against whom that does not."""
    peers = sorted(
        (peer for peer in rows if not peer.ours and peer.threads == row.threads), key=lambda peer: peer.median_ms
    )
    if not peers:
        return ""
    if peers[0].differing_bytes == 0:
        return f"against {peers[0].name}"
    same = next((peer for peer in peers if peer.differing_bytes == 0), None)
    exact = f"; {same.median_ms / row.median_ms:.2f}× against {same.name}, whose do not" if same else ""
    return f"against {peers[0].name}, whose outputs differ{exact}"


def verdicts(rows: list[Row], avx2: bool) -> list[Verdict]:
    """All bars of a run on this machine's own instructions, or of one held to AVX2."""
    return list(_held(rows) if avx2 else _own(rows))


def _own(rows: list[Row]) -> Iterator[Verdict]:
    found = {(row.name, row.threads): row for row in rows}
    for label, name, bars in (("speed", NATIVE, SPEED), ("speed, direct only", f"{NATIVE} --direct-only", DIRECT)):
        for threads, bar in bars.items():
            row = found.get((name, threads))
            known = row is not None and row.kernel == BEST_KERNEL
            speed, remark = (row.speed, _remark(row, rows)) if known else (None, f"the bar is for {BEST_KERNEL}")
            yield Verdict(f"{label}, {in_threads(threads)}", speed, bar, False, "×", remark)
    yield _scaling(found, NATIVE)
    start = found.get((f"{NATIVE} --cache", 2))
    milliseconds = start.cold_start_ms if start else None
    yield Verdict("cold start from packed weights, 2 threads", milliseconds, COLD_START_MS, True, " ms")
    for options, bar in MEMORY_MB.items():
        for threads in sorted({row.threads for row in rows}):
            row = found.get((NATIVE + options, threads))
            megabytes = row.peak_rss_mb if row else None
            yield Verdict(f"memory{options or ', default'}, {in_threads(threads)}", megabytes, bar, True, " MB")


def _held(rows: list[Row]) -> Iterator[Verdict]:
    found = {(row.name, row.threads): row for row in rows}
    name = f"{NATIVE} --kernel avx2"
    for threads in sorted({row.threads for row in rows}):
        row = found.get((name, threads))
        speed, remark = (row.speed, _remark(row, rows)) if row else (None, "")
        yield Verdict(f"speed, AVX2, {in_threads(threads)}", speed, SPEED_AVX2, False, "×", remark)
    yield _scaling(found, name)


def _scaling(found: dict[tuple[str, int], Row], name: str) -> Verdict:
    one, two = found.get((name, 1)), found.get((name, 2))
    ratio = one.median_ms / two.median_ms if one and two else None
    return Verdict("scaling from 1 to 2 threads", ratio, SCALING, False, "×")

"""From samples to figures: medians over rounds, speed against the best peer, share of the ceiling. Pure functions."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """What is known of one contender at one number of threads."""

    name: str
    ours: bool
    threads: int
    processes: int
    median_ms: float
    """The median over processes of each one's median."""
    min_ms: float
    speed: float | None
    """The best peer's median over this one's: above 1 is faster. None where no peer ran."""
    share: float | None
    """Of the ceiling; a method with fewer multiplications, such as Winograd's, can exceed 1."""
    peak_rss_mb: float
    cold_start_ms: float
    joules: float | None
    differing_bytes: int | None
    largest_difference: int | None
    compared_bytes: int | None
    kernel: str
    version: str
    note: str

    def as_json(self) -> dict[str, object]:
        """For the results file."""
        return asdict(self)


def in_threads(number: int) -> str:
    """`1 thread`, `2 threads`."""
    return f"{number} thread" + ("" if number == 1 else "s")


def share_of_ceiling(macs: int, milliseconds: float, threads: int, gmacs: float) -> float:
    """Multiplications a second by the definition of a convolution, against what `threads` threads can do at most."""
    return macs / (milliseconds / 1e3) / (threads * gmacs * 1e9)


def _median(samples: Sequence[dict], key: str) -> float | None:
    values = [sample[key] for sample in samples if sample.get(key) is not None]
    return statistics.median(values) if values else None


def _worst(samples: Sequence[dict], key: str) -> int | None:
    return max((sample[key] for sample in samples if sample.get(key) is not None), default=None)


def rows(samples: Sequence[dict], macs: int, ceilings: dict[int, float]) -> list[Row]:
    """One row a contender and number of threads, the fastest first within each number of threads.

    A sample has contender, ours, threads, note, and what the process printed. `ceilings`: GMAC/s a thread, by threads.
    """
    groups: dict[tuple[int, str], list[dict]] = {}
    for sample in samples:
        groups.setdefault((sample["threads"], sample["contender"]), []).append(sample)
    medians = {key: statistics.median(sample["median_ms"] for sample in group) for key, group in groups.items()}
    best: dict[int, float] = {}
    for (threads, name), group in groups.items():
        if not group[0]["ours"]:
            best[threads] = min(medians[threads, name], best.get(threads, float("inf")))
    result = []
    for (threads, name), group in groups.items():
        median, gmacs = medians[threads, name], ceilings.get(threads)
        first = group[0]
        result.append(
            Row(
                name=name,
                ours=first["ours"],
                threads=threads,
                processes=len(group),
                median_ms=median,
                min_ms=min(sample["min_ms"] for sample in group),
                speed=best[threads] / median if threads in best else None,
                share=share_of_ceiling(macs, median, threads, gmacs) if gmacs else None,
                peak_rss_mb=statistics.median(sample["peak_rss_mb"] for sample in group),
                cold_start_ms=statistics.median(sample["cold_start_ms"] for sample in group),
                joules=_median(group, "joules"),
                differing_bytes=_worst(group, "differing_bytes"),
                largest_difference=_worst(group, "largest_difference"),
                compared_bytes=first.get("compared_bytes"),
                kernel=first.get("kernel", ""),
                version=first.get("version", ""),
                note=first.get("note", ""),
            )
        )
    return sorted(result, key=lambda row: (row.threads, row.median_ms))

"""Joules from RAPL: samples the packages' energy counters while a process runs, and says what a span of time cost.

The counters are the whole package's, whatever else runs. Where they cannot be read (virtual machines, most ARM boards;
some kernels let only root) there is no figure, and `unavailable` says why.
"""

import threading
import time
from pathlib import Path

ROOT = Path("/sys/class/powercap")
PERIOD_SECONDS = 0.01


def packages(root: Path = ROOT) -> list[Path]:
    """The packages' counters: intel-rapl:0 and so on, not their parts (intel-rapl:0:0)."""
    return sorted(
        zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1 and (zone / "energy_uj").exists()
    )


def unavailable(root: Path = ROOT) -> str | None:
    """Why there are no joules here; None where there are."""
    zones = packages(root)
    if not zones:
        return f"this machine shows no RAPL counters under {root}"
    try:
        for zone in zones:
            (zone / "energy_uj").read_text()
    except PermissionError:
        return f"the RAPL counters under {root} are readable by root only"
    except OSError as error:
        return f"the RAPL counters under {root} cannot be read: {error}"
    return None


def unwrapped(previous: int, current: int, largest: int) -> int:
    """How far a counter went that starts anew after `largest`."""
    return current - previous if current >= previous else current + largest - previous


def between(samples: list[tuple[float, float]], start: float, end: float) -> float | None:
    """Joules used from `start` to `end`, by linear interpolation of (time, joules so far); None outside the samples."""
    if len(samples) < 2 or start < samples[0][0] or end > samples[-1][0] or end <= start:
        return None

    def at(moment: float) -> float:
        for (t0, j0), (t1, j1) in zip(samples, samples[1:]):
            if moment <= t1:
                return j0 + (j1 - j0) * (moment - t0) / (t1 - t0)
        return samples[-1][1]

    return at(end) - at(start)


class Meter:
    """Samples in a thread of its own while the `with` block lasts; does nothing where RAPL is unavailable."""

    def __init__(self, root: Path = ROOT) -> None:
        self.samples: list[tuple[float, float]] = []
        self._zones = packages(root) if unavailable(root) is None else []
        self._largest = {zone: int((zone / "max_energy_range_uj").read_text()) for zone in self._zones}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Meter":
        if self._zones:
            self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        if self._zones:
            self._thread.join()

    def _sample(self) -> None:
        joules, last = 0.0, {zone: int((zone / "energy_uj").read_text()) for zone in self._zones}
        self.samples.append((time.monotonic(), joules))
        stopped = False
        while not stopped:
            stopped = self._stop.wait(PERIOD_SECONDS)
            for zone in self._zones:
                current = int((zone / "energy_uj").read_text())
                joules += unwrapped(last[zone], current, self._largest[zone]) / 1e6
                last[zone] = current
            self.samples.append((time.monotonic(), joules))

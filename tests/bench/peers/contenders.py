"""Who runs: the peers and Roentgen's own backends and kernels, each as a command that prints one line of JSON."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import energy
import summary

HERE = Path(__file__).parent
PATIENCE_SECONDS = 300
"""How long one process may take."""

KEPT = "from packed weights that a process which is not in the figures has kept"

Sample = dict[str, Any]
"""What a process printed, and what was measured about it."""


class NotThere(Exception):
    """A contender cannot run here; the message is for the table."""


@dataclass(frozen=True)
class Contender:
    """A runtime, or one of our backends."""

    name: str
    ours: bool
    command: Callable[[int, int], list[str]]
    """From threads and timed runs to the command line."""
    environment: dict[str, str] = field(default_factory=dict)
    note: str = ""
    """What the table says about it."""
    verify: tuple[tuple[str, str], ...] = ()
    """Ours: the configuration's keys with which `roentgend bundle verify` runs the same."""
    keeps: Path | None = None
    """Ours: where packed weights are kept, a folder below it a number of threads. `fill` fills them."""

    def kept(self, threads: int) -> set[int]:
        """The files of packed weights that are there: another set, and somebody has packed anew."""
        return {path.stat().st_ino for path in (self.keeps / str(threads)).glob("*.packed")} if self.keeps else set()


def peer(name: str, loader: str, model: Path, bundle: Path, environment: dict[str, str], note: str = "") -> Contender:
    """A runtime of runtimes.py, in child.py."""

    def command(threads: int, runs: int) -> list[str]:
        return [sys.executable, str(HERE / "child.py"), loader, str(model), str(bundle), str(threads), str(runs)]

    return Contender(name, False, command, environment, note)


def ours(
    program: Path, bundle: Path, backend: str, options: Sequence[str] = (), keeps: Path | None = None
) -> Contender:
    """One of `roentgend bench`'s backends, perhaps with further options of it, perhaps from packed weights."""

    def command(threads: int, runs: int) -> list[str]:
        fixed = ["--backend", backend, "--threads", str(threads), "--runs", str(runs)]
        cache = ["--cache", str(keeps / str(threads))] if keeps else []
        return [str(program), "bench", "--json", "--bundle", str(bundle), *fixed, *options, *cache]

    name = " ".join(["roentgend", "tract" if backend == "onnx" else backend, *options, *(["--cache"] if keeps else [])])
    if keeps:
        # `bundle verify` packs for itself: it says nothing of what comes from a file.
        return Contender(name, True, command, note=KEPT, keeps=keeps)
    return Contender(name, True, command, verify=settings(backend, options))


def settings(backend: str, options: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The configuration that stands for options of `roentgend bench`; none where there is none that does."""
    keys = [option.removeprefix("--") for option in options[::2]]
    if len(options) % 2 or not set(keys) <= {"kernel", "memory"}:
        return ()
    return (("backend", backend), *zip(keys, options[1::2], strict=True))


def fill(contender: Contender, threads: int, environ: dict[str, str]) -> None:
    """Lets a process that nobody measures keep packed weights, where a contender reads them. Raises NotThere where none
    are there afterwards."""
    if contender.keeps is None:
        return
    # Those of other programs and bundles go. The program makes the folder itself, closed to others.
    folder = contender.keeps / str(threads)
    shutil.rmtree(folder, ignore_errors=True)
    contender.keeps.mkdir(parents=True, exist_ok=True)
    run(replace(contender, keeps=None), threads, 1, environ)
    if not contender.kept(threads):
        raise NotThere(f"it kept no packed weights in {folder}")


def run(contender: Contender, threads: int, runs: int, environ: dict[str, str]) -> Sample:
    """One fresh process. Raises NotThere where it refuses, or packs what it was to read."""
    kept = contender.kept(threads)
    with energy.Meter() as meter:
        try:
            done = subprocess.run(
                contender.command(threads, runs),
                env=environ | contender.environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE_SECONDS,
            )
        except FileNotFoundError as error:
            raise NotThere(f"there is no {error.filename}") from error
        except subprocess.TimeoutExpired as error:
            raise NotThere(f"it took more than {PATIENCE_SECONDS} s") from error
        ended = time.monotonic()
    if done.returncode != 0:
        raise NotThere(refusal(done.returncode, done.stderr))
    if contender.kept(threads) != kept:
        raise NotThere("it did not take the packed weights that were there, but packed them again")
    sample = parse(done.stdout, threads)
    # Ours prints when its runs are over and ends at once, so that they fill the time before its end.
    start, end = sample.pop("timed", None) or (ended - runs * sample["median_ms"] / 1e3, ended)
    joules = energy.between(meter.samples, start, end)
    if joules is not None:
        sample["joules"] = joules / runs
    return sample


def refusal(status: int, stderr: str) -> str:
    """What a process that failed said: its last line of Python, its first of Rust's clap."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    said = (errors or lines[-1:] or [f"it ended with {status} and said nothing"])[0]
    return said.removeprefix("error: ")[:200]


def parse(stdout: str, threads: int) -> Sample:
    """The line of JSON, the last one printed. A contender that used other than `threads` threads is not there."""
    try:
        sample = json.loads(stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError) as error:
        raise NotThere(f"it printed no JSON: {stdout[:100]!r}") from error
    if sample.get("threads", threads) != threads:
        raise NotThere(f"it runs in {summary.in_threads(sample['threads'])} only")
    return sample


def verified(program: Path, bundle: Path, keys: tuple[tuple[str, str], ...], folder: Path) -> Sample:
    """How one of ours does on the golden vectors: what `roentgend bundle verify` says of it."""
    try:
        done = subprocess.run([str(program), "config"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}  # its run will say why
    config = folder / "verify.toml"
    config.write_text(configured(done.stdout, keys))
    command = [str(program), "bundle", "verify", "--json", "--config", str(config), str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return {"note": f"bundle verify fails: {refusal(done.returncode, done.stderr)}"}
    largest = json.loads(done.stdout)["largest_difference"]
    if largest != 0:
        return {"note": f"bundle verify: its outputs differ by up to {largest}"}
    return {"differing_bytes": 0, "largest_difference": 0}


def configured(text: str, keys: tuple[tuple[str, str], ...]) -> str:
    """The default configuration with other values for some keys; each has one name in the whole file."""
    for key, value in keys:
        text = re.sub(rf"^{key} = .*$", f'{key} = "{value}"', text, flags=re.MULTILINE)
    return text

"""The hardware's ceiling: builds and runs ceiling.c, and says which of its figures int8 work is held against."""

import json
import subprocess
from pathlib import Path

Rates = dict[str, float]
"""GMAC/s a thread, by instruction."""

INT8 = ("vpdpbusd zmm", "vpdpbusd ymm", "vpmaddwd+vpaddd ymm")
"""Instructions that multiply u8 by i8 exactly, the fastest first; the last by way of i16."""
INT8_AVX2 = ("vpmaddwd+vpaddd ymm",)
"""The same without AVX-512 and VNNI."""


class CeilingError(Exception):
    """The ceiling could not be measured; the message says what to do."""


def build(source: Path, folder: Path) -> Path:
    """Compiles ceiling.c into `folder`."""
    program = folder / "ceiling"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            ["cc", "-O2", "-pthread", str(source), "-o", str(program)], check=True, capture_output=True, text=True
        )
    except FileNotFoundError as error:
        raise CeilingError("the C compiler is missing: install gcc and libc6-dev and try again") from error
    except subprocess.CalledProcessError as error:
        raise CeilingError(f"ceiling.c does not compile:\n{error.stderr}") from error
    return program


def measure(program: Path, threads: int) -> Rates:
    """Runs it on `threads` threads at once."""
    done = subprocess.run([str(program), str(threads)], capture_output=True, text=True)
    if done.returncode != 0:
        raise CeilingError(f"{program} failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def highest(measured: list[Rates]) -> Rates:
    """The highest of several measurements of each instruction: noise only slows down."""
    result: Rates = {}
    for rates in measured:
        for instruction, rate in rates.items():
            result[instruction] = max(rate, result.get(instruction, 0.0))
    return result


def int8(rates: Rates, avx2: bool) -> tuple[str, float] | None:
    """The instruction that int8 work is held against, and its rate."""
    for instruction in INT8_AVX2 if avx2 else INT8:
        if instruction in rates:
            return instruction, rates[instruction]
    return None

"""Holds peers to AVX2, so that they can be compared as on a processor without AVX-512 and VNNI.

OpenVINO honours oneDNN's variable ONEDNN_MAX_CPU_ISA. ONNX Runtime, TFLite (XNNPACK) and ncnn have no such option:
copies of their libraries get `int 3` in place of each cpuid instruction, and a preloaded handler (held.c) answers
without those features. What they then run is their own AVX2 code at full speed. x86-64 Linux only; needs `cc` and
`objdump`.
"""

import re
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

CPUID = b"\x0f\xa2"
TRAP = b"\xcd\x03"
PACKAGES = ("onnxruntime", "ai_edge_litert", "ncnn")
"""The import names of the packages that have no option."""
_INSTRUCTION = re.compile(rb"^\s*([0-9a-f]+):\s+cpuid\b", re.MULTILINE)


class HoldError(Exception):
    """The libraries could not be held down; the message says what to do."""


def file_offset(elf: bytes, address: int) -> int:
    """Where in a 64-bit ELF file lies what is loaded at `address`."""
    (headers,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for index in range(count):
        kind, _, offset, virtual, _, length = struct.unpack_from("<IIQQQQ", elf, headers + index * size)
        if kind == 1 and virtual <= address < virtual + length:
            return offset + address - virtual
    raise HoldError(f"no segment of the library is loaded at {address:#x}")


def patched(elf: bytes, addresses: Iterable[int]) -> bytes:
    """`elf` with a trap over the cpuid instruction at each address."""
    result = bytearray(elf)
    for address in addresses:
        offset = file_offset(elf, address)
        if elf[offset : offset + 2] != CPUID:
            raise HoldError(f"there is no cpuid instruction at {address:#x}: objdump and the file disagree")
        result[offset : offset + 2] = TRAP
    return bytes(result)


def cpuid_addresses(library: Path) -> list[int]:
    """Where a library executes cpuid. By disassembly: the two bytes alone also occur inside other instructions."""
    command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            lines = process.stdout or ()
            found = [int(line.split(b":")[0], 16) for line in lines if _INSTRUCTION.match(line)]
    except FileNotFoundError as error:
        raise HoldError("objdump is missing: install binutils and try again") from error
    if process.returncode != 0:
        raise HoldError(f"objdump does not read {library}")
    return found


def hold(site_packages: Path, folder: Path, source: Path, stamp: str) -> dict[str, str]:
    """Copies and changes the packages into `folder`, once a `stamp`. Returns the environment that makes a process use
    them."""
    done = folder / "done.txt"
    handler = folder / "held.so"
    if not done.exists() or done.read_text() != stamp:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = ["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(handler)]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise HoldError(f"held.c does not compile ({error}): install gcc and libc6-dev and try again") from error
        for package in PACKAGES:
            shutil.copytree(site_packages / package, folder / package)
            libraries = site_packages / f"{package}.libs"  # found by a path relative to the package
            if libraries.exists():
                shutil.copytree(libraries, folder / libraries.name)
            changed = 0
            for library in (folder / package).rglob("*.so*"):
                elf = library.read_bytes()
                if CPUID in elf and (addresses := cpuid_addresses(library)):
                    library.write_bytes(patched(elf, addresses))
                    changed += len(addresses)
            if changed == 0:
                raise HoldError(f"no cpuid instruction was found in {package}: it cannot be held down")
        done.write_text(stamp)
    return {"LD_PRELOAD": str(handler), "PYTHONPATH": str(folder)}

"""What the figures were measured on: processor, kernel, system, date."""

import datetime
import os
import platform
from pathlib import Path

Machine = dict[str, str | int]


def cpu_model(cpuinfo: str) -> str:
    """The processor's name out of /proc/cpuinfo. With family and model, since virtual machines shorten the name."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or fields.get("Model") or platform.machine()
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
    return name


def describe() -> Machine:
    """This machine, now."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    return {
        "cpu": cpu_model(cpuinfo),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "system": system,
        "date": datetime.date.today().isoformat(),
    }

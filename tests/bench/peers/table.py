"""The results as Markdown. Pure: from a results file's content to text."""

from bars import Verdict
from summary import Row, in_threads


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def differing(row: Row) -> str:
    """How many bytes of the outputs differ from the golden vectors, in words where it is not none."""
    if row.differing_bytes is None:
        return "not checked"
    if row.differing_bytes == 0:
        return "0"
    of = f" of {row.compared_bytes}" if row.compared_bytes else ""
    return f"**{row.differing_bytes}{of}**, by up to {row.largest_difference}"


def _table(rows: list[Row], joules: bool) -> list[str]:
    head = [
        "runtime",
        "median ms",
        "least ms",
        "speed",
        "share of ceiling",
        "memory MB",
        "cold start ms",
        "differing bytes",
    ]
    if joules:
        head.insert(5, "joules")
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 2) + "|---|"]
    for row in rows:
        name = f"**{row.name}**" if row.ours else row.name
        share = "" if row.share is None else f"{row.share * 100:.0f} %"
        cells = [
            name, _number(row.median_ms, 1), _number(row.min_ms, 1), "" if row.speed is None else f"{row.speed:.2f}×",
            share, _number(row.peak_rss_mb, 0), _number(row.cold_start_ms, 0), differing(row),
        ]  # fmt: skip
        if joules:
            cells.insert(5, _number(row.joules, 2))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _verdict(verdict: Verdict) -> str:
    if verdict.found is None:
        return "not measured"
    # A digit more than the bar has, so that what has just missed it does not look like it.
    found = _number(verdict.found, 3 if verdict.unit == "×" else 1)
    return f"**{found}{verdict.unit}**" + ("" if verdict.met else ", **missed**")


def _bars(verdicts: list[Verdict]) -> list[str]:
    lines = ["| bar | | measured | |", "|---|---:|---|---|"]
    for verdict in verdicts:
        limit = f"{'at most' if verdict.at_most else 'at least'} {verdict.bar:g}{verdict.unit}"
        lines.append(f"| {verdict.what} | {limit} | {_verdict(verdict)} | {verdict.remark} |")
    return lines


HELD = (
    "Held to AVX2: OpenVINO by its ONEDNN_MAX_CPU_ISA; the other peers have no such option, so what cpuid tells them "
    "was masked (no AVX-512, no VNNI), and they chose their AVX2 code themselves."
)


def _legend(instruction: str, python_mb: float) -> str:
    return (
        "*Median* of the processes' medians; *speed* against the fastest peer of the same table, exact or not; "
        "*share of ceiling*: "
        "multiplications by the definition, a second, against what "
        f"`{instruction}` can do in registers on as many threads (Winograd needs fewer, and instructions that may "
        "saturate do more: both can exceed it); "
        "*memory*: peak resident set, for peers with Python and numpy "
        f"({python_mb:.0f} MB before the runtime is loaded); *cold start*: from before the runtime is loaded "
        "(ours: the program's first line) to the first result, files in the page cache; "
        "*differing bytes*: of both outputs of the bundle's golden images."
    )


def _ceilings(measured: dict[str, dict[str, float]]) -> list[str]:
    names = list(dict.fromkeys(name for rates in measured.values() for name in rates))
    if not names:
        return ["No ceiling: this processor's instructions are not known to ceiling.c.", ""]
    lines = ["Ceilings, GMAC/s a thread, highest of this run:", ""]
    lines += ["| threads | " + " | ".join(names) + " |", "|---" + "|---:" * len(names) + "|"]
    for threads, rates in sorted(measured.items(), key=lambda item: int(item[0])):
        lines.append(f"| {threads} | " + " | ".join(_number(rates.get(name), 0) for name in names) + " |")
    return [*lines, ""]


def markdown(results: dict, rows: list[Row], verdicts: list[Verdict]) -> str:
    """The whole page."""
    machine, held = results["machine"], results["mode"] == "avx2"
    title = "Int8 VGG16, all held to AVX2" if held else "Int8 VGG16 on this machine"
    lines = [
        f"# {title}", "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, {machine['system']}; {machine['date']}.",
        f"Bundle {results['bundle']}, {results['macs'] / 1e9:.2f} GMAC an image, batch 1, input 1 × 1 × 224 × 224 u8. "
        f"Rounds: {results['rounds']}, all interleaved; a fresh process each, {results['runs']} timed runs in it.", "",
    ]  # fmt: skip
    joules = any(row.joules is not None for row in rows)
    for threads in sorted({row.threads for row in rows}):
        some = [row for row in rows if row.threads == threads]
        lines += [f"## {in_threads(threads)}", "", *_table(some, joules), ""]
    if verdicts:
        lines += ["## Roentgen's bars", "", *_bars(verdicts), ""]
    lines += [_legend(results["instruction"], results["python_mb"]), ""]
    if results["energy"]:
        lines += [f"No joules: {results['energy']}.", ""]
    lines += _ceilings(results["ceilings"])
    if held:
        lines += [HELD, ""]
    versions = sorted({row.version for row in rows if row.version})
    if versions:
        lines += ["Versions: " + ", ".join(versions) + ".", ""]
    notes = {
        row.name: "; ".join(text for text in (row.kernel, row.note) if text and text not in row.name) for row in rows
    }
    lines += [f"- {name}: {note}." for name, note in notes.items() if note]
    lines += [
        f"- {entry['contender']}, {in_threads(entry['threads'])}: not there: {entry['reason']}"
        for entry in results["missing"]
    ]
    return "\n".join(lines).rstrip() + "\n"

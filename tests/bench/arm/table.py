"""The results as Markdown. Pure: from a results file's content to text."""

BAR_TRACT = 0.3
"""What Roentgen's instructions may be at most, as a share of tract's."""

MULTIPLICATIONS = {
    "dot": "SDOT or UDOT",
    "mmla": "SMMLA or USMMLA",
    "mlal": "SMULL, SMLAL",
    "mla": "MUL, MLA",
    "fmla": "FMLA",
}
"""The kinds of the plugin that multiply vectors."""

LEGEND = (
    "Counted over the second of two inferences in one process, all of it; nothing is extrapolated. XNNPACK "
    "chooses its kernels by the instruction set and, where it can read it, by the core's name: *core unknown* is "
    "what it does where /proc/cpuinfo names none. Ours is held against the least figure of each peer. Fewer "
    "instructions are not always less time: cores differ in how many they run at once, and an SVE instruction "
    "does as much as its vectors are long."
)

Measured = dict
"""A program on a processor, as in the JSON."""


def _millions(number: int) -> str:
    return f"{number / 1e6:.0f}"


def multiplications(counts: dict[str, int]) -> str:
    """The kind of multiplication that is used most, and how often: it tells which kernels a library chose."""
    kind = max(MULTIPLICATIONS, key=lambda kind: counts.get(kind, 0))
    return f"{_millions(counts.get(kind, 0))} {MULTIPLICATIONS[kind]}"


def ratio(ours: Measured | None, peers: list[Measured]) -> float | None:
    """Our instructions as a share of the least of the peers'."""
    numbers = [peer["counts"]["all"] for peer in peers]
    return ours["counts"]["all"] / min(numbers) if ours and numbers else None


def ratios(processor: dict) -> tuple[float | None, float | None]:
    """Ours as shares of the least figure of XNNPACK and of tract."""
    of = {
        family: [m for m in processor["measured"] if m["family"] == family] for family in ("ours", "xnnpack", "tract")
    }
    ours = of["ours"][0] if of["ours"] else None
    return ratio(ours, of["xnnpack"]), ratio(ours, of["tract"])


def _verdict(share: float | None, bar: float) -> str:
    if share is None:
        return "not measured"
    return f"**{share:.2f}** (bar {bar:.2f}{'' if share <= bar else ', **missed**'})"


def _rows(processor: dict) -> list[str]:
    rows = []
    for measured in processor["measured"]:
        counts = measured["counts"]
        memory = counts["simd_load_store"] + counts["load_store"]
        differing = "0" if measured["differing_bytes"] == 0 else f"**{measured['differing_bytes']}**"
        cells = [
            processor["name"], measured["name"], _millions(counts["all"]), multiplications(counts), _millions(memory),
            differing,
        ]  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def markdown(results: dict) -> str:
    """The whole page."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        "# Instructions of one inference on ARM",
        "",
        f"Millions of guest instructions under QEMU, one thread, {results['model']}, {results['date']}. {versions}.",
        "",
        "| processor | runtime | instructions | most multiplications | loads and stores | differing bytes |",
        "|---|---|---:|---|---:|---:|",
    ]
    for processor in results["processors"]:
        lines += _rows(processor)
    lines += ["", "| processor | ours / XNNPACK | ours / tract |", "|---|---|---|"]
    for processor in results["processors"]:
        xnnpack, tract = ratios(processor)
        verdicts = [_verdict(xnnpack, processor["bar"]), _verdict(tract, BAR_TRACT)]
        lines.append(f"| {processor['name']} ({processor['stands_for']}) | {verdicts[0]} | {verdicts[1]} |")
    lines += [
        "",
        LEGEND,
    ]
    return "\n".join(lines) + "\n"


def steps(results: dict) -> str:
    """Our steps, one table a processor."""
    lines = []
    for processor in results["processors"]:
        for measured in (m for m in processor["measured"] if m["family"] == "ours"):
            lines += ["", f"## {measured['name']} on {processor['name']}", ""]
            lines += ["| step | kernel | instructions |", "|---|---|---:|"]
            lines += [f"| {s['step']} | {s['kernel']} | {s['instructions'] / 1e6:.1f} |" for s in measured["steps"]]
    return "\n".join(lines) + "\n" if lines else ""


def kernels(results: dict) -> str:
    """Every kernel on every layer, where `--layers` asked for it: what the planner can choose from."""
    lines = []
    for processor in results["processors"]:
        for name, stages in processor.get("layers", {}).items():
            lines += ["", f"## All kernels of {name} on {processor['name']}", ""]
            lines += ["| layer | kernel | stages | sum without `weights` |", "|---|---|---|---:|"]
            grouped: dict[tuple[str, str], list[dict]] = {}
            for stage in stages:
                grouped.setdefault((stage["layer"], stage["kernel"]), []).append(stage)
            for (layer, kernel), parts in grouped.items():
                each = ", ".join(f"{part['stage']} {part['instructions'] / 1e6:.1f}" for part in parts)
                whole = sum(part["instructions"] for part in parts if part["stage"] != "weights")
                lines.append(f"| {layer} | {kernel} | {each} | {whole / 1e6:.1f} |")
    return "\n".join(lines) + "\n" if lines else ""

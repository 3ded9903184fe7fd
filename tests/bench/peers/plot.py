"""The latencies as an SVG of horizontal bars, readable on light and dark pages. No library; pure."""

from html import escape

from summary import Row, in_threads

WIDTH, RIGHT, LETTER = 800, 130, 7.4
"""Of the page, of the space for the figures, and of one bold letter, generously."""
BAR, GAP, HEAD, GROUP = 20, 8, 64, 40
CLIP = 5.0
"""A bar longer than this many times the shortest is cut, so that one slow contender does not flatten all others."""
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.page { fill: #ffffff } .title { font-size: 16px; font-weight: 600 } .quiet { fill: #59636e }
.peer { fill: #8c959f } .ours { fill: #0969da } .name-ours { font-weight: 600 }
.least { stroke: #1f2328; stroke-width: 2 } .cut { stroke: #ffffff; stroke-width: 4 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .page { fill: #0d1117 } .quiet { fill: #9198a1 }
  .peer { fill: #656c76 } .ours { fill: #4493f8 } .least { stroke: #f0f6fc } .cut { stroke: #0d1117 }
}
"""


def svg(rows: list[Row], title: str, subtitle: str) -> str:
    """One group of bars a number of threads, in the rows' order; a tick in each bar marks the least time."""
    shortest = min((row.median_ms for row in rows), default=1.0)
    longest = min(max((row.median_ms for row in rows), default=1.0), CLIP * shortest)
    left = round(max((len(row.name) + 2 for row in rows), default=0) * LETTER) + 24
    span = WIDTH - left - RIGHT
    parts: list[str] = []
    y, threads = HEAD, 0
    for row in rows:
        if row.threads != threads:
            threads = row.threads
            y += GROUP if parts else GROUP - 16
            parts.append(f'<text class="quiet" x="16" y="{y - 8}">{in_threads(threads)}, median ms an image</text>')
        cut = row.median_ms > longest
        length, least = span * min(row.median_ms / longest, 1.0), left + span * row.min_ms / longest
        kind, middle = ("ours" if row.ours else "peer"), y + BAR / 2
        value = f"{row.median_ms:.1f}" + ("" if row.speed is None else f"  ({row.speed:.2f}×)")
        name = escape(row.name) + ("" if row.differing_bytes in (0, None) else " *")
        parts += [
            f'<text class="name-{kind}" x="{left - 10}" y="{middle + 4.5:.1f}" text-anchor="end">{name}</text>',
            f'<rect class="{kind}" x="{left}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>',
            f'<path class="cut" d="M{left + length - 20:.1f} {y + BAR + 2}l8 {-BAR - 4}"/>'
            if cut
            else f'<path class="least" d="M{least:.1f} {y + 3}v{BAR - 6}"/>',
            f'<text x="{left + length + 8:.1f}" y="{middle + 4.5:.1f}">{value}</text>',
        ]
        y += BAR + GAP
    height = y + 36
    foot = "Shorter is better. Tick: least time. Slash: cut. (…×): speed against the fastest peer. *: outputs differ."
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape(title, quote=True)}">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="16" y="28">{escape(title)}</text>',
        f'<text class="quiet" x="16" y="48">{escape(subtitle)}</text>',
        *parts,
        f'<text class="quiet" x="16" y="{height - 16}">{foot}</text>',
        "</svg>",
        "",
    ])  # fmt: skip

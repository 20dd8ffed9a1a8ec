"""Charts as small SVG texts, readable on light and on dark ground. Python's standard library only."""

from html import escape

STYLE = """
text{font:12px system-ui,sans-serif;fill:var(--text)}
.title{font-weight:600;font-size:13px}.small{font-size:11px;fill:var(--quiet)}
.grid{stroke:var(--grid)}.axis{stroke:var(--quiet)}
:root{--text:#1f2328;--quiet:#59636e;--grid:#d8dee4;--c0:#0072b2;--c1:#7a828a;--c2:#d55e00;--c3:#009e73;
--c4:#cc79a7;--c5:#b58900;--c6:#9aa4ae;--c7:#c6cdd5}
@media(prefers-color-scheme:dark){:root{--text:#f0f6fc;--quiet:#9198a1;--grid:#30363d;--c0:#56b4e9;--c1:#9aa4ae;
--c2:#f0883e;--c3:#2ec4a0;--c4:#e29dc6;--c5:#e3b341;--c6:#6e7681;--c7:#484f58}}
"""


def document(width, height, parts):
    """A whole SVG."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join([head, f"<style>{STYLE.strip()}</style>", *parts, "</svg>", ""])


def text(x, y, words, anchor="start", kind=""):
    """One line of text."""
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(words)}</text>'


def short(number):
    """12,000 as 12k."""
    if number >= 1_000_000:
        return f"{number / 1_000_000:g}M"
    if number >= 1_000:
        return f"{number / 1_000:g}k"
    return f"{number:g}"


def ceiling(largest):
    """A round number that is not below the largest value, and the steps towards it."""
    if largest <= 0:
        return 1.0, [0, 0.5, 1.0]
    unit = 1.0
    while unit * 10 < largest:
        unit *= 10
    while unit > largest:
        unit /= 10
    for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10):
        if unit * factor >= largest:
            top = unit * factor
            return top, [top * step / 4 for step in range(5)]
    return unit * 10, [unit * 10 * step / 4 for step in range(5)]


def lines(left, title, names, series, width=400, height=220):
    """A chart of lines over named points. `series`: (label, colour, values, their smallest, their largest)."""
    top, right, bottom, inset = 44, 12, 30, 46
    peak, steps = ceiling(max(max(largest) for *_, largest in series))
    inner_width, inner_height = width - inset - right, height - top - bottom

    def x(at):
        return left + inset + inner_width * (at + 0.5) / len(names)

    def y(value):
        return top + inner_height * (1 - value / peak)

    parts = [text(left + inset, 16, title, kind="title")]
    for step in steps:
        parts.append(f'<path class="grid" d="M{left + inset} {y(step):.1f}h{inner_width}"/>')
        parts.append(text(left + inset - 6, y(step) + 4, short(round(step, 6)), "end", "small"))
    for at, name in enumerate(names):
        parts.append(text(x(at), height - 10, name, "middle", "small"))
    for position, (label, colour, values, smallest, largest) in enumerate(series):
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="var(--{colour})" stroke-width="2"/>')
        for at, value in enumerate(values):
            spread = f"M{x(at):.1f} {y(smallest[at]):.1f}V{y(largest[at]):.1f}"
            parts.append(f'<path d="{spread}" stroke="var(--{colour})" stroke-opacity=".5"/>')
            parts.append(f'<circle cx="{x(at):.1f}" cy="{y(value):.1f}" r="3" fill="var(--{colour})"/>')
        legend = left + inset + position * 110
        parts.append(f'<rect x="{legend}" y="24" width="12" height="3" fill="var(--{colour})"/>')
        parts.append(text(legend + 16, 30, label, kind="small"))
    return parts


def stacks(title, rows, segments, unit):
    """Bars one above the other. `rows`: (label, values by segment); `segments`: (name, label, colour)."""
    width, inset, bar, top = 820, 130, 22, 62
    peak, steps = ceiling(max(sum(values.values()) for _, values in rows))
    scale = (width - inset - 60) / peak
    height = top + len(rows) * (bar + 10) + 26
    parts = [text(0, 16, title, kind="title")]
    legend = 0
    for _, label, colour in segments:
        parts.append(f'<rect x="{legend}" y="28" width="12" height="12" fill="var(--{colour})"/>')
        parts.append(text(legend + 16, 38, label, kind="small"))
        legend += 16 + 7 * len(label) + 14
    for step in steps:
        at = inset + step * scale
        parts.append(f'<path class="grid" d="M{at:.1f} {top - 6}V{height - 22}"/>')
        parts.append(text(at, height - 8, f"{step:g}", "middle", "small"))
    for row, (label, values) in enumerate(rows):
        y, at = top + row * (bar + 10), float(inset)
        parts.append(text(inset - 8, y + 15, label, "end"))
        for name, _, colour in segments:
            length = values.get(name, 0.0) * scale
            if length > 0:
                parts.append(f'<rect x="{at:.1f}" y="{y}" width="{length:.1f}" height="{bar}" fill="var(--{colour})"/>')
            at += length
        parts.append(text(at + 6, y + 15, f"{sum(values.values()):.0f} {unit}"))
    return document(width, height, parts)

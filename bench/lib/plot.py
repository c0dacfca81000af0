"""A small plot as SVG, for pages that are light or dark: text and axes take the reader's colour scheme, series have
colours that read on both. Lines over a linear or logarithmic axis, or groups of bars. No dependencies."""
import math
from xml.sax.saxutils import escape

COLOURS = ["#2f7ed8", "#d9822b", "#2ca25f", "#c0504d", "#8e63ce", "#808080"]
DASHES = ["", "6 3", "2 3", "8 3 2 3", "", "4 2"]
STYLE = """<style>
.t{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#24292f}
.s{font-size:12px}.h{font-size:15px;font-weight:600}
.a{stroke:#57606a;fill:none}.g{stroke:#57606a;stroke-opacity:.22;fill:none}
@media(prefers-color-scheme:dark){.t{fill:#d0d7de}.a{stroke:#9ea7b3}.g{stroke:#9ea7b3}}
</style>"""
W, H, LEFT, RIGHT, TOP, BOTTOM = 760, 440, 70, 24, 84, 58


def nice_ticks(lo, hi, about=6):
    span = (hi - lo) or 1.0
    step = 10 ** math.floor(math.log10(span / about))
    for m in (1, 2, 2.5, 5, 10):
        if span / (step * m) <= about:
            step *= m
            break
    first = math.ceil(lo / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(hi / step + 1e-9) + 1)]


def number(v):
    if v and abs(v) >= 1e6:
        return f"{v / 1e6:g} M"
    if v and abs(v) >= 1e4:
        return f"{v / 1e3:g} k"
    return f"{v:g}"


class Picture:
    def __init__(self, title, subtitle=""):
        self.parts = []
        self.text(LEFT, 24, title, "t h")
        if subtitle:
            self.text(LEFT, 44, subtitle, "t s")
        self.title = title

    def text(self, x, y, words, kind="t s", anchor="start", more=""):
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>')

    def line(self, x1, y1, x2, y2, kind):
        self.parts.append(f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>')

    def legend(self, names):
        x, y = LEFT, H - 8
        for i, name in enumerate(names):
            c, d = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
            self.parts.append(f'<path d="M{x} {y - 4}h22" stroke="{c}" stroke-width="3" stroke-dasharray="{d}"/>')
            self.text(x + 28, y, name)
            x += 44 + 7.2 * len(name)

    def svg(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{W}" height="{H}" viewBox="0 0 {W} {H}" role="img" '
               f'aria-label="{escape(self.title)}">\n{STYLE}\n' + "\n".join(self.parts) + "\n</svg>\n")


def lines(title, subtitle, x_label, y_label, series, y_range=None):
    """series: [(name, [(x, y), ...]), ...]"""
    p = Picture(title, subtitle)
    points = [q for _, s in series for q in s]
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    y0, y1 = y_range or (min(y for _, y in points), max(y for _, y in points))
    if y_range is None:
        pad = (y1 - y0) * 0.05 or 1
        y0, y1 = y0 - pad, y1 + pad

    def sx(x):
        return LEFT + (x - x0) / ((x1 - x0) or 1) * (W - LEFT - RIGHT)

    def sy(y):
        return H - BOTTOM - (min(max(y, y0), y1) - y0) / ((y1 - y0) or 1) * (H - TOP - BOTTOM)

    for v in nice_ticks(x0, x1):
        p.line(sx(v), TOP, sx(v), H - BOTTOM, "g")
        p.text(sx(v), H - BOTTOM + 16, number(v), anchor="middle")
    for v in nice_ticks(y0, y1):
        p.line(LEFT, sy(v), W - RIGHT, sy(v), "g")
        p.text(LEFT - 8, sy(v) + 4, number(v), anchor="end")
    p.line(LEFT, H - BOTTOM, W - RIGHT, H - BOTTOM, "a")
    p.line(LEFT, TOP, LEFT, H - BOTTOM, "a")
    p.text(W - RIGHT, H - BOTTOM + 34, x_label, anchor="end")
    p.text(LEFT, TOP - 12, y_label)
    for i, (_, s) in enumerate(series):
        drawn = "M" + "L".join(f"{sx(x):.1f} {sy(y):.1f}" for x, y in s)
        p.parts.append(f'<path d="{drawn}" fill="none" stroke="{COLOURS[i % len(COLOURS)]}" stroke-width="2" '
                       f'stroke-dasharray="{DASHES[i % len(DASHES)]}"/>')
    p.legend([n for n, _ in series])
    return p.svg()


def bars(title, subtitle, y_label, groups, series, y_max=1.0, form="{:.2f}"):
    """groups: names along x; series: [(name, [value or None for each group]), ...]"""
    y_max = 1.08 * max([y_max] + [v for _, values in series for v in values if v is not None])
    p = Picture(title, subtitle)

    def sy(v):
        return H - BOTTOM - v / y_max * (H - TOP - BOTTOM)

    for v in nice_ticks(0, y_max):
        p.line(LEFT, sy(v), W - RIGHT, sy(v), "g")
        p.text(LEFT - 8, sy(v) + 4, number(v), anchor="end")
    p.line(LEFT, H - BOTTOM, W - RIGHT, H - BOTTOM, "a")
    p.text(LEFT, TOP - 12, y_label)
    wide = (W - LEFT - RIGHT) / len(groups)
    bar = wide * 0.8 / len(series)
    for g, name in enumerate(groups):
        p.text(LEFT + wide * (g + 0.5), H - BOTTOM + 18, name, anchor="middle")
        for i, (_, values) in enumerate(series):
            x, v = LEFT + wide * (g + 0.1) + bar * i, values[g]
            if v is None:
                p.text(x + bar / 2, H - BOTTOM - 5, "–", anchor="middle")
                continue
            p.parts.append(f'<rect x="{x + 1:.1f}" y="{sy(v):.1f}" width="{bar - 2:.1f}" '
                           f'height="{H - BOTTOM - sy(v):.1f}" fill="{COLOURS[i % len(COLOURS)]}"/>')
            p.text(x + bar / 2, sy(v) - 4, form.format(v), anchor="middle")
    x, y = LEFT, H - 8
    for i, (name, _) in enumerate(series):
        p.parts.append(f'<rect x="{x}" y="{y - 10}" width="14" height="11" fill="{COLOURS[i % len(COLOURS)]}"/>')
        p.text(x + 20, y, name)
        x += 36 + 7.2 * len(name)
    return p.svg()

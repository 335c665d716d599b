#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the plots and tables of doc/compression.md from the measurements in bench/results: SVG files under doc/, and the
text between <!-- table: NAME --> and <!-- end --> in the page. Of several measurements of the same thing the last one counts.
What has not been measured is left out. Nothing but Python.

Usage: plots.py [--check]      (--check: changes nothing, fails when something would change)"""
import json
import math
import os
import sys

import compression_accuracy
import slow_network

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
RESULTS, DOC = TOP + "/bench/results", TOP + "/doc"
PAGE = DOC + "/compression.md"
LINKS = (10, 100, 1000, None)
WIDTH, HEIGHT = 780, 430
LEFT, RIGHT, ABOVE, BELOW = 66, 150, 46, 58
STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 14px }
  .note { fill: #57606a; font-size: 11px }
  .grid { stroke: #d8dee4; stroke-width: 1 }
  .axis { stroke: #57606a; stroke-width: 1 }
  .back { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #9198a1 } .grid { stroke: #30363d } .axis { stroke: #9198a1 } .back { fill: #0d1117 }
  }"""
# One colour per configuration, wherever it appears; those of the other program are drawn with dashes.
COLOURS = {"none": "#7d8590", "float16": "#1f9e9e", "safe": "#2f81f7", "balanced": "#2da44e", "extreme": "#e16f24", "auto": "#8957e5",
           "fp16": "#1f9e9e", "powersgd1": "#cf3a6b"}
SPARE = ("#b08800", "#0550ae", "#a40e26", "#116329", "#6e40c9")


def read(name):
    path = f"{RESULTS}/{name}.jsonl"
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return [json.loads(text) for text in f if text.strip()]


def colour(name):
    return COLOURS.get(name) or SPARE[sum(map(ord, name)) % len(SPARE)]


def number(v, digits=3):
    """With so many significant digits, thousands apart."""
    if v is None:
        return ""
    if v == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(v))))
    return f"{v:,.{places}f}"


def escape(text):
    return str(text).replace("&", "&amp;").replace("<", "&lt;")


# ---- drawing


class Plot:
    """x and y: functions from a value to a part of the axis, 0 to 1."""

    def __init__(self, title, x, y, x_label, y_label):
        self.x_of, self.y_of = x, y
        self.parts, self.labels = [], []
        self.text(LEFT, 22, title, "title")
        self.text(LEFT + self.width / 2, HEIGHT - 12, x_label, "note", anchor="middle")
        self.parts.append(f'<text class="note" transform="translate(15 {ABOVE + self.height / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
        self.line([(0, 0), (1, 0)], "axis")

    width, height = WIDTH - LEFT - RIGHT, HEIGHT - ABOVE - BELOW

    def at(self, u, v):
        return LEFT + u * self.width, ABOVE + (1 - v) * self.height

    def point(self, x, y):
        return self.at(self.x_of(x), self.y_of(y))

    def text(self, px, py, text, kind="", anchor="start", fill=None):
        style = f' style="fill:{fill}"' if fill else ""
        kind = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text x="{px:.1f}" y="{py:.1f}"{kind} text-anchor="{anchor}"{style}>{escape(text)}</text>')

    def line(self, parts_of_axes, kind):
        (a, b), (c, d) = (self.at(*p) for p in parts_of_axes)
        self.parts.append(f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}" class="{kind}"/>')

    def ticks(self, xs, ys):
        """Values and their texts."""
        for value, text in xs:
            px, py = self.at(self.x_of(value), 0)
            self.line([(self.x_of(value), 0), (self.x_of(value), 1)], "grid")
            self.text(px, py + 17, text, "note", "middle")
        for value, text in ys:
            px, py = self.at(0, self.y_of(value))
            self.line([(0, self.y_of(value)), (1, self.y_of(value))], "grid")
            self.text(px - 7, py + 4, text, "note", "end")

    def curve(self, points, name, fill, dashed=False, dots=True):
        at = [self.point(*p) for p in points]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{fill}" stroke-width="2"{dash}/>')
        for a, b in at if dots else []:
            self.parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{fill}"/>')
        self.labels.append((at[-1], name, fill))

    def mark(self, x, y, half, name, fill, hollow=False):
        """A point with an interval."""
        (px, py), (_, low), (_, high) = self.point(x, y), self.point(x, y - half), self.point(x, y + half)
        inside = 'class="back"' if hollow else f'fill="{fill}"'
        self.parts.append(f'<line x1="{px:.1f}" y1="{low:.1f}" x2="{px:.1f}" y2="{high:.1f}" stroke="{fill}" stroke-width="1.5"/>')
        self.parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4.5" {inside} stroke="{fill}" stroke-width="2"/>')
        if name:
            self.text(px + 9, py - 7, name, fill=fill)

    def place_labels(self):
        """Names at the right ends, moved apart."""
        at, free = sorted(self.labels, key=lambda label: label[0][1]), -math.inf
        ys = []
        for (_, py), _, _ in at:
            free = max(py, free + 15)
            ys.append(free)
        over = max(0, (ys[-1] if ys else 0) - (HEIGHT - BELOW + 6))
        for ((px, _), name, fill), py in zip(at, ys):
            self.text(LEFT + self.width + 10, py + 4 - over, name, fill=fill)

    def svg(self):
        self.place_labels()
        body = "\n".join(self.parts)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">\n'
                f'<style>{STYLE}\n</style>\n<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="6"/>\n{body}\n</svg>\n')


def log_scale(low, high):
    return lambda v: (math.log(max(v, low)) - math.log(low)) / (math.log(high) - math.log(low))


def scale(low, high):
    return lambda v: (min(max(v, low), high) - low) / (high - low)


def decades(low, high, steps=(1, 2, 5)):
    out = [s * 10 ** e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for s in steps]
    return [v for v in out if low <= v <= high]


# ---- what is measured


def accuracy_summary():
    return compression_accuracy.summary(read("compression_accuracy"))


def both_ways(s):
    dense = (s["up_per_clock"] * s["up_factor"], s["down_per_clock"] * s["down_factor"])
    return sum(dense) / (s["up_per_clock"] + s["down_per_clock"])


def slow(part):
    """{(link, by, configuration): record}"""
    return {(r["mbit"], r["by"], r["config"]): r for r in read("slow_network") if r.get("part") == part}


def contenders(records):
    """(by, configuration) in the order of their first measurement."""
    return list(dict.fromkeys((by, name) for _, by, name in records))


def who(by, name):
    return f"{'Ballast' if by == 'ballast' else 'DDP'} {name}"


def plot_accuracy(summaries):
    rows = [s for s in summaries if s["pairs"] > 0 and s["summary"] != "none"]
    if not rows:
        return None
    low = min(-0.012, *(s["difference"] - (0 if math.isnan(s["difference_ci95"]) else s["difference_ci95"]) for s in rows))
    low, high = math.floor(low * 200) / 200, 0.005
    most = max(400, *(1.3 * both_ways(s) for s in rows))
    plot = Plot("Test accuracy against bytes: Fashion-MNIST, MLP 784-512-256-10, 15 epochs", log_scale(1, most), scale(low, high),
                "times fewer bytes than float32, both ways together (log scale)", "difference to float32, paired seeds")
    steps = [low + 0.005 * i for i in range(int(round((high - low) / 0.005)) + 1)]
    plot.ticks([(v, f"{v:,.0f}") for v in decades(1, most)], [(v, f"{v:+.3f}" if abs(v) > 1e-9 else "0") for v in steps])
    plot.mark(1, 0, 0, "none", colour("none"))
    least = min(s["ranks"] for s in rows)
    for s in rows:
        half = 0 if math.isnan(s["difference_ci95"]) else s["difference_ci95"]
        name = s["summary"] if s["ranks"] == least else ""
        plot.mark(both_ways(s), s["difference"], half, name, colour(s["summary"]), hollow=s["ranks"] != least)
    ranks = sorted({s["ranks"] for s in rows})
    for i, r in enumerate(ranks):
        plot.text(WIDTH - RIGHT + 12, ABOVE + 14 + 18 * i, f"{'●' if r == least else '○'} {r} ranks", "note")
    return plot.svg()


def plot_steps(records):
    if not records:
        return None
    values = [r["step_ms"] for r in records.values()]
    low, high = min(values) / 1.3, max(values) * 1.3
    links = [link for link in LINKS if any(k[0] == link for k in records)]
    plot = Plot("A step on two machines: batch 128 per rank, MLP 784-512-256-10", lambda i: (i + 0.15) / (len(links) - 0.7) if len(links) > 1 else 0.5, log_scale(low, high),
                "link", "ms per step (log scale)")
    plot.ticks([(i, "loopback" if link is None else f"{link} Mbit/s") for i, link in enumerate(links)], [(v, f"{v:,g}") for v in decades(low, high)])
    for by, name in contenders(records):
        points = [(i, records[link, by, name]["step_ms"]) for i, link in enumerate(links) if (link, by, name) in records]
        if points:
            plot.curve(points, who(by, name), colour(name), dashed=by != "ballast")
    return plot.svg()


def plot_curves(records, link):
    rows = {k: r for k, r in records.items() if k[0] == link}
    if not rows:
        return None
    times = [t for r in rows.values() for t, _ in r["curve"]]
    low, high, floor = min(times) / 1.2, max(times) * 1.1, 0.80
    plot = Plot(f"Test accuracy over time at {link} Mbit/s, two machines", log_scale(low, high), scale(floor, 0.905), "seconds (log scale)", "test accuracy")
    plot.ticks([(v, f"{v:,g}") for v in decades(low, high)], [(0.80 + 0.02 * i, f"{0.80 + 0.02 * i:.2f}") for i in range(6)])
    for (_, by, name), r in rows.items():
        points = [p for p in r["curve"] if p[1] >= floor]
        if points:
            plot.curve(points, who(by, name) + (" (computed)" if r["computed"] else ""), colour(name), dashed=by != "ballast", dots=False)
    return plot.svg()


# ---- tables


def rows_of(head, rows):
    if not rows:
        return "Not measured yet."
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(r) + " |" for r in rows])


def plus_minus(value, half, sign=False):
    text = f"{value:+.4f}" if sign else f"{value:.4f}"
    return text if math.isnan(half) else f"{text} ± {half:.4f}"


def table_accuracy(summaries):
    rows = []
    for s in summaries:
        rows.append([f"`{s['summary']}`", str(s["ranks"]), str(s["seeds"]), plus_minus(s["test_accuracy"], s["test_accuracy_ci95"]),
                     "" if s["summary"] == "none" or s["pairs"] == 0 else plus_minus(s["difference"], s["difference_ci95"], True),
                     number(s["up_per_clock"]), number(s["down_per_clock"]), number(s["up_factor"]), number(s["down_factor"])])
    return rows_of(["compression", "ranks", "seeds", "test accuracy", "difference to none", "bytes up per clock", "down", "times fewer up", "down"], rows)


def link_text(link):
    return "loopback" if link is None else f"{link} Mbit/s"


def table_slow(steps, ends):
    rows = []
    for link in LINKS:
        for by, name in contenders({**steps, **ends}):
            s, e = steps.get((link, by, name)), ends.get((link, by, name))
            if s is None and e is None:
                continue
            took = "" if e is None else "never" if e["seconds_to_target"] is None else number(e["seconds_to_target"]) + (" (computed)" if e["computed"] else "")
            rows.append([link_text(link), who(by, name), "" if s is None else f"{number(s['step_ms'])} ({number(s['min'])} to {number(s['max'])})",
                         took, "" if e is None else f"{e['final_accuracy']:.4f}"])
    return rows_of(["link", "who", "ms per step: median (least to most)", "seconds to 0.88", "final accuracy"], rows)


def table_ratios(steps):
    """How many times faster a step is than the rivals', and how long it takes beside the best fixed choice."""
    rows = []
    for link in LINKS:
        fixed = [r["step_ms"] for (at, by, name), r in steps.items() if at == link and by == "ballast" and name != "auto"]
        rivals = [steps.get((link, "ddp", name)) for name in slow_network.RIVALS]
        for by, name in contenders(steps):
            mine = steps.get((link, by, name))
            if by == "ballast" and mine is not None and any(rivals):
                rows.append([link_text(link), name] + ["" if r is None else number(r["step_ms"] / mine["step_ms"]) for r in rivals] +
                            [number(mine["step_ms"] / min(fixed)) if fixed else ""])
    return rows_of(["link", "Ballast", *(f"faster than DDP {r}" for r in slow_network.RIVALS), "time of the best fixed choice"], rows)


def table_counters():
    last = {}
    for r in read("slow_network"):
        if r.get("part") == "counters":
            last[r["mbit"], r["config"]] = r
    rows = [[link_text(r["mbit"]), r["config"], str(r["clocks"]), number(r["reported_up"], 4), number(r["interface_up"], 4), number(r["reported_down"], 4),
             number(r["interface_down"], 4), f"{r['interface_up'] / r['reported_up']:.3f}", f"{r['interface_down'] / r['reported_down']:.3f}"] for r in last.values()]
    return rows_of(["link", "compression", "clocks", "reported up", "interface up", "reported down", "interface down", "ratio up", "ratio down"], rows)


def table_codecs():
    """From `ballast bench codec --json` kept as results/codec.jsonl; only what its lines have."""
    rows = [[f"`{r['spec']}`", number(r["bits_per_element"]), number(r.get("relative_squared_error")), number(r.get("encode_gbps")), number(r.get("decode_gbps"))]
            for r in read("codec") if "spec" in r and "bits_per_element" in r]
    return rows_of(["codec", "bits per element", "relative squared error", "encode, GB/s of float32", "decode and add"], rows)


def fill(page, tables):
    for name, text in tables.items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        first = page.find(begin)
        if first >= 0:
            first += len(begin)
            last = page.index(end, first)
            page = page[:first] + text + "\n" + page[last:]
    return page


def put(path, text, check):
    old = None
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            old = f.read()
    if old == text:
        return True
    print(("would change " if check else "wrote ") + os.path.relpath(path, TOP))
    if not check:
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    return False


def main():
    check = "--check" in sys.argv[1:]
    summaries, steps, ends = accuracy_summary(), slow("step"), slow("accuracy")
    pictures = {"compression-accuracy": plot_accuracy(summaries), "compression-step": plot_steps(steps), "compression-time": plot_curves(ends, 100)}
    same = [put(f"{DOC}/{name}.svg", svg, check) for name, svg in pictures.items() if svg is not None]
    with open(PAGE, encoding="utf-8") as f:
        page = f.read()
    page = fill(page, {"accuracy": table_accuracy(summaries), "slow": table_slow(steps, ends), "ratios": table_ratios(steps), "counters": table_counters(),
                       "codecs": table_codecs()})
    same.append(put(PAGE, page, check))
    return 1 if check and not all(same) else 0


if __name__ == "__main__":
    sys.exit(main())

"""The figure: what the update of a million parameters costs, by how many tensors they are cut into.

`python -m benchmarks.figure benchmarks/results/NAME.figure.json` draws again what was measured.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Final

from matplotlib.figure import Figure

from benchmarks import loops, models
from benchmarks.rows import BARE
from benchmarks.timing import BLOCKS, Cost, bound, costs, interleave

COUNTS: Final = (10, 100, 1_000, 10_000)
LINES: Final = {"origin's way": loops.Origin, "best by hand": loops.ByHand, "optimscheduler": loops.Ours}
COLOURS: Final = {"origin's way": "#999999", "best by hand": "#0072b2", "optimscheduler": "#d55e00"}
APART: Final = 1.9  # a name is so many times higher than the one below it
IMAGES: Final = Path(__file__).parents[1] / "docs" / "images"

Points = dict[str, list[dict[str, float]]]
"""Line -> for each count of tensors its median and bounds, milliseconds."""


def points(*, quick: bool) -> Points:
    """Measure every point: whole step less forward and backward alone."""
    measured: Points = {name: [] for name in LINES}
    for count in COUNTS:
        workload = models.million(count)()
        contestants = {name: loop(workload) for name, loop in {**LINES, BARE: loops.Bare}.items()}
        times = interleave(contestants, quick=quick)
        for name, line in measured.items():
            values = [1e3 * cost for cost in costs(times, Cost(of=name, less=BARE), BLOCKS)]
            low, high = bound(values, at_least=True), bound(values)
            line.append({"tensors": count, "ms": median(values), "low": low, "high": high})
    return measured


def draw(measured: Points, title: str) -> Figure:
    """Both axes logarithmic; the last point of every line has its name."""
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    for name, line in measured.items():
        x, y = [[point[key] for point in line] for key in ("tensors", "ms")]
        axes.plot(x, y, marker="o", color=COLOURS[name], linewidth=2)
        low, high = [[point[key] for point in line] for key in ("low", "high")]
        axes.fill_between(x, low, high, color=COLOURS[name], alpha=0.2)
    lowest = 0.0
    for name, line in sorted(measured.items(), key=lambda item: item[1][-1]["ms"]):
        height = max(lowest, line[-1]["ms"])
        axes.text(
            COUNTS[-1] * 1.2, height, f"{name}\n{line[-1]['ms']:.3g} ms", va="center", color=COLOURS[name]
        )
        lowest = APART * height
    axes.set_xlim(COUNTS[0] * 0.8, COUNTS[-1] * 6)
    axes.set_xticks(COUNTS, [f"{count:,}" for count in COUNTS])
    axes.yaxis.set_major_formatter(lambda value, _place: f"{value:g}")
    axes.set_xlabel("tensors that 1 M parameters are cut into")
    axes.set_ylabel("time of one update (ms)")
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def save(measured: Points, name: str, folder: Path = IMAGES) -> list[Path]:
    """As PNG and SVG."""
    figure = draw(measured, f"Norm, clipping, AdamW and clearing, float32, {name}")
    paths = [folder / f"update_time.{ending}" for ending in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=160)
    return paths


if __name__ == "__main__":
    given = Path(sys.argv[1])
    print(*save(json.loads(given.read_text()), given.name.removesuffix(".figure.json")))

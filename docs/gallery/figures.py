"""The figures of the gallery: factors over real steps, for a light page and for a dark one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

from gallery.entries import Entry
from matplotlib import rc_context
from matplotlib.figure import Figure

from optimscheduler.schedules.grammar import AnySchedule

__all__ = ["THEMES", "figure", "points", "svg"]

THEMES: Final = {
    "light": ("#30343b", "#d5d8dd", ("#2463a8", "#cc6a10", "#2f8050", "#8a4fb0", "#b03048")),
    "dark": ("#d6dae2", "#454b57", ("#74aef0", "#f2a24e", "#6fc990", "#c39ae8", "#f08296")),
}
"""Name of the page's colours -> text, grid, curves."""

_MOST: Final = 500  # points of a curve; more cannot be told apart at this size
_STYLES: Final = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1, 1, 1, 1, 1)),
)  # whoever sees no colours can tell them apart


def points(schedule: AnySchedule, entry: Entry) -> Iterator[tuple[int, float]]:
    """(real step, factor) of a schedule, which hears the entry's metrics in between."""
    state = schedule.listener.start() if schedule.listener else None
    heard = _heard(entry)
    for step in range(1, entry.steps + 1):
        while schedule.listener and heard and heard[0][0] < step:
            state = schedule.listener.observe(state, heard.pop(0)[1])
        if (step - 1) % max(entry.steps // _MOST, 1) == 0 or step == entry.steps:
            yield step, schedule.value_at(step, state)


def figure(entry: Entry, theme: str) -> Figure:
    """Draw the curves of an entry over one another.

    Args:
        entry: what to draw.
        theme: one of `THEMES`.
    """
    text, grid, colors = THEMES[theme]
    drawn = Figure(figsize=(6.4, 2.3))
    drawn.patch.set_alpha(0)
    axes = drawn.add_axes((0.08, 0.19, 0.58, 0.76), facecolor="none")
    for i, (label, schedule) in enumerate(entry.curves.items()):
        width = 2.0 if i == 0 else 1.6
        axes.plot(
            *zip(*points(schedule, entry), strict=True),
            color=colors[i],
            linestyle=_STYLES[i],
            linewidth=width,
            zorder=3 - 0.1 * i,
            label=label,
        )
    if entry.metrics:
        at, metrics = zip(*_heard(entry), strict=True)
        axes.plot(at, metrics, "o", color=text, markersize=2.5, label="the metric, a loss", clip_on=False)
    axes.set_xlim(0, entry.steps)
    axes.set_ylim(-0.02, 1.06)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("real step s", color=text)
    axes.set_ylabel("factor", color=text)
    axes.tick_params(colors=text, length=2)
    axes.grid(color=grid, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(text)
    axes.legend(
        loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, labelcolor=text, handlelength=2.6
    )
    return drawn


def svg(entry: Entry, theme: str) -> str:
    """The same as a picture with a transparent ground, byte for byte equal each time."""
    out = io.StringIO()
    with rc_context({"svg.hashsalt": "gallery", "font.size": 8, "font.family": "DejaVu Sans"}):
        figure(entry, theme).savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _heard(entry: Entry) -> list[tuple[int, float]]:
    """(real step, metric): each metric is heard after its part of the steps."""
    every = entry.steps // max(len(entry.metrics), 1)
    return [((i + 1) * every, metric) for i, metric in enumerate(entry.metrics)]

"""Pictures: the curves of a run, and a learning rate before there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from optimscheduler.errors import ConfigError
from optimscheduler.run.monitor.jsonl import METRICS, VALIDATION, read_lines
from optimscheduler.run.monitor.protocol import Record

__all__ = ["plot_curves", "plot_lr"]

_BLUE, _ORANGE, _RED = "#2f6db3", "#d9822b", "#c23b3b"
_COLORS = (_BLUE, "#3f8f5b", "#7d5ba6", "#5f6b76", "#a8791f")  # of several OptimSchedulers


def plot_curves(folder: Path) -> Path | None:
    """Draw `curves.png` of a run folder: loss, learning rate and gradient norm over windows.

    Returns:
        The file, or None where there is nothing to draw yet.
    """
    windows = read_lines(folder / METRICS)
    if not windows:
        return None
    figure = Figure(figsize=(8, 8), layout="constrained")
    loss, lr, norm = figure.subplots(3, 1, sharex=True)
    members = list(dict.fromkeys(record.get("member") for record in windows))
    for color, name in zip(cycle(_COLORS), members, strict=False):
        of = [record for record in windows if record.get("member") == name]
        _line(loss, of, "loss", color, f"{name or 'training'}, window mean")
        _line(lr, of, "lr", color, None)
        _line(norm, of, "grad_norm", color, None)
    validation = [record for record in read_lines(folder / VALIDATION) if record.get("loss") is not None]
    if validation:
        at = [record["real_step"] for record in validation]
        loss.plot(
            at, [r["loss"] for r in validation], "o-", color=_ORANGE, markersize=4, label="held-out data"
        )
    loss.set_ylabel("loss")
    lr.set_ylabel("learning rate")
    lr.set_ylim(bottom=0)
    norm.set_ylabel("gradient norm")
    if any(record["grad_norm"] for record in windows):
        norm.set_yscale("log")
        norm.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        norm.yaxis.set_major_formatter("{x:g}")
        norm.yaxis.set_minor_formatter("")
    norm.set_xlabel("real step (window)")
    skipped = [record["real_step"] for record in windows if record["skipped"]]
    for axes in (loss, lr, norm):
        for step in skipped:
            axes.axvline(step, color=_RED, linewidth=0.6, alpha=0.6)
        axes.grid(alpha=0.25)
    if skipped:
        loss.plot([], [], color=_RED, linewidth=0.6, label="skipped")
    loss.legend(frameon=False)
    return _save(figure, folder / "curves.png")


def plot_lr(
    curves: Mapping[str, Sequence[tuple[int, float]]],
    path: Path,
    marks: Mapping[str, Sequence[tuple[int, float]]] | None = None,
) -> Path:
    """Draw learning rates over real steps.

    Args:
        curves: label -> (real step, learning rate), in order.
        path: .png, .svg or .pdf.
        marks: label -> (real step, learning rate) to be marked.

    Raises:
        ConfigError: the file cannot be written, or its ending is none of these.
    """
    several = len(curves) > 1
    figure = Figure(figsize=(8, 3.5 + 0.2 * len(curves) * several), layout="constrained")
    axes = figure.subplots()
    for label, points in curves.items():
        marked = (marks or {}).get(label, ())
        (line,) = axes.plot(
            [step for step, _ in points],
            [lr for _, lr in points],
            label="   ".join([label, *(f"{lr:.4g} at {step}" for step, lr in marked)]),
            color=None if several else _BLUE,
        )
        for step, lr in marked:
            axes.axvline(step, color="gray", linewidth=0.6, linestyle=":")
            axes.plot([step], [lr], "o", color=line.get_color(), markersize=5)
            if not several:
                _annotate(axes, f"{lr:.4g} at {step}", step, lr)
        if not points:
            continue
        step, peak = max(points, key=lambda point: point[1])
        if not (marked or several):
            _annotate(axes, f"{peak:.3g} at {step}", step, peak)
    axes.set_xlabel("real step (window)")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.grid(alpha=0.25)
    if several:
        figure.legend(loc="outside upper left", frameon=False, fontsize=9)
    return _save(figure, path)


def _annotate(axes: Axes, text: str, step: int, value: float) -> None:
    axes.annotate(text, (step, value), textcoords="offset points", xytext=(6, 4), fontsize=9)


def _line(axes: Axes, records: Sequence[Record], key: str, color: str, label: str | None) -> None:
    """A value over windows; a norm of 0 has no logarithm and is left out."""
    shown = [
        (r["real_step"], r[key]) for r in records if r[key] is not None and (key != "grad_norm" or r[key])
    ]
    axes.plot([x for x, _ in shown], [y for _, y in shown], color=color, linewidth=1, label=label)


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be written: {error}") from None
    return path

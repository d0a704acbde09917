"""Pictures: the curves of a run, and a learning rate before there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from optimscheduler.errors import ConfigError
from optimscheduler.run.monitor.jsonl import METRICS, VALIDATION, read_lines

__all__ = ["plot_curves", "plot_lr"]

_BLUE, _ORANGE, _RED = "#2f6db3", "#d9822b", "#c23b3b"


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
    steps = [record["real_step"] for record in windows]
    _line(loss, steps, [record["loss"] for record in windows], "training, window mean")
    validation = [record for record in read_lines(folder / VALIDATION) if record.get("loss") is not None]
    if validation:
        at = [record["real_step"] for record in validation]
        loss.plot(
            at, [r["loss"] for r in validation], "o-", color=_ORANGE, markersize=4, label="held-out data"
        )
    loss.set_ylabel("loss")
    _line(lr, steps, [record["lr"] for record in windows], None)
    lr.set_ylabel("learning rate")
    lr.set_ylim(bottom=0)
    _line(norm, steps, [record["grad_norm"] or None for record in windows], None)  # 0 has no logarithm
    norm.set_ylabel("gradient norm")
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


def plot_lr(curves: Mapping[str, Sequence[tuple[int, float]]], path: Path) -> Path:
    """Draw learning rates over real steps.

    Args:
        curves: label -> (real step, learning rate), in order.
        path: .png, .svg or .pdf.

    Raises:
        ConfigError: the file cannot be written, or its ending is none of these.
    """
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    for label, points in curves.items():
        axes.plot(
            [step for step, _ in points],
            [lr for _, lr in points],
            label=label,
            color=_BLUE if len(curves) == 1 else None,
        )
        if not points:
            continue
        step, peak = max(points, key=lambda point: point[1])
        axes.annotate(
            f"{peak:.3g} at {step}", (step, peak), textcoords="offset points", xytext=(6, 4), fontsize=9
        )
    axes.set_xlabel("real step (window)")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.grid(alpha=0.25)
    if len(curves) > 1:
        axes.legend(frameon=False)
    return _save(figure, path)


def _line(axes: Axes, steps: Sequence[int], values: Sequence[float | None], label: str | None) -> None:
    shown = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    axes.plot(
        [step for step, _ in shown], [value for _, value in shown], color=_BLUE, linewidth=1, label=label
    )


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be written: {error}") from None
    return path

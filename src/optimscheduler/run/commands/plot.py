"""`optimscheduler plot`: draw learning rates, on the screen or into a picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console as Screen

from optimscheduler.run.commands.settings import name_of_run, read_settings
from optimscheduler.run.commands.speak import say
from optimscheduler.run.data.batches import open_data
from optimscheduler.run.monitor.plots import plot_lr
from optimscheduler.run.plan.lr_curves import Curve, curve_of_text, curves_of_plan, sorted_out
from optimscheduler.run.plan.plan import make_plan
from optimscheduler.run.plan.report import text_curve

__all__ = ["plot"]


def plot(
    what: list[str],
    screen: Screen,
    *,
    out: Path | None = None,
    steps: int | None = None,
    lr: float = 1.0,
    at: Sequence[int] = (),
) -> int:
    """Draw the learning rates of configurations and of schedules over one another.

    Args:
        what: YAML files, schedules, and `KEY=VALUE` for settings of one file.
        screen: where to speak.
        out: the picture; None draws on the screen.
        steps: real steps to draw of a schedule; None is what its lengths come to.
        lr: base learning rate of a schedule.
        at: real steps whose values are marked and said.

    Returns:
        The exit code.
    """
    curves = list(_curves(what, steps, lr))
    for curve in curves:
        if out is None:
            say(screen, curve.label)
            for line in text_curve(curve.points):
                say(screen, f"  {line}")
        for step in at:
            say(screen, f"{curve.value(step):.6g} at {step}   {curve.label}")
    if out is not None:
        marks = {curve.label: [(step, curve.value(step)) for step in at] for curve in curves}
        path = plot_lr({curve.label: curve.points for curve in curves}, out, marks)
        say(screen, f"written    {path}")
    return 0


def _curves(what: list[str], steps: int | None, lr: float) -> Iterator[Curve]:
    files, texts, overrides = sorted_out(what)
    for config in files:
        sys.path.append(str(config.resolve().parent))
        settings = read_settings(config, overrides)
        data = open_data(settings)
        plan = make_plan(settings, data.batches, tokens_per_item=data.tokens_per_item)
        yield from curves_of_plan(name_of_run(config), plan)
    for text in dict.fromkeys(texts):
        yield curve_of_text(text, steps, lr)

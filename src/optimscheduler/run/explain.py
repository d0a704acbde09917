"""The plan of a run as text: who owns what, how many updates, the curve of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from rich.console import Console as Screen
from rich.markup import escape
from rich.table import Table

from optimscheduler.precision import precision_for
from optimscheduler.run.config import RunConfig
from optimscheduler.run.data import RunData
from optimscheduler.run.parts import device_named
from optimscheduler.run.plan import MemberPlan, Plan, Row

__all__ = ["show_config", "show_plan", "text_curve"]

_BLOCKS = " ▁▂▃▄▅▆▇█"


def show_config(screen: Screen, config: RunConfig, data: RunData) -> None:
    """The configuration in short.

    Raises:
        ConfigError: the device is not here.
    """
    train = config.train_cfg
    model = ", ".join(f"{key}={value}" for key, value in train.model.conf.items())
    clip = "no clipping" if config.grad_clip is None else f"clip {config.grad_clip:g}"
    device = device_named(config.device)
    threads = f", {_count(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    held_out = f", {data.valid_items:,} held out" if data.valid_items else ", none held out"
    _line(screen, f"model      {train.model.type}({model})")
    _line(screen, f"data       {data.items:,} items, {config.data_cfg.batch_size} per batch{held_out}")
    epochs = _count(config.num_epochs, "epoch")
    _line(screen, f"training   {epochs}, {clip}, seed {config.seed}")
    _line(screen, f"precision  {precision_for(config.use_amp, device)}, on {device}{threads}")


def show_plan(screen: Screen, plan: Plan, *, curve: bool) -> None:
    """The plan; `curve` draws the learning rate."""
    h = plan.horizon
    for name, member in plan.members.items():
        _line(screen, f"{name:<10} {member.described}")
    screen.print()
    screen.print(_table(plan.rows))
    screen.print()
    carried = ", windows carried over" if h.carry else ""
    _line(
        screen,
        f"plan       {_count(h.epochs, 'epoch')} x {h.batches:,} batches / accum_grad {h.accum_grad} = "
        f"{_count(h.windows, 'window')}{carried}",
    )
    for name, member in plan.members.items():
        if member.curve:
            _line(screen, f"{name:<10} {_count(member.updates, 'update')}, lr {_milestones(member)}")
            if curve:
                for line in text_curve(member.curve):
                    _line(screen, "           " + line)
    for note in plan.notes:
        _line(screen, f"note       {note}")


def text_curve(points: Sequence[tuple[int, float]], width: int = 60, height: int = 6) -> list[str]:
    """A curve drawn with block characters, from 0 at the bottom to its maximum at the top.

    >>> text_curve([(1, 0.0), (2, 0.5), (3, 1.0)], width=3, height=1)
    [' ▄█ 1', '1  3']
    """
    width = min(width, len(points))
    edges = [i * len(points) // width for i in range(width + 1)]
    columns = [max(lr for _, lr in points[a:b]) for a, b in pairwise(edges)]
    top = max(columns) or 1.0
    eighths = [round(value / top * height * 8) for value in columns]
    rows = ["".join(_BLOCKS[min(max(e - 8 * row, 0), 8)] for e in eighths) for row in reversed(range(height))]
    rows[0] += f" {top:.3g}"
    first, last = str(points[0][0]), str(points[-1][0])
    return [*rows, first + last.rjust(max(width - len(first), len(last) + 2))]


def _milestones(member: MemberPlan) -> str:
    (first, start), (last, end), (at, peak) = member.curve[0], member.curve[-1], member.peak
    between = f", peak {peak:.3g} at {at}" if at not in (first, last) else ""
    return f"{start:.3g} at {first}{between}, {end:.3g} at {last}"


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("owner", "group"):
        table.add_column(heading, overflow="fold")
    for heading in ("tensors", "parameters", "base lr", "weight decay"):
        table.add_column(heading, justify="right")
    for row in rows:
        lr = "" if row.lr is None else f"{row.lr:g}"
        decay = "" if row.weight_decay is None else f"{row.weight_decay:g}"
        table.add_row(
            escape(row.owner), escape(row.group), str(row.tensors), f"{row.parameters:,}", lr, decay
        )
    return table


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _line(screen: Screen, text: str) -> None:
    screen.print(escape(text), highlight=False, soft_wrap=True)

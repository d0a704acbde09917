"""The plan of a run as text: who owns what, how many updates, the curve of the learning rate."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import torch
from rich.console import Console as Screen
from rich.markup import escape
from rich.table import Table

from optimscheduler.backward.precision import precision_for
from optimscheduler.run.config.schema import AverageConfig, RunConfig
from optimscheduler.run.data.batches import RunData
from optimscheduler.run.plan.lr_continuity import LrChange
from optimscheduler.run.plan.member_plan import MemberPlan
from optimscheduler.run.plan.ownership import Row
from optimscheduler.run.plan.plan import Plan
from optimscheduler.window.clock import Cadence, Clock

__all__ = ["rhythm", "show_config", "show_plan", "text_curve"]

_WIDTH = 60  # characters of a curve
_BLOCKS = " ▁▂▃▄▅▆▇█"
_BATCHES = 48  # a longer rhythm is cut off
_HOW: Final = {
    True: "DistributedDataParallel",
    "ddp": "DistributedDataParallel",
    "deferred": "reduced after the last backward",
    "fsdp": "sharded",
}


def show_config(screen: Screen, config: RunConfig, data: RunData, device: torch.device) -> None:
    """The configuration in short."""
    train = config.train_cfg
    model = ", ".join(f"{key}={value}" for key, value in train.model.conf.items())
    clip = _clipping(config.grad_clip)
    threads = f", {_count(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    held_out = f", {data.valid_items:,} held out" if data.valid_items else ", none held out"
    _line(screen, f"model      {train.model.type}({model})")
    per_batch = f"{config.data_cfg.batch_size} per batch"
    if data.ranks > 1:
        per_batch += f" on each of {data.ranks} ranks ({_HOW[config.distributed]})"
    _line(screen, f"data       {data.items:,} items, {per_batch}{held_out}")
    epochs = _count(config.num_epochs, "epoch")
    _line(screen, f"training   {epochs}, {clip}, seed {config.seed}")
    if config.average:
        _line(screen, f"average    of the weights, for validation: {_average(config.average)}")
    _line(screen, f"precision  {precision_for(config.use_amp, device)}, on {device}{threads}")


def _clipping(grad_clip: float | dict[str, float] | None) -> str:
    if grad_clip is None:
        return "no clipping"
    if isinstance(grad_clip, dict):
        return "clip " + ", ".join(
            f"{key} {value:g}" for key, value in grad_clip.items() if value is not None
        )
    return f"clip {grad_clip:g}"


def _average(average: AverageConfig) -> str:
    kind = "plain mean" if average.decay is None else f"decay {average.decay:g}"
    warmed = " with a warm-up" if average.warm_up else ""
    return f"{kind}{warmed}" + (f", from update {average.start + 1} on" if average.start else "")


def show_plan(screen: Screen, plan: Plan, *, curve: bool) -> None:
    """The plan; `curve` draws the learning rate."""
    h = plan.horizon
    for name, member in plan.members.items():
        _line(screen, f"{name:<10} {member.described}")
        for text in member.resolved:
            _line(screen, f"{'':<10} in real steps: {text}")
        _line(screen, f"{'':<10} layout: {member.layout}")
    screen.print()
    screen.print(_table(plan.rows))
    screen.print()
    carried = ", windows carried over" if h.carry else ""
    if h.last:
        carried += f", ended by num_steps in epoch {h.last[0]}"
    _line(
        screen,
        f"plan       {_count(h.epochs, 'epoch')} x {h.batches:,} batches / accum_grad {h.accum_grad} = "
        f"{_count(h.windows, 'window')}{carried}, {_count(plan.samples, 'sample')} per window",
    )
    for line in rhythm(plan.members) if len(plan.members) > 1 else ():
        _line(screen, line)
    for name, member in plan.members.items():
        if member.curve:
            _line(screen, f"{name:<10} {_count(member.updates, 'update')}, lr {_milestones(member)}")
            for text in member.moves:
                _line(screen, f"{'':<10} {text}")
            if curve:
                for line in text_curve(member.curve):
                    _line(screen, "           " + line)
        elif member.own_step_size:
            _line(
                screen,
                f"{name:<10} {_count(member.updates, 'update')}, at a step size of the optimizer's own",
            )
    for note in plan.notes:
        _line(screen, f"note       {note}")


def show_lr_changes(screen: Screen, lr_changes: Sequence[LrChange]) -> None:
    """The learning rate before and after a checkpoint, where the run goes on differently."""
    for joint in lr_changes:
        points = [*joint.old, *joint.new]
        for line in text_curve(points):
            _line(screen, "           " + line)
        at = min(_WIDTH, len(points)) * len(joint.old) // len(points)
        _line(screen, f"           {'^'.rjust(max(at, 1))} here it goes on")
        _line(screen, f"joint      {joint}")


def rhythm(members: Mapping[str, MemberPlan]) -> list[str]:
    """Which OptimScheduler does what in which batch, and which of them share a backward.

    One line for each: `.` idle, `+` its gradient grows, `U` its weights move after that.
    """
    period = math.lcm(*(m.accum_grad * m.step_per_update for m in members.values()))
    shown = min(period, _BATCHES)
    lines = [
        "rhythm     batches 1 to " + (f"{shown}, then the same again" if shown == period else f"{shown}")
    ]
    for name, member in members.items():
        clock = Clock(Cadence(accum_grad=member.accum_grad, step_per_update=member.step_per_update))
        beats = [clock.beat(batch) for batch in range(1, shown + 1)]
        signs = "".join("U" if b.completes else "+" if b.active else "." for b in beats)
        lines.append(f"  {name:<20} {signs}   loss {member.loss!r}")
    lines.append("           U: its weights move, +: its gradient grows, .: idle, no backward")
    losses = defaultdict(list)
    for name, member in members.items():
        losses[member.loss].append(name)
    for loss, sharing in losses.items():
        if len(sharing) > 1:
            lines.append(f"backward   one of {loss!r} for {' and '.join(sharing)}")
    for names in dict.fromkeys(member.together for member in members.values() if member.together):
        lines.append(f"clipping   one norm over {' and '.join(names)}")
    return lines


def text_curve(points: Sequence[tuple[int, float]], width: int = _WIDTH, height: int = 6) -> list[str]:
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

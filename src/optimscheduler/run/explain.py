"""The plan of a run as text: who owns what, how many updates, the curve of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console as Screen
from rich.markup import escape
from rich.table import Table

from optimscheduler.run.config import RunConfig
from optimscheduler.run.plan import MemberPlan, Plan, Row

__all__ = ["show_config", "show_plan", "text_curve"]

_BLOCKS = " ▁▂▃▄▅▆▇█"


def show_config(screen: Screen, config: RunConfig, precision: str) -> None:
    """The configuration in short."""
    train, data = config.train_cfg, config.data_cfg
    model = ", ".join(f"{key}={value}" for key, value in train.model.conf.items())
    clip = "no clipping" if config.grad_clip is None else f"clip {config.grad_clip:g}"
    _line(screen, f"model      {train.model.type}({model})")
    _line(screen, f"data       {data.train.type}, {data.batch_size} per batch")
    _line(
        screen,
        f"training   {config.num_epochs} epochs, accum_grad {config.accum_grad}, {clip}, seed {config.seed}",
    )
    _line(screen, f"precision  {precision}")


def show_plan(screen: Screen, plan: Plan, *, curve: bool) -> None:
    """The plan; `curve` draws the learning rate."""
    h = plan.horizon
    for name, member in plan.members.items():
        _line(screen, f"{name:<10} {member.described}")
    screen.print(_table(plan.rows))
    carried = ", windows carried over" if h.carry else ""
    _line(
        screen,
        f"plan       {h.epochs} epochs x {h.batches} batches / {h.accum_grad} = {h.windows} windows{carried}",
    )
    for name, member in plan.members.items():
        if member.curve:
            _line(screen, f"{name:<10} {member.updates} updates, lr {_milestones(member)}")
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
    columns = [points[i * (len(points) - 1) // max(width - 1, 1)][1] for i in range(width)]
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
    for heading in ("tensors", "parameters", "lr", "weight decay"):
        table.add_column(heading, justify="right")
    for row in rows:
        lr = "" if row.lr is None else f"{row.lr:g}"
        decay = "" if row.weight_decay is None else f"{row.weight_decay:g}"
        table.add_row(
            escape(row.owner), escape(row.group), str(row.tensors), f"{row.parameters:,}", lr, decay
        )
    return table


def _line(screen: Screen, text: str) -> None:
    screen.print(escape(text), highlight=False, soft_wrap=True)

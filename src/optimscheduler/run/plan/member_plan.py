"""What one OptimScheduler of a run will do: how many updates, at which learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from optimscheduler.api.optim_scheduler import OptimScheduler
from optimscheduler.errors import ConfigError
from optimscheduler.lookup import reason
from optimscheduler.run.config.schema import NO_HOST
from optimscheduler.run.plan.duration import Horizon
from optimscheduler.schedules import Run

__all__ = ["MemberPlan", "batches_per_window", "plan_of_member"]

_POINTS = 2000  # a longer curve is sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPlan:
    """What one OptimScheduler will do.

    Attributes:
        described: its repr.
        resolved: its schedules, in real steps, where they have lengths that depend on the run.
        moves: what else moves, from its first value to its last.
        run: how long the run is, in its own windows.
        layout: where its parameters lie.
        loss: name of what it optimises.
        accum_grad: batches per window.
        step_per_update: every how many windows it is active.
        horizon: of the run, in its own windows.
        updates: windows in which it is active.
        curve: (real step, learning rate) of those, sampled where there are many; the ends and the peak
            are there.
        listens: the learning rate follows a metric as well; the curve is that without one.
        rate: the learning rate of a real step, whether it is active or not.
        own_step_size: there is no learning rate, because the optimizer sets its own; the curve is empty.
        together: names of those that it is clipped together with, its own among them.
    """

    described: str
    resolved: tuple[str, ...]
    moves: tuple[str, ...]
    run: Run
    layout: str
    loss: str
    accum_grad: int
    step_per_update: int
    horizon: Horizon
    updates: int
    curve: tuple[tuple[int, float], ...]
    rate: Callable[[int], float] = field(compare=False)
    listens: bool = False
    own_step_size: bool = False
    together: tuple[str, ...] = ()

    @property
    def peak(self) -> tuple[int, float]:
        """Where the learning rate is highest first."""
        return _highest(self.curve)

    @property
    def still_rises(self) -> bool:
        """Whether the highest learning rate is that of the last update, and not of the first."""
        return bool(self.curve) and self.peak == self.curve[-1] and self.curve[0][1] < self.peak[1]


def batches_per_window(optim: OptimScheduler, where: str) -> int:
    """Batches per window, which a run must know."""
    if isinstance(optim.accum_grad, int):
        return optim.accum_grad
    raise ConfigError(f"train_cfg.optim_sches{where}.conf.accum_grad: {NO_HOST}")


def plan_of_member(
    where: str, optim: OptimScheduler, horizon: Horizon, *, samples: int, tokens: int | None
) -> MemberPlan:
    """The plan of one OptimScheduler, whose schedules get real steps for lengths.

    Args:
        where: its place under `optim_sches`, for messages: `""` or `".name"`.
        optim: a trial of it, not used afterwards.
        horizon: of the run, in its own windows.
        samples: items per batch, over all ranks.
        tokens: the same in tokens, where that is known.

    Raises:
        ConfigError: a schedule does not fit the run, with the place.
    """
    run = Run(
        steps=horizon.windows,
        steps_per_epoch=horizon.windows_per_epoch,
        samples_per_step=samples * horizon.accum_grad,
        tokens_per_step=None if tokens is None else tokens * horizon.accum_grad,
    )
    described, written = repr(optim), _schedules_of(optim)
    with _placed(where):
        optim.resolve(run)

    own_step_size = optim.member.values.sets_own

    def learning_rate(real_step: int) -> float:
        if own_step_size:
            return math.nan
        with _placed(where, "" if optim.schedule is None else "schedule: "):
            return optim.ft_factor * _planned_lr(optim, real_step, horizon.epoch_of(real_step))

    active = range(optim.step_per_update, horizon.windows + 1, optim.step_per_update)
    with _placed(where):
        moves = tuple(_moves(optim, active))
    return MemberPlan(
        described=described,
        resolved=tuple(now for was, now in zip(written, _schedules_of(optim), strict=True) if was != now),
        moves=moves,
        run=run,
        layout=str(optim.member.gradients),
        loss=optim.member.loss,
        accum_grad=horizon.accum_grad,
        step_per_update=optim.step_per_update,
        horizon=horizon,
        updates=len(active),
        curve=() if own_step_size else _curve(active, learning_rate),
        rate=learning_rate,
        listens=optim.schedule is not None and optim.schedule.listener is not None,
        own_step_size=own_step_size,
        together=optim.together,
    )


@contextmanager
def _placed(where: str, what: str = "") -> Iterator[None]:
    """What is wrong with a curve is told with its place."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"train_cfg.optim_sches{where}: {what}{error}") from error


def _planned_lr(optim: OptimScheduler, real_step: int, epoch: int) -> float:
    """The learning rate of a real step, before `ft_factor`, from whatever class the user has written."""
    call = f"{type(optim).__name__}.update_lr(real_step={real_step}, epoch_num={epoch})"
    try:
        lr = float(optim.update_lr(real_step=real_step, epoch_num=epoch))
    except ConfigError:
        raise
    except Exception as error:  # whatever somebody's class does
        raise ConfigError(f"{call} failed: {reason(error)}") from error
    if not math.isfinite(lr) or lr < 0:
        raise ConfigError(f"{call} returned {lr!r}; a learning rate is a finite number >= 0")
    return lr


def _moves(optim: OptimScheduler, steps: range) -> Iterator[str]:
    """A line for each number of a group that a schedule of its own moves."""
    for driven in optim.member.values.driven if steps else ():
        factor = optim.ft_factor if driven.place == "lr" else 1.0
        first, last = (factor * driven.value(step) for step in (steps[0], steps[-1]))
        label = optim.owned.groups[driven.group].label
        yield f"{driven.place} of '{label}': {first:.3g} at {steps[0]}, {last:.3g} at {steps[-1]}"


def _schedules_of(optim: OptimScheduler) -> list[str]:
    driven = optim.member.values.driven
    return [repr(optim.schedule), *(f"{d.place} of group {d.group}: {d.schedule!r}" for d in driven)]


def _curve(steps: range, learning_rate: Callable[[int], float]) -> tuple[tuple[int, float], ...]:
    """Points of the curve: all where they are few, otherwise evenly spaced ones, the ends and the peak."""
    every = max(1, len(steps) // _POINTS)
    curve = {step: learning_rate(step) for step in sorted({*steps[::every], *steps[-1:]})}
    while every > 1:  # look between the neighbours of the highest point, at as many points each time
        around = steps.index(_highest(curve.items())[0])
        near = steps[max(around - every, 0) : around + every]
        every = max(1, len(near) // (2 * _POINTS))
        step, lr = _highest([(step, learning_rate(step)) for step in near[::every]])
        curve[step] = lr
    return tuple(sorted(curve.items()))


def _highest(points: Iterable[tuple[int, float]]) -> tuple[int, float]:
    """The first of the highest points."""
    return max(points, key=lambda point: (point[1], -point[0]))

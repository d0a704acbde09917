"""What a run will do, worked out before it does it: who owns which parameters, how many updates, which lr."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from optimscheduler.build import build_optim_sches
from optimscheduler.errors import ConfigError, OptimSchedulerError
from optimscheduler.lookup import reason
from optimscheduler.optim_scheduler import OptimScheduler
from optimscheduler.optim_scheduler_dict import OptimSchedulerDict
from optimscheduler.parameters import canonical
from optimscheduler.run.config import NO_HOST, RunConfig
from optimscheduler.run.horizon import Horizon, accumulation
from optimscheduler.run.parts import build_model
from optimscheduler.run.places import with_place
from optimscheduler.schedules import Run

__all__ = ["MemberPlan", "Plan", "Row", "build_members", "make_plan", "plan_of"]

_POINTS = 2000  # a longer curve is sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table of who owns what."""

    owner: str
    group: str
    tensors: int
    parameters: int
    lr: float | None
    weight_decay: float | None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole of it.

    Attributes:
        horizon: in windows of the OptimScheduler that has the shortest.
        accum_grad: batches per window, where an OptimScheduler says nothing else.
        samples: items behind such a window, over all ranks.
        rows: who owns what.
        members: by name.
        notes: lines for people.
    """

    horizon: Horizon
    accum_grad: int
    samples: int
    rows: tuple[Row, ...]
    members: dict[str, MemberPlan]
    notes: tuple[str, ...]


def build_members(
    config: RunConfig, model: nn.Module, accum_grad: int, *, distributed: bool = False
) -> OptimSchedulerDict:
    """The OptimSchedulers of a configuration.

    Raises:
        ConfigError: with the place; see `build_optim_sches`.
    """
    try:
        shared = config.experiment(accum_grad) | {"distributed": distributed}
        return build_optim_sches(model, config.train_cfg.optim_sches, **shared)
    except OptimSchedulerError as error:
        raise type(error)(with_place(f"train_cfg.{error}", RunConfig, config.plain())) from error


def make_plan(config: RunConfig, batches: int, *, ranks: int = 1, tokens_per_item: object = None) -> Plan:
    """Work out what a run would do, with a model and OptimSchedulers that are thrown away afterwards.

    Args:
        config: checked.
        batches: how many the training data give per epoch.
        ranks: how many take part.
        tokens_per_item: what the training data say, for `tokens_per_update`.

    Raises:
        ConfigError: something in the configuration cannot be built.
    """
    notes: list[str] = []
    if config.keep_best and config.data_cfg.valid is None:
        raise ConfigError(
            "keep_best: without data_cfg.valid there is nothing to compare checkpoints by; write 0, or give "
            "held-out data"
        )
    accum_grad = accumulation(config, ranks, tokens_per_item)
    try:
        with torch.device("meta"):
            model, optim_sches = _trial(config, accum_grad)
    except Exception as error:  # whatever it is: what is wrong with the configuration fails on the CPU again
        model, optim_sches = _trial(config, accum_grad)
        cause = error.__cause__ or error
        told = (str(cause) or type(cause).__name__).splitlines()[0]
        notes.append(f"built on the CPU, because the model cannot be built on the meta device: {told:.100}")
    alone = bool({"type", "conf"} & set(config.train_cfg.optim_sches))
    places = {name: "" if alone else f".{name}" for name in optim_sches}
    sizes = {name: _batches_of(optim, places[name]) for name, optim in optim_sches.items()}
    horizon = Horizon.of(config, batches, set(sizes.values()))
    samples = config.data_cfg.batch_size * ranks  # per batch
    tokens = samples * tokens_per_item if isinstance(tokens_per_item, int) else None
    members = {
        name: _member_plan(
            places[name], optim, replace(horizon, accum_grad=sizes[name]), samples=samples, tokens=tokens
        )
        for name, optim in optim_sches.items()
    }
    notes += _notes(members, horizon, validates=config.data_cfg.valid is not None)
    return Plan(
        horizon=horizon,
        accum_grad=accum_grad,
        samples=accum_grad * config.data_cfg.batch_size * ranks,
        rows=tuple(_rows(model, optim_sches)),
        members=members,
        notes=tuple(notes),
    )


def plan_of(config: RunConfig, items: int, ranks: int, tokens_per_item: object) -> Plan:
    """The plan of a run with so many training items and ranks, as that of a checkpoint."""
    batches = math.ceil(items / (config.data_cfg.batch_size * ranks))
    return make_plan(config, batches, ranks=ranks, tokens_per_item=tokens_per_item)


def _trial(config: RunConfig, accum_grad: int) -> tuple[nn.Module, OptimSchedulerDict]:
    """Model and OptimSchedulers on torch's current default device."""
    model = build_model(config.train_cfg.model)
    return model, build_members(config, model, accum_grad)


def _batches_of(optim: OptimScheduler, where: str) -> int:
    """Batches per window, which a run must know."""
    if isinstance(optim.accum_grad, int):
        return optim.accum_grad
    raise ConfigError(f"train_cfg.optim_sches{where}.conf.accum_grad: {NO_HOST}")


def _member_plan(
    where: str, optim: OptimScheduler, horizon: Horizon, *, samples: int, tokens: int | None
) -> MemberPlan:
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


def _rows(model: nn.Module, optim_sches: OptimSchedulerDict) -> list[Row]:
    rows: list[Row] = []
    left = {canonical(name): parameter for name, parameter in model.named_parameters()}
    frozen = {name: left.pop(name) for name, parameter in list(left.items()) if not parameter.requires_grad}
    for owner, optim in optim_sches.items():
        for described, group in zip(optim.owned.groups, optim.optimizer.param_groups, strict=True):
            owned = [left.pop(name) for name in described.parameters if name in left]
            rows.append(_row(owner, described.label, owned, group["lr"], group.get("weight_decay")))
    for owner, rest in {"nobody: will not train": left, "frozen": frozen}.items():
        if rest:
            rows.append(
                _row(
                    owner,
                    ", ".join(list(rest)[:3]) + ("" if len(rest) <= 3 else ", ..."),
                    list(rest.values()),
                )
            )
    return rows


def _row(
    owner: str,
    group: str,
    owned: Sequence[nn.Parameter],
    lr: float | None = None,
    weight_decay: float | None = None,
) -> Row:
    count = sum(p.numel() for p in owned)
    return Row(
        owner=owner, group=group, tensors=len(owned), parameters=count, lr=lr, weight_decay=weight_decay
    )


def _notes(members: dict[str, MemberPlan], horizon: Horizon, *, validates: bool) -> list[str]:
    notes = []
    for size, name in {member.accum_grad: name for name, member in members.items()}.items():
        short = (horizon.epochs if horizon.carry else 1) * horizon.batches % size
        if short:
            whose = "the run" if horizon.carry else "each epoch"
            of = f" of {name}" if len({member.accum_grad for member in members.values()}) > 1 else ""
            notes.append(f"the last window{of} of {whose} has {short} of {size} batches")
    if horizon.dropped:
        notes.append(f"{horizon.dropped} batches of each epoch are left out, because they fill no window")
    for name, member in members.items():
        if not member.updates:
            notes.append(f"{name} makes no update: the run has fewer windows than its step_per_update")
        if member.still_rises:
            notes.append(
                f"{name}: the learning rate still rises at the end; is the warm-up longer than the run?"
            )
        if member.listens:
            notes.append(
                f"{name}: the learning rate follows the held-out loss too; shown is what it is without it"
                if validates
                else f"{name}: the learning rate follows the held-out loss, and data_cfg.valid names no data"
            )
    return notes

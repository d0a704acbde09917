"""What a run will do, worked out before it does it: who owns which parameters, how many updates, which lr."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from optimscheduler.api.optim_scheduler_dict import OptimSchedulerDict
from optimscheduler.build import build_optim_sches
from optimscheduler.errors import ConfigError, OptimSchedulerError
from optimscheduler.run.config.instantiate import build_model
from optimscheduler.run.config.places import with_place
from optimscheduler.run.config.schema import RunConfig
from optimscheduler.run.plan.duration import Horizon, accumulation
from optimscheduler.run.plan.member_plan import MemberPlan, batches_per_window, plan_of_member
from optimscheduler.run.plan.ownership import Row, owners_table

__all__ = ["Plan", "build_members", "make_plan", "plan_of"]


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
    if config.keep_best and config.data_cfg.valid is None:
        raise ConfigError(
            "keep_best: without data_cfg.valid there is nothing to compare checkpoints by; write 0, or give "
            "held-out data"
        )
    accum_grad = accumulation(config, ranks, tokens_per_item)
    model, optim_sches, notes = _trial(config, accum_grad)
    alone = bool({"type", "conf"} & set(config.train_cfg.optim_sches))
    places = {name: "" if alone else f".{name}" for name in optim_sches}
    sizes = {name: batches_per_window(optim, places[name]) for name, optim in optim_sches.items()}
    horizon = Horizon.of(config, batches, set(sizes.values()))
    samples = config.data_cfg.batch_size * ranks  # per batch
    tokens = samples * tokens_per_item if isinstance(tokens_per_item, int) else None
    members = {
        name: plan_of_member(
            places[name], optim, replace(horizon, accum_grad=sizes[name]), samples=samples, tokens=tokens
        )
        for name, optim in optim_sches.items()
    }
    notes += _notes(members, horizon, validates=config.data_cfg.valid is not None)
    return Plan(
        horizon=horizon,
        accum_grad=accum_grad,
        samples=accum_grad * config.data_cfg.batch_size * ranks,
        rows=tuple(owners_table(model, optim_sches)),
        members=members,
        notes=tuple(notes),
    )


def plan_of(config: RunConfig, items: int, ranks: int, tokens_per_item: object) -> Plan:
    """The plan of a run with so many training items and ranks, as that of a checkpoint."""
    batches = math.ceil(items / (config.data_cfg.batch_size * ranks))
    return make_plan(config, batches, ranks=ranks, tokens_per_item=tokens_per_item)


def _trial(config: RunConfig, accum_grad: int) -> tuple[nn.Module, OptimSchedulerDict, list[str]]:
    """Model and OptimSchedulers, on the meta device if that can be, and a note if not."""
    try:
        with torch.device("meta"):
            return *_built(config, accum_grad), []
    except Exception as error:  # whatever it is: what is wrong with the configuration fails on the CPU again
        built = _built(config, accum_grad)
        cause = error.__cause__ or error
        told = (str(cause) or type(cause).__name__).splitlines()[0]
        return *built, [
            f"built on the CPU, because the model cannot be built on the meta device: {told:.100}"
        ]


def _built(config: RunConfig, accum_grad: int) -> tuple[nn.Module, OptimSchedulerDict]:
    """Model and OptimSchedulers on torch's current default device."""
    model = build_model(config.train_cfg.model)
    return model, build_members(config, model, accum_grad)


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

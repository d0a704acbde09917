"""What a run will do, worked out before it does it: who owns which parameters, how many updates, which lr."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from optimscheduler.build import build_optim_sches
from optimscheduler.errors import ConfigError
from optimscheduler.lookup import class_at, construct
from optimscheduler.optim_scheduler import OptimScheduler
from optimscheduler.optim_scheduler_dict import OptimSchedulerDict
from optimscheduler.parameters import canonical
from optimscheduler.run.config import ClassConfig, RunConfig

__all__ = ["Horizon", "MemberPlan", "Plan", "Row", "build_members", "build_model", "make_plan"]

_POINTS = 2000  # a longer curve is sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """How long a run is.

    Attributes:
        epochs: passes through the data.
        batches: per epoch, those that are run.
        accum_grad: batches per window.
        carry: windows go on from one epoch into the next.
    """

    epochs: int
    batches: int
    accum_grad: int
    carry: bool

    @classmethod
    def of(cls, config: RunConfig, batches: int) -> Horizon:
        """The horizon of a configuration whose data give so many batches per epoch.

        Raises:
            ConfigError: `drop` leaves nothing.
        """
        if config.partial_window == "drop":
            batches -= batches % config.accum_grad
            if not batches:
                raise ConfigError(
                    "partial_window: drop leaves no batch, because an epoch has fewer "
                    f"than accum_grad={config.accum_grad}"
                )
        return cls(
            epochs=config.num_epochs,
            batches=batches,
            accum_grad=config.accum_grad,
            carry=config.partial_window == "carry",
        )

    @property
    def windows(self) -> int:
        """Windows of the whole run, the last one maybe short."""
        if self.carry:
            return -(-self.epochs * self.batches // self.accum_grad)
        return self.epochs * -(-self.batches // self.accum_grad)

    def epoch_of(self, real_step: int) -> int:
        """The epoch in which a window is closed."""
        if self.carry:
            return min(-(-real_step * self.accum_grad // self.batches), self.epochs)
        return (real_step - 1) // -(-self.batches // self.accum_grad) + 1

    def ends_window(self, epoch: int, batch: int) -> bool:
        """Whether a batch of an epoch (both from 1) must end its window, though that may not be full."""
        return batch == self.batches and (not self.carry or epoch == self.epochs)


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
        updates: windows in which it is active.
        curve: (real step, learning rate) of those, sampled where there are many; the ends are there.
    """

    described: str
    updates: int
    curve: tuple[tuple[int, float], ...]

    @property
    def peak(self) -> tuple[int, float]:
        """Where the learning rate is highest first."""
        return max(self.curve, key=lambda point: point[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole of it; `notes` are lines for people."""

    horizon: Horizon
    rows: tuple[Row, ...]
    members: dict[str, MemberPlan]
    notes: tuple[str, ...]


def build_model(described: ClassConfig, device: torch.device | str) -> nn.Module:
    """The model that a configuration names, on the device.

    Raises:
        ConfigError: the class is none, or refuses its arguments.
    """
    found: type[nn.Module] = class_at(described.type, nn.Module, "train_cfg.model.type")
    with torch.device(device):
        model: nn.Module = construct(found, described.conf, "train_cfg.model.conf")
    return model


def build_members(config: RunConfig, model: nn.Module) -> OptimSchedulerDict:
    """The OptimSchedulers of a configuration.

    Raises:
        ConfigError: with the place; see `build_optim_sches`.
    """
    return build_optim_sches(model, config.train_cfg.optim_sches, **config.experiment())


def make_plan(config: RunConfig, batches: int) -> Plan:
    """Work out what a run would do, with a model and OptimSchedulers that are thrown away afterwards.

    Args:
        config: checked.
        batches: how many the training data give per epoch.

    Raises:
        ConfigError: something in the configuration cannot be built.
    """
    notes: list[str] = []
    try:
        model = build_model(config.train_cfg.model, "meta")
    except Exception as error:  # whatever it is: what is wrong with the configuration fails on the CPU again
        notes.append(
            f"the model cannot be built on the meta device ({str(error).splitlines()[0]:.80}), so on the CPU"
        )
        model = build_model(config.train_cfg.model, "cpu")
    optim_sches = build_members(config, model)
    horizon = Horizon.of(config, batches)
    members = {name: _member_plan(optim, horizon) for name, optim in optim_sches.items()}
    notes += _notes(members, horizon)
    return Plan(horizon=horizon, rows=tuple(_rows(model, optim_sches)), members=members, notes=tuple(notes))


def _member_plan(optim: OptimScheduler, horizon: Horizon) -> MemberPlan:
    active = range(optim.step_per_update, horizon.windows + 1, optim.step_per_update)
    every = max(1, len(active) // _POINTS)
    steps = sorted({*active[::every], *active[-1:]})
    curve = [
        (s, optim.ft_factor * optim.update_lr(real_step=s, epoch_num=horizon.epoch_of(s))) for s in steps
    ]
    return MemberPlan(described=repr(optim), updates=len(active), curve=tuple(curve))


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


def _notes(members: dict[str, MemberPlan], horizon: Horizon) -> list[str]:
    notes = []
    short = horizon.batches % horizon.accum_grad
    if short and not horizon.carry:
        notes.append(f"the last window of each epoch has {short} of {horizon.accum_grad} batches")
    for name, member in members.items():
        if not member.updates:
            notes.append(f"{name} makes no update: the run has fewer windows than its step_per_update")
        elif (
            len(member.curve) > 1
            and member.peak[0] == member.curve[-1][0]
            and member.curve[0][1] < member.peak[1]
        ):
            notes.append(
                f"{name}: the learning rate still rises at the end; is the warm-up longer than the run?"
            )
    return notes

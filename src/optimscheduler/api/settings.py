"""What an OptimScheduler was asked to be, as one checked value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from optimscheduler.checks import boolean, number, one_of
from optimscheduler.errors import ConfigError
from optimscheduler.parameters.selection import read_selector
from optimscheduler.plain_config import plain
from optimscheduler.schedules import Constant, FeedbackSchedule, Schedule
from optimscheduler.schedules.base import checked_schedule
from optimscheduler.schedules.grammar import read_schedule
from optimscheduler.update.clip import clip_for
from optimscheduler.written import (
    AccumGrad,
    GradNormType,
    Layout,
    LrClock,
    Names,
    OptimType,
    ParamGroups,
    UseAmp,
    WrittenClip,
    WrittenGuard,
    WrittenSchedule,
    WrittenSchedules,
)

__all__ = ["Settings", "read_all"]

_OF_THIS_RUN: Final = ("distributed", "max_skips", "forensics", "check_ranks", "layout", "lr_hook")
"""What a checkpoint does not say: it changes no result."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Settings:
    """The arguments of an OptimScheduler, without its model; schedules are read.

    Attributes:
        sche_conf: the arguments of a subclass's `sche_init`. Any: its own.
        lr_hook: the `update_lr` of a subclass that computes the learning rate, for people; None is no such.

    The others are those of the constructor. Parameters and optimizer are checked where they are found.

    Raises:
        ConfigError: a setting is out of range.
    """

    optim_type: OptimType
    optim_conf: Mapping[str, Any] | None  # Any: the optimizer's own
    distributed: bool = False
    optim_loss: str | None = None
    updated_modules: Names | None = None
    step_per_update: int = 1
    use_amp: UseAmp = True
    accum_grad: AccumGrad = 1
    ft_factor: float = 1.0
    grad_clip: WrittenClip | None = 1.0
    grad_norm_type: GradNormType = 2.0
    schedule: WrittenSchedule | None = None
    schedules: WrittenSchedules | None = None
    param_groups: ParamGroups | None = None
    exclude: Names = ()
    guard: WrittenGuard | None = None
    lr_clock: LrClock = "window"
    max_skips: int = 25
    forensics: bool = False
    check_ranks: bool = False
    layout: Layout = "auto"
    sche_conf: Mapping[str, Any] = field(default_factory=dict)
    lr_hook: str | None = None

    def __post_init__(self) -> None:
        for key in ("distributed", "forensics", "check_ranks"):
            boolean(key, getattr(self, key))
        _check_names(self.optim_loss, self.updated_modules, self.exclude)
        one_of("lr_clock", self.lr_clock, ["window", "applied"])
        number("ft_factor", self.ft_factor, above=0)
        if self.updated_modules is not None:
            object.__setattr__(self, "updated_modules", _listed(self.updated_modules))
        object.__setattr__(self, "exclude", _listed(self.exclude))
        object.__setattr__(self, "schedule", self._read_schedule())
        object.__setattr__(self, "schedules", read_all("schedules", self.schedules))

    def _read_schedule(self) -> object:
        if self.schedule is None:
            return None if self.lr_hook else Constant()
        if self.lr_hook:
            raise ConfigError(
                f"schedule: {self.lr_hook.partition('.')[0]} computes its own learning rate in update_lr; "
                "leave schedule out, or use OptimScheduler"
            )
        return read_schedule(self.schedule, "schedule")

    @property
    def loss(self) -> str:
        """Name of the loss."""
        return "loss" if self.optim_loss is None else self.optim_loss

    @property
    def driver(self) -> str | None:
        """What drives the learning rate of all groups, for people; None where it stays."""
        return self.lr_hook or (None if type(self.schedule) is Constant else repr(self.schedule))

    @property
    def listener(self) -> FeedbackSchedule[Any] | None:
        """The schedule that listens to a metric, if there is one."""
        return self.schedule.listener if isinstance(self.schedule, Schedule | FeedbackSchedule) else None

    def plain(self, of_optimizer: Mapping[str, Any]) -> dict[str, Any]:
        """What a checkpoint says of them, as YAML would hold it.

        Args:
            of_optimizer: `optim_type`, `optim_conf` and what parameters it has, see `Chosen.config`.
        """
        clip = self.grad_clip
        if isinstance(clip, Mapping):
            clip = clip_for(clip, self.grad_norm_type).written
        told = {
            **of_optimizer,
            "optim_loss": self.optim_loss,
            "step_per_update": self.step_per_update,
            "use_amp": self.use_amp,
            "accum_grad": self.accum_grad,
            "ft_factor": self.ft_factor,
            "grad_clip": clip,
            "grad_norm_type": self.grad_norm_type,
            "schedule": self.schedule,
            **({"schedules": self.schedules} if self.schedules else {}),
            "guard": self.guard,
            "lr_clock": self.lr_clock,
            **self.sche_conf,
        }
        config: dict[str, Any] = plain(told)
        return config

    def described_by(self, config: Mapping[str, Any]) -> Settings:
        """What a checkpoint's configuration describes; what that does not say is as it is here.

        Args:
            config: from `plain`, of a run of the same class.

        Raises:
            ConfigError: a setting is out of range.
        """
        told = {key: value for key, value in config.items() if key != "clip_together"}  # that is the dict's
        names = {f.name for f in fields(self)} - set(_OF_THIS_RUN)
        own = {key: told.pop(key) for key in list(told) if key in names}
        return Settings(**{key: getattr(self, key) for key in _OF_THIS_RUN}, **own, sche_conf=told)


def read_all(where: str, schedules: Mapping[str, object] | None) -> dict[str, Schedule]:
    """The schedules of numbers of the optimizer's groups, none of which may listen to a metric."""
    if schedules is not None and not isinstance(schedules, Mapping):
        raise ConfigError(
            f"{where} must be a mapping like {{'weight_decay': 'Linear(steps=100)'}}, got {schedules!r:.80}"
        )
    read = {place: read_schedule(text, f"{where}: {place}") for place, text in (schedules or {}).items()}
    return {place: checked_schedule(f"{where}: {place}", found) for place, found in read.items()}


def _check_names(optim_loss: object, updated_modules: Names | None, exclude: Names) -> None:
    if not (optim_loss is None or (isinstance(optim_loss, str) and optim_loss)):
        raise ConfigError(f"optim_loss must be the name of one loss, got {optim_loss!r:.80}")
    for key, names in {"updated_modules": updated_modules, "exclude": exclude}.items():
        if names is None and key == "updated_modules":
            continue
        for each in _listed(names) if isinstance(names, str | Mapping | Sequence) else [names]:
            read_selector(key, each)


def _listed(names: Names) -> list[object]:
    """One selector is a list of one."""
    return [names] if isinstance(names, str | Mapping) else list(names)

"""Write the learning rate, and whatever else moves, into the optimizer's groups, each from its own base."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from torch.optim import Optimizer

from optimscheduler.checks import number
from optimscheduler.errors import ConfigError, nearest
from optimscheduler.schedules import Run, Schedule

__all__ = ["Driven", "Values", "driven_by"]

_PLACE: Final = re.compile(r"(\w+)(?:\[(\d+)\])?")
_IMPLEMENTATION: Final = ("params", "param_names", "foreach", "fused", "capturable", "differentiable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """One number of one group that a schedule moves.

    Args:
        group: number of the group.
        place: `"weight_decay"`, or `"betas[0]"` for one of several numbers.
        base: what the schedule multiplies.
        schedule: its factors.
    """

    group: int
    place: str
    base: float
    schedule: Schedule

    def value(self, step: int) -> float:
        """The number at a real step.

        Raises:
            ConfigError: it is one of the betas, and not below 1.
        """
        value = self.base * self.schedule(step)
        below = 1.0 if self.place.startswith("betas") else float("inf")
        return number(f"schedules: {self.place} at s = {step}", value, least=0, below=below)


class Values:
    """The learning rate of every group, and the other numbers that schedules move.

        lr_g = ft_factor * lr * base_g / base
        lr_g = ft_factor * base_g * schedule_g(s)         where the group has a schedule of its own
        value = base value * schedule(s)                  all others

    Args:
        optimizer: freshly built, so that its groups hold their base values.
        base_lr: the base value, `optim_conf["lr"]`, > 0.
        ft_factor: a constant factor for fine-tuning.
        driven: what else moves; see `driven_by`.
    """

    def __init__(
        self, optimizer: Optimizer, base_lr: float, ft_factor: float, driven: Sequence[Driven] = ()
    ) -> None:
        self._optimizer = optimizer
        self._ratios = [group["lr"] / base_lr for group in optimizer.param_groups]
        self._written = False
        self.driven = list(driven)
        self.base_lr = base_lr
        self.ft_factor = ft_factor

    @property
    def lr(self) -> float:
        """What the first group holds; before the first update the base value."""
        return float(self._optimizer.param_groups[0]["lr"]) if self._written else self.base_lr

    def write(self, lr: float, step: int) -> None:
        """Write the values of a real step.

        Args:
            lr: that of a group with the base value, before `ft_factor`.
            step: for the other schedules.

        Raises:
            ConfigError: groups were added to the optimizer, or a value is out of range.
        """
        groups = self._optimizer.param_groups
        if len(groups) != len(self._ratios):
            raise ConfigError(
                f"the optimizer has {len(groups)} parameter groups and was built with {len(self._ratios)}: "
                "parameters that are added later have no owner. Freeze them instead, and unfreeze them "
                "later, or build a new OptimScheduler"
            )
        self._written = True
        for group, ratio in zip(groups, self._ratios, strict=True):
            group["lr"] = self.ft_factor * lr * ratio
        for driven in self.driven:
            factor = self.ft_factor if driven.place == "lr" else 1.0
            _put(groups[driven.group], driven.place, factor * driven.value(step))

    def resolve(self, run: Run) -> None:
        """Put real steps in the places of lengths that depend on the run."""
        self.driven = [replace(driven, schedule=driven.schedule.resolved(run)) for driven in self.driven]

    def loaded(self) -> None:
        """The groups hold the learning rates of a saved run."""
        self._written = True


def driven_by(
    optimizer: Optimizer, schedules: Mapping[str, Schedule], of_groups: Sequence[Mapping[str, Schedule]]
) -> list[Driven]:
    """What schedules move besides the learning rate of all groups.

    Args:
        optimizer: freshly built.
        schedules: place -> schedule, for all groups.
        of_groups: the same for each group alone; they win, and may move its `lr`.

    Raises:
        ConfigError: the optimizer has no such number, or it is 0 in every group.
    """
    groups = optimizer.param_groups
    known = sorted({place for group in groups for place in _places(group)} - {"lr"})
    if "lr" in schedules:
        raise ConfigError("schedules: 'lr' is what `schedule` moves; a group's own is in its rule")
    found: list[Driven] = []
    for i, (group, own) in enumerate(zip(groups, of_groups, strict=True)):
        for place, schedule in {**schedules, **own}.items():
            if place not in ("lr", *known):
                raise ConfigError(
                    f"schedules: {type(optimizer).__name__} has no number {place!r:.80}. "
                    f"{nearest(place, known)}"
                )
            base = number(f"schedules: {place}, whose base is {_get(group, place)!r},", _get(group, place))
            found.append(Driven(group=i, place=place, base=base, schedule=schedule))
    for place in {driven.place for driven in found}:
        if not any(driven.base for driven in found if driven.place == place):
            raise ConfigError(
                f"schedules: {place} is 0 in every group, and a schedule multiplies it; give it a value in "
                "optim_conf"
            )
    return found


def _places(group: Mapping[str, Any]) -> Iterator[str]:
    for key, value in group.items():
        if key in _IMPLEMENTATION:
            continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield key
        elif isinstance(value, tuple | list):
            yield from (f"{key}[{i}]" for i, part in enumerate(value) if isinstance(part, int | float))


def _parts(place: str) -> tuple[str, int | None]:
    match = _PLACE.fullmatch(place)
    assert match is not None  # `driven_by` has found it
    return match[1], None if match[2] is None else int(match[2])


def _get(group: Mapping[str, Any], place: str) -> object:
    key, i = _parts(place)
    return group[key] if i is None else group[key][i]


def _put(group: dict[str, Any], place: str, value: float) -> None:
    key, i = _parts(place)
    group[key] = value if i is None else (*group[key][:i], value, *group[key][i + 1 :])

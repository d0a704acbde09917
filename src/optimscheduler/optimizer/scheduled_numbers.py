"""What schedules move besides the learning rate of all groups: other numbers, and groups of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch.optim import Optimizer

from optimscheduler.checks import number
from optimscheduler.errors import ConfigError, nearest
from optimscheduler.optimizer.last_written import number_at
from optimscheduler.schedules import Schedule

__all__ = ["ScheduledNumber", "scheduled_numbers"]

_IMPLEMENTATION: Final = ("params", "param_names", "foreach", "fused", "capturable", "differentiable")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledNumber:
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


def scheduled_numbers(
    optimizer: Optimizer, schedules: Mapping[str, Schedule], of_groups: Sequence[Mapping[str, Schedule]]
) -> list[ScheduledNumber]:
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
    found: list[ScheduledNumber] = []
    for i, (group, own) in enumerate(zip(groups, of_groups, strict=True)):
        for place, schedule in {**schedules, **own}.items():
            if place not in ("lr", *known):
                raise ConfigError(
                    f"schedules: {type(optimizer).__name__} has no number {place!r:.80}. "
                    f"{nearest(place, known)}"
                )
            held = number_at(group, place)
            base = number(f"schedules: {place}, whose base is {held!r},", held)
            found.append(ScheduledNumber(group=i, place=place, base=base, schedule=schedule))
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

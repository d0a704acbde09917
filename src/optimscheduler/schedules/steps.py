"""Curves of pieces: constant between the steps that are named, or straight lines between points."""

# ruff: noqa: D102 -- what __call__ returns is the formula of its class, and base.py explains its argument

from __future__ import annotations

from bisect import bisect_right
from collections import abc
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from optimscheduler.checks import number
from optimscheduler.errors import ConfigError
from optimscheduler.schedules.base import Schedule
from optimscheduler.schedules.curves import power_of
from optimscheduler.schedules.lengths import Length, length

__all__ = ["MultiStep", "Piecewise", "Step"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Step(Schedule):
    """Multiply by the same number every so many steps.

        factor = gamma^floor((s - 1) / every)

    Args:
        every: real steps from one multiplication to the next, >= 1.
        gamma: what the factor is multiplied by, > 0.

    Raises:
        ConfigError: an argument is out of range; or, when called, the factor is too large for a float.

    >>> [Step(every=2, gamma=0.5)(s) for s in (1, 2, 3, 4, 5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    every: int
    gamma: float

    LENGTHS: ClassVar[tuple[str, ...]] = ("every",)

    def __post_init__(self) -> None:
        self._keep(
            every=length("Step: every", self.every, least=1),
            gamma=number("Step: gamma", self.gamma, above=0),
        )

    def __call__(self, step: int) -> float:
        return power_of(self, step, self.gamma, (step - 1) // self.every)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MultiStep(Schedule):
    """Multiply by the same number after given steps.

        factor = gamma^(number of m in `at` with s - 1 >= m)

    Args:
        at: real steps that are done when the factor is multiplied, >= 1 each, rising; as texts (`"50%"`)
            they may depend on the run.
        gamma: what the factor is multiplied by, > 0.

    Raises:
        ConfigError: an argument is out of range; or, when called, the factor is too large for a float.

    >>> [MultiStep(at=[2, 3], gamma=0.5)(s) for s in (1, 2, 3, 4)]
    [1.0, 1.0, 0.5, 0.25]
    """

    at: abc.Sequence[int]
    gamma: float

    def __post_init__(self) -> None:
        if not isinstance(self.at, list | tuple):
            raise ConfigError(f"MultiStep: at must be a list of real steps, got {self.at!r:.80}")
        at = tuple(length(f"MultiStep: at[{i}]", m, least=1) for i, m in enumerate(self.at))
        _rising("MultiStep: at", at)
        self._keep(at=at, gamma=number("MultiStep: gamma", self.gamma, above=0))

    def __call__(self, step: int) -> float:
        return power_of(self, step, self.gamma, bisect_right(self.at, step - 1))


@dataclass(frozen=True, slots=True, repr=False)
class Piecewise(Schedule):
    """Straight lines between given points, and constant outside.

        factor = f_i + (f_j - f_i) (s - s_i) / (s_j - s_i)           s_i <= s <= s_j, neighbours

    Args:
        points: list of (real step, factor), steps rising, >= 1, factors >= 0; may be given without its name.
            As texts (`"50%"`) the steps may depend on the run.

    Raises:
        ConfigError: an argument is out of range.

    >>> [Piecewise([(2, 1), (4, 0)])(s) for s in (1, 2, 3, 4, 5)]
    [1.0, 1.0, 0.5, 0.0, 0.0]
    """

    points: abc.Sequence[tuple[int, float]]

    def __post_init__(self) -> None:
        if not isinstance(self.points, list | tuple) or not self.points:
            raise ConfigError(
                f"Piecewise: points must be a list of (real step, factor), got {self.points!r:.80}"
            )
        points = tuple(_point(f"Piecewise: points[{i}]", point) for i, point in enumerate(self.points))
        _rising("Piecewise: points", [step for step, _ in points])
        self._keep(points=points)

    def __call__(self, step: int) -> float:
        after = bisect_right(self.points, step, key=lambda point: point[0])
        if after in (0, len(self.points)):
            return self.points[max(after - 1, 0)][1]
        (first, low), (second, high) = self.points[after - 1 : after + 1]
        return low + (high - low) * ((step - first) / (second - first))


def _point(where: str, value: object) -> tuple[int, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(f"{where} must be a pair (real step, factor), got {value!r:.80}")
    step, factor = value
    return length(f"{where}: real step", step, least=1), number(f"{where}: factor", factor, least=0)


def _rising(where: str, steps: abc.Sequence[int]) -> None:
    known = [step for step in steps if not isinstance(step, Length)]
    if any(b <= a for a, b in pairwise(known)):
        raise ConfigError(f"{where}: the real steps must rise, got {known}")

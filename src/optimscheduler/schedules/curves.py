"""The plain curves: a formula of the step, and nothing inside.

Throughout, `s` = 1, 2, 3, ... is the number of the real step and `p = clip((s - 1) / steps, 0, 1)` the share
of the curve that lies behind it. So the first step of a curve has the curve's first value.
"""

# ruff: noqa: D102 -- what __call__ returns is the formula of its class, and base.py explains its argument

from __future__ import annotations

import math
from collections import abc
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final

from optimscheduler.checks import boolean, number, one_of
from optimscheduler.errors import ConfigError
from optimscheduler.schedules.base import Schedule, checked_factor
from optimscheduler.schedules.lengths import length

__all__ = ["CoolDown", "Cosine", "Exponential", "Linear", "Polynomial", "power_of"]

_FALLS: Final[abc.Mapping[str, abc.Callable[[float], float]]] = MappingProxyType(
    {
        "linear": lambda p: 1 - p,
        "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,
        "sqrt": lambda p: 1 - math.sqrt(p),
        "exponential": lambda p: 1 - p,  # linear in the logarithm
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Linear(Schedule):
    """Go from one factor to another at an even pace, then stay.

        factor = start + (end - start) p

    Args:
        steps: length in real steps, >= 1.
        start: factor at s = 1, >= 0.
        end: factor from s = steps + 1 on, >= 0.

    Raises:
        ConfigError: an argument is out of range.

    >>> [Linear(steps=4)(s) for s in (1, 2, 3, 4, 5, 6)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    steps: int
    start: float = 1.0
    end: float = 0.0

    LENGTHS: ClassVar[tuple[str, ...]] = ("steps",)

    def __post_init__(self) -> None:
        self._keep(
            steps=length("Linear: steps", self.steps, least=1),
            start=number("Linear: start", self.start, least=0),
            end=number("Linear: end", self.end, least=0),
        )

    def __call__(self, step: int) -> float:
        p = _share(step, self.steps)
        return self.end if p == 1.0 else self.start + (self.end - self.start) * p  # ends exactly


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Cosine(Schedule):
    """Fall along half a cosine: slowly at both ends, fast between; then stay.

        factor = floor + (1 - floor) (1 + cos(pi p)) / 2

    Args:
        steps: length in real steps, >= 1.
        floor: factor from s = steps + 1 on, in [0, 1].

    Raises:
        ConfigError: an argument is out of range.

    Reference: Loshchilov and Hutter 2017, SGDR, arXiv:1608.03983 (one cycle, no restart).

    >>> [round(Cosine(steps=4, floor=0.1)(s), 6) for s in (1, 3, 5, 6)]
    [1.0, 0.55, 0.1, 0.1]
    """

    steps: int
    floor: float = 0.0

    LENGTHS: ClassVar[tuple[str, ...]] = ("steps",)

    def __post_init__(self) -> None:
        self._keep(
            steps=length("Cosine: steps", self.steps, least=1),
            floor=number("Cosine: floor", self.floor, least=0, most=1),
        )

    def __call__(self, step: int) -> float:
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * _share(step, self.steps))) / 2


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Exponential(Schedule):
    """Multiply by the same number again and again, smoothly or in stairs.

        factor = gamma^((s - 1) / every)           staircase: gamma^floor((s - 1) / every)

    Args:
        gamma: what the factor is multiplied by, > 0.
        every: real steps that one multiplication takes, >= 1.
        staircase: multiply at once at the end of every `every` steps, instead of a little in each.

    Raises:
        ConfigError: an argument is out of range; or, when called, the factor is too large for a float.

    >>> [Exponential(gamma=0.25, every=2)(s) for s in (1, 2, 3)]
    [1.0, 0.5, 0.25]
    >>> [Exponential(gamma=0.25, every=2, staircase=True)(s) for s in (1, 2, 3)]
    [1.0, 1.0, 0.25]
    """

    gamma: float
    every: int = 1
    staircase: bool = False

    LENGTHS: ClassVar[tuple[str, ...]] = ("every",)

    def __post_init__(self) -> None:
        self._keep(
            gamma=number("Exponential: gamma", self.gamma, above=0),
            every=length("Exponential: every", self.every, least=1),
            staircase=boolean("Exponential: staircase", self.staircase),
        )

    def __call__(self, step: int) -> float:
        exponent = (step - 1) // self.every if self.staircase else (step - 1) / self.every
        return power_of(self, step, self.gamma, exponent)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Polynomial(Schedule):
    """Fall along a power of what is left, then stay.

        factor = floor + (1 - floor) (1 - p)^power

    Args:
        steps: length in real steps, >= 1.
        power: > 0; 1 is a straight line, 2 falls fast at first, 0.5 falls fast at the end.
        floor: factor from s = steps + 1 on, in [0, 1].

    Raises:
        ConfigError: an argument is out of range.

    Reference: Chen et al. 2017, DeepLab, arXiv:1606.00915 ("poly", power 0.9).

    >>> [Polynomial(steps=4, power=2)(s) for s in (1, 2, 3, 4, 5, 6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """

    steps: int
    power: float
    floor: float = 0.0

    LENGTHS: ClassVar[tuple[str, ...]] = ("steps",)

    def __post_init__(self) -> None:
        self._keep(
            steps=length("Polynomial: steps", self.steps, least=1),
            power=number("Polynomial: power", self.power, above=0),
            floor=number("Polynomial: floor", self.floor, least=0, most=1),
        )

    def __call__(self, step: int) -> float:
        return self.floor + (1 - self.floor) * math.pow(1 - _share(step, self.steps), self.power)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CoolDown(Schedule):
    """Fall at the end of a training, in one of the shapes that are used for it; then stay.

        linear       factor = floor + (1 - floor) (1 - p)
        cosine       factor = floor + (1 - floor) (1 + cos(pi p)) / 2
        sqrt         factor = floor + (1 - floor) (1 - sqrt(p))      fast at first
        exponential  factor = floor^p                                the same ratio in every step

    Args:
        steps: length in real steps, >= 1.
        floor: factor from s = steps + 1 on, in [0, 1]; above 0 for `exponential`.
        shape: `linear`, `cosine`, `sqrt` or `exponential`.

    Raises:
        ConfigError: an argument is out of range.

    Reference: Haegele et al. 2024, arXiv:2405.18392, section 3 (1 - sqrt and others, compared).

    >>> [CoolDown(steps=4, shape="sqrt")(s) for s in (1, 2, 5, 6)]
    [1.0, 0.5, 0.0, 0.0]
    """

    steps: int
    floor: float = 0.0
    shape: str = "linear"

    LENGTHS: ClassVar[tuple[str, ...]] = ("steps",)

    def __post_init__(self) -> None:
        self._keep(
            steps=length("CoolDown: steps", self.steps, least=1),
            floor=number("CoolDown: floor", self.floor, least=0, most=1),
            shape=one_of("CoolDown: shape", self.shape, _FALLS),
        )
        if self.shape == "exponential" and not self.floor:
            raise ConfigError("CoolDown: shape 'exponential' needs floor > 0, got 0.0")

    def __call__(self, step: int) -> float:
        p = _share(step, self.steps)
        if self.shape == "exponential":
            return math.pow(self.floor, p)
        return self.floor + (1 - self.floor) * _FALLS[self.shape](p)


def power_of(schedule: Schedule, step: int, gamma: float, exponent: float) -> float:
    """Gamma ** exponent; too large a factor is refused in the words of the schedule."""
    try:
        return math.pow(gamma, exponent)
    except OverflowError:
        return checked_factor(repr(schedule), step, math.inf)  # refuses it, and says where


def _share(step: int, steps: int) -> float:
    """The p of the formulas."""
    return min(max((step - 1) / steps, 0.0), 1.0)

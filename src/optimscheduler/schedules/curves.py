"""The plain curves: a formula of the step, and nothing inside.

Throughout, `s` = 1, 2, 3, ... is the number of the real step and `p = clip((s - 1) / steps, 0, 1)` the share
of the curve that lies behind it. So the first step of a curve has the curve's first value.
"""

# ruff: noqa: D102 -- what __call__ returns is the formula of its class, and base.py explains its argument

from __future__ import annotations

import math
from dataclasses import dataclass, field

from optimscheduler.checks import boolean, number, whole
from optimscheduler.schedules.base import Schedule, checked_factor

__all__ = ["Constant", "Cosine", "Exponential", "InverseSqrt", "Linear", "Noam"]

_UNIT = "real steps"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Constant(Schedule):
    """Keep a value.

        factor = value

    Args:
        value: the factor, >= 0; may be given without its name.

    Raises:
        ConfigError: an argument is out of range.

    >>> Constant(0.5)(1), Constant()(1000)
    (0.5, 1.0)
    """

    value: float = field(default=1.0, kw_only=False)

    def __post_init__(self) -> None:
        self._keep(value=number("Constant: value", self.value, least=0))

    def __call__(self, step: int) -> float:  # noqa: ARG002 -- the same at every step
        return self.value


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

    def __post_init__(self) -> None:
        self._keep(
            steps=whole("Linear: steps", self.steps, least=1, unit=_UNIT),
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

    def __post_init__(self) -> None:
        self._keep(
            steps=whole("Cosine: steps", self.steps, least=1, unit=_UNIT),
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

    def __post_init__(self) -> None:
        self._keep(
            gamma=number("Exponential: gamma", self.gamma, above=0),
            every=whole("Exponential: every", self.every, least=1, unit=_UNIT),
            staircase=boolean("Exponential: staircase", self.staircase),
        )

    def __call__(self, step: int) -> float:
        exponent = (step - 1) // self.every if self.staircase else (step - 1) / self.every
        try:
            return math.pow(self.gamma, exponent)
        except OverflowError:
            return checked_factor(repr(self), step, math.inf)  # refuses it, and says where


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class InverseSqrt(Schedule):
    """Fall with the square root of the step, for ever and ever more slowly.

        factor = sqrt(shift / (s - 1 + shift))

    Args:
        shift: real steps until the factor is sqrt(1/2), > 0; after a `Warmup`, usually its steps.

    Raises:
        ConfigError: an argument is out of range.

    Reference: Vaswani et al. 2017, arXiv:1706.03762; without a model width: Raffel et al. 2020, T5,
    arXiv:1910.10683.

    >>> [InverseSqrt(shift=1)(s) for s in (1, 4, 16)]
    [1.0, 0.5, 0.25]
    """

    shift: float

    def __post_init__(self) -> None:
        self._keep(shift=number("InverseSqrt: shift", self.shift, above=0))

    def __call__(self, step: int) -> float:
        return math.sqrt(self.shift / (step - 1 + self.shift))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Noam(Schedule):
    """Rise linearly to the peak at the end of the warm-up, then fall with the square root of the step.

        factor = sqrt(w) min(s^-1/2, s w^-3/2) = min(sqrt(w / s), s / w)        w = warmup_steps

    The second form is the one computed: it is exactly 1 at s = w. (The form with the width of the model is an
    absolute learning rate instead of a factor.)

    Args:
        warmup_steps: real steps to the peak, >= 1.

    Raises:
        ConfigError: an argument is out of range.

    Reference: Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762, section 5.3.

    >>> [Noam(warmup_steps=4)(s) for s in (1, 2, 3, 4, 16)]
    [0.25, 0.5, 0.75, 1.0, 0.5]
    """

    warmup_steps: int

    def __post_init__(self) -> None:
        self._keep(warmup_steps=whole("Noam: warmup_steps", self.warmup_steps, least=1, unit=_UNIT))

    def __call__(self, step: int) -> float:
        return min(math.sqrt(self.warmup_steps / step), step / self.warmup_steps)


def _share(step: int, steps: int) -> float:
    """The p of the formulas."""
    return min(max((step - 1) / steps, 0.0), 1.0)

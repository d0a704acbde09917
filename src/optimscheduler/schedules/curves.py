"""The plain curves: a formula of the step, and nothing inside.

Throughout, `s` = 1, 2, 3, ... is the number of the real step and `p = clip((s - 1) / steps, 0, 1)` the share
of the curve that lies behind it. So the first step of a curve has the curve's first value.
"""

# ruff: noqa: D102 -- what __call__ returns is the formula of its class, and base.py explains its argument

from __future__ import annotations

import math
from bisect import bisect_right
from collections import abc
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import ClassVar, Final

from optimscheduler.checks import boolean, number, one_of
from optimscheduler.errors import ConfigError
from optimscheduler.schedules.base import Schedule, checked_factor
from optimscheduler.schedules.lengths import Length, length

__all__ = [
    "CoolDown",
    "Cosine",
    "Exponential",
    "InverseSqrt",
    "Linear",
    "MultiStep",
    "Noam",
    "Piecewise",
    "Polynomial",
    "PowerDecay",
    "Step",
]

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
        return _power(self, step, self.gamma, exponent)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class InverseSqrt(Schedule):
    """Fall with the square root of the step, for ever and ever more slowly.

        factor = sqrt(shift / (s - 1 + shift))

    Args:
        shift: real steps until the factor is sqrt(1/2), > 0; after a `Warmup`, usually its steps.

    Raises:
        ConfigError: an argument is out of range.

    Reference: Vaswani et al. 2017, arXiv:1706.03762; without the width of the model: Raffel et al. 2020, T5,
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

    The second form is the one computed: it is exactly 1 at s = w. The paper's form, with the width of the
    model, is an absolute learning rate and no factor; `Noamlr` has it.

    Args:
        warmup_steps: real steps to the peak, >= 1.

    Raises:
        ConfigError: an argument is out of range.

    Reference: Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762, section 5.3.

    >>> [Noam(warmup_steps=4)(s) for s in (1, 2, 3, 4, 16)]
    [0.25, 0.5, 0.75, 1.0, 0.5]
    """

    warmup_steps: int

    LENGTHS: ClassVar[tuple[str, ...]] = ("warmup_steps",)

    def __post_init__(self) -> None:
        self._keep(warmup_steps=length("Noam: warmup_steps", self.warmup_steps, least=1))

    def __call__(self, step: int) -> float:
        return min(math.sqrt(self.warmup_steps / step), step / self.warmup_steps)


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
        return _power(self, step, self.gamma, (step - 1) // self.every)


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
        return _power(self, step, self.gamma, bisect_right(self.at, step - 1))


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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PowerDecay(Schedule):
    """Hold, then fall with a power of the step, for ever and ever more slowly.

        factor = min(1, (s / hold)^-exponent)

    Args:
        hold: real steps before the fall begins, >= 1.
        exponent: > 0; the larger, the faster.

    Raises:
        ConfigError: an argument is out of range.

    Reference: Shen et al. 2024, Power Scheduler, arXiv:2408.13359 (exponent 0.51).

    >>> [PowerDecay(hold=2, exponent=1)(s) for s in (1, 2, 4, 8)]
    [1.0, 1.0, 0.5, 0.25]
    """

    hold: int
    exponent: float

    LENGTHS: ClassVar[tuple[str, ...]] = ("hold",)

    def __post_init__(self) -> None:
        self._keep(
            hold=length("PowerDecay: hold", self.hold, least=1),
            exponent=number("PowerDecay: exponent", self.exponent, above=0),
        )

    def __call__(self, step: int) -> float:
        return min(1.0, math.pow(step / self.hold, -self.exponent)) if step > self.hold else 1.0


def _power(schedule: Schedule, step: int, gamma: float, exponent: float) -> float:
    try:
        return math.pow(gamma, exponent)
    except OverflowError:
        return checked_factor(repr(schedule), step, math.inf)  # refuses it, and says where


def _point(where: str, value: object) -> tuple[int, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(f"{where} must be a pair (real step, factor), got {value!r:.80}")
    step, factor = value
    return length(f"{where}: real step", step, least=1), number(f"{where}: factor", factor, least=0)


def _rising(where: str, steps: abc.Sequence[int]) -> None:
    known = [step for step in steps if not isinstance(step, Length)]
    if any(b <= a for a, b in pairwise(known)):
        raise ConfigError(f"{where}: the real steps must rise, got {known}")


def _share(step: int, steps: int) -> float:
    """The p of the formulas."""
    return min(max((step - 1) / steps, 0.0), 1.0)

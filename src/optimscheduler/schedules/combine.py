"""Curves made of curves: ramps, sequences, limits, other clocks; and any function of the step."""

# ruff: noqa: D102 -- what __call__ returns is the formula of its class, and base.py explains its argument

from __future__ import annotations

import math
from collections import abc  # its Sequence and ours are two things
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

from optimscheduler.checks import number, one_of, whole
from optimscheduler.errors import ConfigError
from optimscheduler.schedules.base import FeedbackSchedule, Schedule, checked_schedule
from optimscheduler.schedules.lengths import UNIT, Length, Run, in_steps, is_rest, length

__all__ = ["Clamp", "PerEpoch", "Sequence", "Shift", "Warmup"]

_RAMPS: Final[abc.Mapping[str, abc.Callable[[float], float]]] = MappingProxyType(
    {
        "linear": lambda p: p,
        "cosine": lambda p: (1 - math.cos(math.pi * p)) / 2,
        "exponential": lambda p: p,  # linear in the logarithm
        "power": lambda p: p * p,
        "one_minus_sqrt": lambda p: 1 - math.sqrt(1 - p),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Warmup(Schedule):
    """Rise from a small factor to the beginning of another curve, then follow that curve.

        s < steps:   start + (then(1) - start) ramp(p)          p = s / steps
        s >= steps:  then(s - steps + 1)                        so then(1) is reached at s = steps

    The p of a warm-up is s / steps, so that already the first step moves the weights. The shapes:

        linear          ramp(p) = p
        cosine          ramp(p) = (1 - cos(pi p)) / 2           flat at both ends
        power           ramp(p) = p^2                           slow at first, a polynomial of power 2
        one_minus_sqrt  ramp(p) = 1 - sqrt(1 - p)               slow at first, steep at the end
        exponential     start^(1 - p) then(1)^p instead: the same ratio in every step

    Args:
        steps: length in real steps, >= 0; with 0 (and with 1) it is `then` from the first step on.
        then: the curve to follow; it may be one that listens to a metric, and then the ramp leads to what it
            has become.
        start: factor at s = 0, the step before the first, >= 0.
        shape: `linear`, `cosine`, `exponential`, `power` or `one_minus_sqrt`.

    Raises:
        ConfigError: an argument is out of range; or `exponential` does not start or end above 0.

    Reference: Goyal et al. 2017, arXiv:1706.02677 (linear); Haegele et al. 2024, arXiv:2405.18392
    (1 - sqrt, there as a cool-down).

    >>> from optimscheduler.schedules import Constant
    >>> [Warmup(steps=4, then=Constant())(s) for s in (1, 2, 3, 4, 5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    steps: int
    then: Schedule | FeedbackSchedule[Any]
    start: float = 0.0
    shape: str = "linear"

    LENGTHS: ClassVar[tuple[str, ...]] = ("steps",)

    def __post_init__(self) -> None:
        then = self.then
        if not isinstance(then, FeedbackSchedule):
            then = checked_schedule("Warmup: then", then)
        self._keep(
            steps=length("Warmup: steps", self.steps, least=0),
            then=then,
            start=number("Warmup: start", self.start, least=0),
            shape=one_of("Warmup: shape", self.shape, _RAMPS),
        )
        if self.shape == "exponential" and then.known and min(self.start, self._peak()) <= 0:
            ends = f"start={self.start!r} and then(1)={self._peak()!r}"
            raise ConfigError(f"Warmup: shape 'exponential' needs start > 0 and then(1) > 0, got {ends}")

    def __call__(self, step: int) -> float:
        return self.value_at(step, self.listener and self.listener.start())

    def _peak(self) -> float:
        return self.then.value_at(1, self.listener and self.listener.start())

    @property
    def listener(self) -> FeedbackSchedule[Any] | None:
        """What in it listens to a metric."""
        return self.then.listener

    def value_at(self, step: int, state: Any) -> float:
        """The factor at a real step, after what `then` has heard."""
        if step >= self.steps:
            return self.then.value_at(step - max(self.steps, 1) + 1, state)
        peak, p = self.then.value_at(1, state), _RAMPS[self.shape](step / self.steps)
        if self.shape == "exponential":
            return math.pow(self.start, 1 - p) * math.pow(peak, p)
        return self.start + (peak - self.start) * p

    def _fit(self, run: Run, left: int) -> Self:
        steps = in_steps("Warmup: steps", self.steps, run, left)
        return replace(self, steps=steps, then=self.then._fit(run, left - steps))


@dataclass(frozen=True, slots=True, repr=False)
class Sequence(Schedule):
    """Follow one curve after the other, each from its own beginning.

        factor = schedule_i(s - (steps before it))

    Every part has its own step 1. Nothing is smoothed: where one curve ends elsewhere than the next begins,
    the factor jumps.

    Args:
        phases: list of (schedule, steps); steps in real steps, >= 0, where 0 leaves the phase out. May be
            given without its name.
        last: the curve after all phases; may be given without its name.

    Raises:
        ConfigError: an argument is of another form.

    >>> from optimscheduler.schedules import Constant, Linear
    >>> hold_and_fall = Sequence([(Constant(), 2)], Linear(steps=2))
    >>> [hold_and_fall(s) for s in (1, 2, 3, 4, 5, 6)]
    [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    """

    phases: abc.Sequence[tuple[Schedule, int]]
    last: Schedule

    def _fit(self, run: Run, left: int) -> Self:
        given = [steps for _, steps in self.phases]
        for i in sorted(range(len(given)), key=lambda i: is_rest(given[i])):
            others = sum(n for n in given if not isinstance(n, Length))
            given[i] = in_steps(f"Sequence: phases[{i}]: steps", given[i], run, left - others)
        phases = [(phase._fit(run, n), n) for (phase, _), n in zip(self.phases, given, strict=True)]
        return replace(self, phases=phases, last=self.last._fit(run, left - sum(given)))

    def __post_init__(self) -> None:
        if not isinstance(self.phases, list | tuple):
            raise ConfigError(
                f"Sequence: phases must be a list of (schedule, steps), got {self.phases!r:.80}"
            )
        self._keep(
            phases=tuple(_phase(f"Sequence: phases[{i}]", phase) for i, phase in enumerate(self.phases)),
            last=checked_schedule("Sequence: last", self.last),
        )

    def __call__(self, step: int) -> float:
        for schedule, steps in self.phases:
            if step <= steps:
                return schedule(step)
            step -= steps
        return self.last(step)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Clamp(Schedule):
    """Keep a curve between two limits.

        factor = min(max(inner(s), low), high)

    Args:
        inner: the curve.
        low: smallest factor, >= 0.
        high: largest factor, >= low.

    Raises:
        ConfigError: an argument is out of range.

    >>> from optimscheduler.schedules.curves import Linear
    >>> [Clamp(inner=Linear(steps=4), low=0.3, high=0.9)(s) for s in (1, 3, 5)]
    [0.9, 0.5, 0.3]
    """

    inner: Schedule
    low: float
    high: float

    def __post_init__(self) -> None:
        low = number("Clamp: low", self.low, least=0)
        self._keep(
            inner=checked_schedule("Clamp: inner", self.inner),
            low=low,
            high=number("Clamp: high (not below low)", self.high, least=low),
        )

    def __call__(self, step: int) -> float:
        return min(max(self.inner(step), self.low), self.high)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PerEpoch(Schedule):
    """Let a curve take one step per epoch instead of one per real step.

        factor = inner(1 + floor((s - 1) / steps_per_epoch))

    Args:
        inner: the curve, over epochs 1, 2, 3, ...
        steps_per_epoch: real steps in an epoch, >= 1; `"1ep"` takes it from the run.

    Raises:
        ConfigError: an argument is out of range.

    >>> from optimscheduler.schedules.curves import Exponential
    >>> by_epoch = PerEpoch(inner=Exponential(gamma=0.5), steps_per_epoch=3)
    >>> [by_epoch(s) for s in (1, 2, 3, 4, 7)]
    [1.0, 1.0, 1.0, 0.5, 0.25]
    """

    inner: Schedule
    steps_per_epoch: int

    def __post_init__(self) -> None:
        steps = length("PerEpoch: steps_per_epoch", self.steps_per_epoch, least=1)
        self._keep(inner=checked_schedule("PerEpoch: inner", self.inner), steps_per_epoch=steps)

    def __call__(self, step: int) -> float:
        return self.inner(1 + (step - 1) // self.steps_per_epoch)

    def _fit(self, run: Run, left: int) -> Self:
        """Inside, real steps are epochs, and what is left of the run is counted in them."""
        every = in_steps("PerEpoch: steps_per_epoch", self.steps_per_epoch, run, left)
        epochs = Run(steps=-(-run.steps // every), steps_per_epoch=1)
        return replace(self, steps_per_epoch=every, inner=self.inner._fit(epochs, -(-left // every)))


@dataclass(frozen=True, slots=True, repr=False)
class Shift(Schedule):
    """Start a curve later or earlier than at its beginning.

        factor = inner(max(s + by, 1))

    Args:
        inner: the curve; may be given without its name.
        by: real steps to be ahead of it, or behind where negative; may be given without its name.

    Raises:
        ConfigError: an argument is of another kind.

    >>> from optimscheduler.schedules import Linear
    >>> [Shift(Linear(steps=4), 2)(s) for s in (1, 2, 3)]
    [0.5, 0.25, 0.0]
    >>> [Shift(Linear(steps=4), -2)(s) for s in (1, 2, 3, 4)]
    [1.0, 1.0, 1.0, 0.75]
    """

    inner: Schedule
    by: int

    def __post_init__(self) -> None:
        by = whole("Shift: by", self.by, unit=UNIT)
        self._keep(inner=checked_schedule("Shift: inner", self.inner), by=by)

    def __call__(self, step: int) -> float:
        return self.inner(max(step + self.by, 1))

    def _fit(self, run: Run, left: int) -> Self:
        return replace(self, inner=self.inner._fit(run, left + self.by))


def _phase(where: str, value: object) -> tuple[Schedule, int]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(f"{where} must be a pair (schedule, steps), got {value!r:.80}")
    return checked_schedule(where, value[0]), length(f"{where}: steps", value[1], least=0)

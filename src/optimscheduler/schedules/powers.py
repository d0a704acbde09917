"""Curves that fall with a power of the step number."""

# ruff: noqa: D102 -- what __call__ returns is the formula of its class, and base.py explains its argument

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from optimscheduler.checks import number
from optimscheduler.schedules.base import Schedule
from optimscheduler.schedules.lengths import length

__all__ = ["InverseSqrt", "Noam", "PowerDecay"]


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

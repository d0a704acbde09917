"""Curves that rise and fall: one cycle, restarts, triangles. Here `t = s - 1` steps lie behind."""

# ruff: noqa: D102 -- what __call__ returns is the formula of its class, and base.py explains its argument

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

from optimscheduler.checks import boolean, number, one_of, whole
from optimscheduler.errors import ConfigError
from optimscheduler.schedules.base import Schedule, checked_factor
from optimscheduler.schedules.lengths import Length, length

__all__ = ["CosineRestarts", "Cyclic", "OneCycle"]

_SHORTEST: Final = 1e-6  # real steps of a cycle: 2^63 of them are still counted in a float
_SNAP: Final = 1e-9  # cycles: t / first is rounding noise this near to a whole number


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OneCycle(Schedule):
    """Rise to the peak and fall far below the start, in one cycle; then stay.

        t = 0                     1 / div                                     t = s - 1
        t = warm steps - 1        1                                           the peak
        t = steps - 1             1 / (div final_div)                         the end

    Between them are half cosines or straight lines. With three phases the fall takes as long as the rise and
    ends where that began, at t = 2 warm steps - 2; the rest goes on to the end.

    Args:
        steps: length in real steps, >= 1.
        warm: share of it that rises, in (0, 1]; with three phases at most 0.5.
        div: peak over start, >= 1.
        final_div: start over end, >= 1.
        shape: `cosine` or `linear`.
        three_phase: fall in two parts.

    Raises:
        ConfigError: an argument is out of range.

    Reference: Smith and Topin 2018, Super-Convergence, arXiv:1708.07120; the phases are those of
    `torch.optim.lr_scheduler.OneCycleLR`.

    >>> [round(OneCycle(steps=10, warm=0.5, div=10, shape="linear")(s), 5) for s in (1, 3, 5, 10)]
    [0.1, 0.55, 1.0, 1e-05]
    """

    steps: int
    warm: float = 0.3
    div: float = 25.0
    final_div: float = 1e4
    shape: str = "cosine"
    three_phase: bool = False

    LENGTHS: ClassVar[tuple[str, ...]] = ("steps",)

    def __post_init__(self) -> None:
        three_phase = boolean("OneCycle: three_phase", self.three_phase)
        most = 0.5 if three_phase else 1.0
        self._keep(
            steps=length("OneCycle: steps", self.steps, least=1),
            warm=number("OneCycle: warm", self.warm, above=0, most=most),
            div=number("OneCycle: div", self.div, least=1),
            final_div=number("OneCycle: final_div", self.final_div, least=1),
            shape=one_of("OneCycle: shape", self.shape, ["cosine", "linear"]),
            three_phase=three_phase,
        )

    def __call__(self, step: int) -> float:
        t, top, last = min(step, self.steps) - 1, self.warm * self.steps - 1, self.steps - 1
        low = 1 / self.div
        if t <= top:
            return self._between(low, 1.0, t, 0.0, top)
        if not self.three_phase:
            return self._between(1.0, low / self.final_div, t, top, last)
        bottom = 2 * self.warm * self.steps - 2
        if t <= bottom:
            return self._between(1.0, low, t, top, bottom)
        return self._between(low, low / self.final_div, t, bottom, last)

    def _between(self, start: float, end: float, t: float, first: float, last: float) -> float:
        p = (t - first) / (last - first) if last > first else 1.0
        if self.shape == "linear":
            return start + (end - start) * p
        return end + (start - end) * (1 + math.cos(math.pi * p)) / 2


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CosineRestarts(Schedule):
    """Fall along half a cosine, jump up and fall again, in cycles that may become longer and lower.

        factor = floor + (peak_i - floor) (1 + cos(pi t_i / T_i)) / 2
        T_i = first mult^i,   peak_i = max(decay^i, floor),   t_i = s - 1 - (T_0 + ... + T_(i-1))

    Args:
        first: length of the first cycle in real steps, >= 1e-6; may be fractional.
        mult: each cycle is so many times as long as the one before, in [1, 1e6].
        cycles: how many there are, >= 1; after them it stays at the floor. None goes on for ever.
        floor: lowest factor, in [0, 1].
        decay: peak of a cycle over that of the one before, in (0, 1].

    Raises:
        ConfigError: an argument is out of range.

    Reference: Loshchilov and Hutter 2017, SGDR, arXiv:1608.03983.

    >>> [round(CosineRestarts(first=2, mult=2, decay=0.5)(s), 6) for s in (1, 2, 3, 5, 7)]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """

    first: float
    mult: float = 1.0
    cycles: int | None = None
    floor: float = 0.0
    decay: float = 1.0

    LENGTHS: ClassVar[tuple[str, ...]] = ("first",)

    def __post_init__(self) -> None:
        where = "CosineRestarts: first"
        text = isinstance(self.first, str)
        cycles = None
        if self.cycles is not None:
            cycles = whole("CosineRestarts: cycles", self.cycles, least=1)
        self._keep(
            first=length(where, self.first, least=1) if text else number(where, self.first, least=_SHORTEST),
            mult=number("CosineRestarts: mult", self.mult, least=1, most=1e6),
            cycles=cycles,
            floor=number("CosineRestarts: floor", self.floor, least=0, most=1),
            decay=number("CosineRestarts: decay", self.decay, above=0, most=1),
        )

    def __call__(self, step: int) -> float:
        cycle, p = self._place(step - 1)
        if self.cycles is not None and cycle >= self.cycles:
            return self.floor
        peak = max(math.pow(self.decay, cycle), self.floor)
        return self.floor + (peak - self.floor) * (1 + math.cos(math.pi * p)) / 2

    def _place(self, t: int) -> tuple[int, float]:
        """The cycle, from 0, and the share of it that lies behind."""
        passed = t / self.first  # in lengths of the first cycle
        if self.mult == 1.0:
            cycle = math.floor(passed + _SNAP)
            return cycle, max(passed - cycle, 0.0)
        cycle = max(int(math.log(passed * (self.mult - 1) + 1, self.mult)) - 1, 0)
        while self._begin(cycle + 1) <= passed + _SNAP:
            cycle += 1
        return cycle, max(passed - self._begin(cycle), 0.0) / math.pow(self.mult, cycle)

    def _begin(self, cycle: int) -> float:
        return (math.pow(self.mult, cycle) - 1) / (self.mult - 1)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Cyclic(Schedule):
    """Rise and fall in straight lines, over and over.

        factor = low + (1 - low) height scale,   height from 0 up to 1 in `up` steps, down to 0 in `down`

        triangular   scale = 1
        triangular2  scale = 1/2^i                 i = number of the cycle, from 0
        exp_range    scale = gamma^(s - 1)

    Args:
        up: real steps of a rise, >= 1.
        down: real steps of a fall, >= 1; None is `up`.
        low: factor at the beginning of a cycle, in [0, 1].
        mode: `triangular`, `triangular2` or `exp_range`.
        gamma: for `exp_range`, > 0.

    Raises:
        ConfigError: an argument is out of range; or, when called, the factor is too large for a float.

    Reference: Smith 2017, Cyclical Learning Rates, arXiv:1506.01186.

    >>> [Cyclic(up=2, low=0.5)(s) for s in (1, 2, 3, 4, 5)]
    [0.5, 0.75, 1.0, 0.75, 0.5]
    """

    up: int
    down: int | None = None
    low: float = 0.0
    mode: str = "triangular"
    gamma: float = 1.0

    LENGTHS: ClassVar[tuple[str, ...]] = ("up", "down")

    def __post_init__(self) -> None:
        self._keep(
            up=length("Cyclic: up", self.up, least=1),
            down=None if self.down is None else length("Cyclic: down", self.down, least=1),
            low=number("Cyclic: low", self.low, least=0, most=1),
            mode=one_of("Cyclic: mode", self.mode, ["triangular", "triangular2", "exp_range"]),
            gamma=number("Cyclic: gamma", self.gamma, above=0),
        )
        if self.mode != "exp_range" and self.gamma != 1.0:
            raise ConfigError(f"Cyclic: gamma is for mode 'exp_range', got mode {self.mode!r}")

    def __call__(self, step: int) -> float:
        down = self.up if self.down is None else self.down
        if isinstance(down, Length):
            return down + step  # refuses
        cycle, t = divmod(step - 1, self.up + down)
        height = t / self.up if t <= self.up else (self.up + down - t) / down
        return checked_factor(repr(self), step, self.low + (1 - self.low) * height * self._scale(step, cycle))

    def _scale(self, step: int, cycle: int) -> float:
        if self.mode == "triangular":
            return 1.0
        if self.mode == "triangular2":
            return math.ldexp(1.0, -cycle)
        try:
            return math.pow(self.gamma, step - 1)
        except OverflowError:
            return checked_factor(repr(self), step, math.inf)  # refuses it, and says where

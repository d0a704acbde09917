"""Names for combinations that papers and other libraries use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from optimscheduler.checks import number, one_of
from optimscheduler.errors import ConfigError
from optimscheduler.schedules.base import Constant, Product, Recipe, Schedule
from optimscheduler.schedules.combine import Sequence, Warmup
from optimscheduler.schedules.curves import CoolDown, Cosine, Linear
from optimscheduler.schedules.lengths import length

__all__ = ["InfiniteCosine", "TriStage", "WarmupStableDecay"]

_SHAPES = ("linear", "cosine", "sqrt", "exponential")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class WarmupStableDecay(Recipe):
    """Warm up, hold, cool down: the length of a run need not be known before its end.

        Warmup(warmup, start=floor, then=Sequence([(Constant(), stable)], CoolDown(decay, floor, shape)))

    The floor is reached at s = warmup + stable + decay; without a warm-up one step later.

    Args:
        warmup: real steps of the ramp, >= 0.
        stable: real steps at the peak, >= 0.
        decay: real steps of the cool-down, >= 1.
        floor: factor that the ramp starts from and the cool-down ends at, in [0, 1].
        shape: of the cool-down: `linear`, `cosine`, `sqrt` or `exponential`; see `CoolDown`.

    Raises:
        ConfigError: an argument is out of range.

    Reference: Hu et al. 2024, MiniCPM, arXiv:2404.06395; Haegele et al. 2024, arXiv:2405.18392.

    >>> wsd = WarmupStableDecay(warmup=2, stable=3, decay=2)
    >>> [wsd(s) for s in (1, 2, 5, 6, 7, 8)]
    [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    """

    warmup: int
    stable: int
    decay: int
    floor: float = 0.0
    shape: str = "linear"
    _curve: Schedule | None = field(init=False, compare=False)

    LENGTHS: ClassVar[tuple[str, ...]] = ("warmup", "stable", "decay")

    def __post_init__(self) -> None:
        if self.shape == "exponential" and self.floor == 0:
            raise ConfigError("WarmupStableDecay: shape 'exponential' needs floor > 0, got 0.0")
        self._cook(
            warmup=length("WarmupStableDecay: warmup", self.warmup, least=0),
            stable=length("WarmupStableDecay: stable", self.stable, least=0),
            decay=length("WarmupStableDecay: decay", self.decay, least=1),
            floor=number("WarmupStableDecay: floor", self.floor, least=0, most=1),
            shape=one_of("WarmupStableDecay: shape", self.shape, _SHAPES),
        )

    def _made(self) -> Schedule:
        fall = CoolDown(steps=self.decay, floor=self.floor, shape=self.shape)
        hold_and_fall = Sequence([(Constant(), self.stable)], fall)
        return Warmup(steps=self.warmup, then=hold_and_fall, start=self.floor)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TriStage(Recipe):
    """Rise linearly, hold, fall exponentially: the curve of speech recognition and of wav2vec 2.0.

        Sequence([(Linear(warmup, start, 1), warmup), (Constant(), hold)], CoolDown(decay, end, exponential))

    The end is reached at s = warmup + hold + decay + 1.

    Args:
        warmup: real steps of the rise, >= 0.
        hold: real steps at the peak, >= 0.
        decay: real steps of the fall, >= 1.
        start: factor at s = 1, >= 0.
        end: factor after the fall, in (0, 1].

    Raises:
        ConfigError: an argument is out of range.

    Reference: Park et al. 2019, SpecAugment, arXiv:1904.08779; Baevski et al. 2020, wav2vec 2.0,
    arXiv:2006.11477.

    >>> [round(TriStage(warmup=2, hold=1, decay=2)(s), 6) for s in (1, 2, 3, 4, 5, 6)]
    [0.01, 0.505, 1.0, 1.0, 0.1, 0.01]
    """

    warmup: int
    hold: int
    decay: int
    start: float = 0.01
    end: float = 0.01
    _curve: Schedule | None = field(init=False, compare=False)

    LENGTHS: ClassVar[tuple[str, ...]] = ("warmup", "hold", "decay")

    def __post_init__(self) -> None:
        self._cook(
            warmup=length("TriStage: warmup", self.warmup, least=0),
            hold=length("TriStage: hold", self.hold, least=0),
            decay=length("TriStage: decay", self.decay, least=1),
            start=number("TriStage: start", self.start, least=0),
            end=number("TriStage: end", self.end, above=0, most=1),
        )

    def _made(self) -> Schedule:
        rise = Linear(steps=max(self.warmup, 1), start=self.start, end=1.0)
        fall = CoolDown(steps=self.decay, floor=self.end, shape="exponential")
        return Sequence([(rise, self.warmup), (Constant(), self.hold)], fall)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class InfiniteCosine(Recipe):
    """Warm up, fall along a cosine to a level that may be kept for ever, cool down when training is to end.

        warm-up                        from 0 to 1
        cosine, from 1 to the level    level + (1 - level) (1 + cos(pi p)) / 2
        hold                           level
        decay                          level (floor / level)^p

    The level is reached at s = warmup + cosine, the floor at s = warmup + cosine + hold + decay; without a
    warm-up one step later.

    Args:
        warmup: real steps of the ramp, >= 0.
        cosine: real steps of the fall to the level, >= 1.
        hold: real steps at the level, >= 0.
        decay: real steps of the fall to the floor, >= 1.
        level: factor that is kept, in (0, 1].
        floor: factor at the end, in (0, level].

    Raises:
        ConfigError: an argument is out of range.

    Reference: Ibrahim et al. 2024, Simple and Scalable Strategies to Continually Pre-train Large Language
    Models, arXiv:2403.08763 (infinite learning rate schedules).

    >>> forever = InfiniteCosine(warmup=2, cosine=2, hold=3, decay=2, level=0.5, floor=0.125)
    >>> [round(forever(s), 6) for s in (1, 2, 3, 4, 7, 8, 9, 10)]
    [0.5, 1.0, 0.75, 0.5, 0.5, 0.25, 0.125, 0.125]
    """

    warmup: int
    cosine: int
    hold: int
    decay: int
    level: float = 0.5
    floor: float = 0.01
    _curve: Schedule | None = field(init=False, compare=False)

    LENGTHS: ClassVar[tuple[str, ...]] = ("warmup", "cosine", "hold", "decay")

    def __post_init__(self) -> None:
        level = number("InfiniteCosine: level", self.level, above=0, most=1)
        self._cook(
            warmup=length("InfiniteCosine: warmup", self.warmup, least=0),
            cosine=length("InfiniteCosine: cosine", self.cosine, least=1),
            hold=length("InfiniteCosine: hold", self.hold, least=0),
            decay=length("InfiniteCosine: decay", self.decay, least=1),
            level=level,
            floor=number("InfiniteCosine: floor (not above level)", self.floor, above=0, most=level),
        )

    def _made(self) -> Schedule:
        fall = CoolDown(steps=self.decay, floor=self.floor / self.level, shape="exponential")
        level = Constant(self.level)
        first = Cosine(steps=self.cosine, floor=self.level)
        last = Product(level, fall)
        return Warmup(steps=self.warmup, then=Sequence([(first, self.cosine), (level, self.hold)], last))

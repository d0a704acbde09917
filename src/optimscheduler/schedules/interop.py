"""Schedules in other people's trainers, and other people's schedules here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from optimscheduler.checks import number, one_of, whole
from optimscheduler.errors import ConfigError, nearest
from optimscheduler.schedules.base import Constant, Schedule
from optimscheduler.schedules.combine import Sequence, Warmup
from optimscheduler.schedules.curves import Cosine, Linear, Polynomial
from optimscheduler.schedules.cycles import CosineRestarts
from optimscheduler.schedules.lengths import UNIT
from optimscheduler.schedules.powers import InverseSqrt
from optimscheduler.schedules.recipes import WarmupStableDecay

__all__ = ["from_transformers", "to_lambda"]


def to_lambda(schedule: Schedule) -> Callable[[int], float]:
    """A function for `torch.optim.lr_scheduler.LambdaLR`, which counts from 0.

    Args:
        schedule: one that does not listen to a metric.

    Returns:
        t -> schedule(t + 1).

    Raises:
        ConfigError: it listens to a metric, or has lengths that depend on a run.

    >>> [to_lambda(Linear(steps=4))(t) for t in (0, 1, 2)]
    [1.0, 0.75, 0.5]
    """
    if not isinstance(schedule, Schedule) or schedule.listener:
        raise ConfigError(f"to_lambda takes a schedule that does not listen to a metric, got {schedule!r}")
    if not schedule.known:
        raise ConfigError(
            f"to_lambda: {schedule!r} has lengths that depend on the run: schedule.resolved(Run(steps=...)) "
            "puts real steps in their place"
        )

    def factor(t: int) -> float:
        return schedule(t + 1)

    return factor


def from_transformers(
    name: str, *, num_warmup_steps: int = 0, num_training_steps: int | None = None, **specific: object
) -> Schedule:
    """What `transformers.get_scheduler` makes, number for number.

    Their first update uses index 0 of their formula, which with a warm-up is a learning rate of 0; so does
    what this returns. Leave out the outer `Sequence` for a warm-up that begins above 0.

    Args:
        name: `linear`, `cosine`, `cosine_with_restarts`, `polynomial`, `constant`, `constant_with_warmup`,
            `inverse_sqrt`, `cosine_with_min_lr` or `warmup_stable_decay`.
        num_warmup_steps: updates of the ramp, >= 0.
        num_training_steps: updates of the whole run, where their schedule needs it.
        **specific: `num_cycles`, `power`, `lr_end`, `lr` (the peak, for `lr_end` and `min_lr`), `timescale`,
            `min_lr`, `min_lr_rate`, `num_stable_steps`, `num_decay_steps`, `decay_type`, `min_lr_ratio`.

    Raises:
        ConfigError: an argument is unknown, missing or out of range, or the curve is none of ours.

    >>> from_transformers("cosine", num_warmup_steps=500, num_training_steps=10000)
    Sequence([(Constant(0.0), 1)], Warmup(steps=500, then=Cosine(steps=9500)))
    >>> from_transformers("linear", num_training_steps=100)
    Linear(steps=100)
    """
    maker = _MAKERS[one_of("from_transformers: name", name, _MAKERS)]
    theirs = _Theirs(name, num_warmup_steps, num_training_steps, specific)
    made = maker(theirs)
    theirs.all_used()
    if name == "constant" or not theirs.warmup:
        return made
    curve = made if isinstance(made, WarmupStableDecay) else Warmup(steps=theirs.warmup, then=made)
    first = curve.floor if isinstance(curve, WarmupStableDecay) else 0.0
    return Sequence([(Constant(first), 1)], curve)


class _Theirs:
    """Arguments in their names, each of which must be used."""

    def __init__(self, name: str, warmup: object, total: object, specific: Mapping[str, object]) -> None:
        self.name = name
        self.warmup = whole("from_transformers: num_warmup_steps", warmup, least=0, unit=UNIT)
        self._total = total
        self._specific = specific
        self._known: set[str] = set()

    @property
    def after_warmup(self) -> int:
        """Updates that are left after the ramp, at least 1."""
        total = whole("from_transformers: num_training_steps", self._total, least=1, unit=UNIT)
        return max(total - self.warmup, 1)

    def get(self, key: str, default: object) -> object:
        """An argument of this curve's own."""
        self._known.add(key)
        value = self._specific.get(key)
        return default if value is None else value

    def number(self, key: str, default: float | None = None, *, least: float = 0) -> float:
        return number(f"from_transformers: {key}", self.get(key, default), least=least)

    def ratio(self, key: str, default: float | None = None) -> float:
        """An absolute learning rate as a share of the peak."""
        return self.number(key, default) / number("from_transformers: lr", self.get("lr", None), above=0)

    def all_used(self) -> None:
        for key in self._specific:
            if key not in self._known:
                raise ConfigError(
                    f"from_transformers: {self.name} takes no {key!r}. {nearest(key, self._known)}"
                )


def _cosine(theirs: _Theirs) -> Schedule:
    if theirs.number("num_cycles", 0.5) != 0.5:
        raise ConfigError("from_transformers: cosine with num_cycles other than 0.5 has no counterpart here")
    return Cosine(steps=theirs.after_warmup)


def _restarts(theirs: _Theirs) -> Schedule:
    cycles = whole("from_transformers: num_cycles", theirs.get("num_cycles", 1), least=1)
    return CosineRestarts(first=theirs.after_warmup / cycles, cycles=cycles)


def _polynomial(theirs: _Theirs) -> Schedule:
    floor = theirs.ratio("lr_end", 1e-7)
    return Polynomial(steps=theirs.after_warmup, power=theirs.number("power", 1.0), floor=floor)


def _inverse_sqrt(theirs: _Theirs) -> Schedule:
    return InverseSqrt(shift=theirs.number("timescale", theirs.warmup or 10_000))


def _with_floor(theirs: _Theirs) -> Schedule:
    if theirs.number("num_cycles", 0.5) != 0.5:
        raise ConfigError(
            "from_transformers: cosine_with_min_lr with num_cycles other than 0.5 has no counterpart here"
        )
    rate = theirs.get("min_lr_rate", None)
    floor = theirs.ratio("min_lr") if rate is None else theirs.number("min_lr_rate")
    return Cosine(steps=theirs.after_warmup, floor=floor)


def _stable(theirs: _Theirs) -> Schedule:
    shape = theirs.get("decay_type", "cosine")
    shape = one_of("from_transformers: decay_type", shape, ["cosine", "linear", "1-sqrt"])
    for key, only in (("warmup_type", "linear"), ("num_cycles", 0.5)):
        if (value := theirs.get(key, only)) != only:
            raise ConfigError(f"from_transformers: {key} {value!r} has no counterpart here, only {only!r}")
    decay = whole(
        "from_transformers: num_decay_steps", theirs.get("num_decay_steps", None), least=1, unit=UNIT
    )
    stable = theirs.get("num_stable_steps", None)
    if stable is None:
        stable = theirs.after_warmup - decay
    return WarmupStableDecay(
        warmup=theirs.warmup,
        stable=whole("from_transformers: num_stable_steps", stable, least=0, unit=UNIT),
        decay=decay,
        floor=theirs.number("min_lr_ratio", 0.0),
        shape="sqrt" if shape == "1-sqrt" else shape,
    )


_MAKERS: Final[Mapping[str, Callable[[_Theirs], Schedule]]] = MappingProxyType(
    {
        "constant": lambda _: Constant(),
        "constant_with_warmup": lambda _: Constant(),
        "linear": lambda theirs: Linear(steps=theirs.after_warmup),
        "cosine": _cosine,
        "cosine_with_restarts": _restarts,
        "polynomial": _polynomial,
        "inverse_sqrt": _inverse_sqrt,
        "cosine_with_min_lr": _with_floor,
        "warmup_stable_decay": _stable,
    }
)

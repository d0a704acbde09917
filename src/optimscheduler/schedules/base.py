"""What a schedule is: a value that turns the number of a real step into a factor of the base value.

A `Schedule` knows nothing but the step; a `FeedbackSchedule` also listens to a metric. Both are values: two
that print the same are equal, and what they print is what a configuration says to get them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import MISSING, fields, is_dataclass
from typing import Generic, TypeVar

from optimscheduler.checks import number
from optimscheduler.errors import ConfigError

__all__ = ["FeedbackSchedule", "Schedule", "checked_factor", "checked_schedule"]

S = TypeVar("S")


class _Written:
    """A value whose `repr` is the text that a configuration holds: `Warmup(steps=100, then=Constant())`.

    A dataclass that inherits this must be declared with `repr=False`.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        if not is_dataclass(self):
            return super().__repr__()
        arguments: list[str] = []
        left_out = False
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default is not MISSING and value == field.default:
                left_out = True  # what follows has lost its position and needs its name
            else:
                name = f"{field.name}=" if left_out or field.kw_only else ""
                arguments.append(name + _text(value))
        return f"{_name(type(self))}({', '.join(arguments)})"

    def _keep(self, **checked: object) -> None:
        """Store checked arguments in a frozen dataclass; for `__post_init__` alone."""
        for name, value in checked.items():
            object.__setattr__(self, name, value)


class Schedule(_Written, ABC):
    """A curve: real step s = 1, 2, 3, ... -> factor of the base value, finite and >= 0.

    One's own curve is a subclass; a configuration names it by its dotted path. As a dataclass declared like
    those of this package it gets equality, pickling and its `repr` for nothing:

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, slots=True, kw_only=True, repr=False)
    ... class Alternating(Schedule):
    ...     low: float = 0.5
    ...
    ...     def __call__(self, step: int) -> float:
    ...         return 1.0 if step % 2 else self.low
    >>> [Alternating(low=0.25)(s) for s in (1, 2, 3)]
    [1.0, 0.25, 1.0]
    """

    __slots__ = ()

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The factor at a real step.

        Args:
            step: number of the real step, >= 1.
        """

    def __mul__(self, other: Schedule | float) -> Schedule:
        return _product(self, other)

    def __rmul__(self, other: float) -> Schedule:
        return _product(other, self)


class FeedbackSchedule(_Written, ABC, Generic[S]):
    """A curve that also listens to a metric, and keeps what it heard in a state outside itself.

    The state is a number, or lists and dicts of numbers and strings, so that a checkpoint can hold it. The
    schedule itself stays a frozen value: `observe` returns the next state and leaves the old one alone.

    >>> class HalvedWhenWorse(FeedbackSchedule[dict[str, float]]):
    ...     def start(self) -> dict[str, float]:
    ...         return {"best": float("inf"), "factor": 1.0}
    ...
    ...     def observe(self, state: dict[str, float], metric: float) -> dict[str, float]:
    ...         halved = state["factor"] * (0.5 if metric > state["best"] else 1.0)
    ...         return {"best": min(metric, state["best"]), "factor": halved}
    ...
    ...     def __call__(self, step: int, state: dict[str, float]) -> float:
    ...         return state["factor"]
    >>> schedule = HalvedWhenWorse()
    >>> worse = schedule.observe(schedule.observe(schedule.start(), 2.0), 3.0)
    >>> schedule(7, worse)
    0.5
    """

    __slots__ = ()

    @abstractmethod
    def start(self) -> S:
        """The state before anything was heard."""

    @abstractmethod
    def observe(self, state: S, metric: float) -> S:
        """The state after `metric` was heard; `state` itself is not changed.

        Args:
            state: what `start` or the last `observe` returned.
            metric: for example a validation loss.
        """

    @abstractmethod
    def __call__(self, step: int, state: S) -> float:
        """The factor at a real step.

        Args:
            step: number of the real step, >= 1.
            state: what `start` or the last `observe` returned.
        """


def checked_schedule(where: str, value: object) -> Schedule:
    """`value`, if it can be part of a combination: a `Schedule`, and not one that listens to a metric.

    Args:
        where: class and argument, as they will stand in the message.
        value: what was given.

    Raises:
        ConfigError: it is something else; the message has the next action.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, FeedbackSchedule):
        name = type(value).__name__
        raise ConfigError(
            f"{where} cannot be {name}, which listens to a metric: a feedback schedule stands alone"
        )
    if isinstance(value, type):
        raise ConfigError(
            f"{where} must be a schedule, got the class {value.__name__}: write {value.__name__}()"
        )
    quoted = "; a schedule has brackets and no quotes: Cosine(steps=900)" if isinstance(value, str) else ""
    raise ConfigError(f"{where} must be a schedule, got {value!r}{quoted}")


def checked_factor(where: str, step: int, value: object) -> float:
    """`value`, if it can scale a base value: finite and >= 0.

    Args:
        where: the schedule, as it will stand in the message.
        step: the real step that it was computed for.
        value: what was computed.

    Raises:
        ConfigError: it is no such number.
    """
    return number(f"{where}: the factor at s = {step}", value, least=0)


def _product(*both: Schedule | float) -> Schedule:
    """What `a * b` means; a number stands for a constant curve."""
    # The combinations are built from schedules, so that file imports this one and not the other way round.
    from optimscheduler.schedules.combine import Product
    from optimscheduler.schedules.curves import Constant

    a, b = (Constant(value) if isinstance(value, int | float) else value for value in both)
    return Product(a, b)


def _name(cls: type) -> str:
    """How a configuration names a class: shortly if it is ours, by its dotted path if it is not."""
    ours = cls.__module__.rpartition(".")[0] == __package__
    return cls.__qualname__ if ours else f"{cls.__module__}.{cls.__qualname__}"


def _text(value: object, *, nested: bool = False) -> str:
    """An argument in the language of the grammar; a tuple becomes a list, and tuples in it stay tuples."""
    if isinstance(value, tuple):
        parts = ", ".join(_text(part, nested=True) for part in value)
        comma = "," if len(value) == 1 else ""
        return f"({parts}{comma})" if nested else f"[{parts}]"
    if isinstance(value, str):
        return _quoted(value)
    if hasattr(value, "__qualname__"):  # a function or a class, found again by its path
        return _quoted(f"{value.__module__}.{value.__qualname__}")
    return repr(value)


def _quoted(text: str) -> str:
    plain = text.isprintable() and '"' not in text and "\\" not in text
    return f'"{text}"' if plain else repr(text)

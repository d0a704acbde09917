"""What a schedule is: a value that turns the number of a real step into a factor of the base value.

A `Schedule` knows nothing but the step; a `FeedbackSchedule` also listens to a metric. Both are values: two
that print the same are equal, and what they print is what a configuration says to get them.

`Constant` and `Product` are here, because multiplication makes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from optimscheduler.checks import number
from optimscheduler.errors import ConfigError
from optimscheduler.schedules.lengths import Length
from optimscheduler.schedules.written import Written

__all__ = [
    "Constant",
    "FeedbackSchedule",
    "Product",
    "Recipe",
    "Schedule",
    "checked_factor",
    "checked_schedule",
]

S = TypeVar("S")


class Schedule(Written, ABC):
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

    @property
    def listener(self) -> FeedbackSchedule[Any] | None:
        """What in it listens to a metric: nothing."""
        return None

    def value_at(self, step: int, state: Any) -> float:  # noqa: ARG002 -- Any, and unused: the listener's state
        """The factor at a real step, after what the listener has heard."""
        return self(step)

    def __mul__(self, other: Schedule | float) -> Schedule:
        return _product(self, other)

    def __rmul__(self, other: float) -> Schedule:
        return _product(other, self)


class FeedbackSchedule(Written, ABC, Generic[S]):
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

    @property
    def listener(self) -> FeedbackSchedule[S]:
        """What in it listens to a metric: all of it."""
        return self

    def value_at(self, step: int, state: S) -> float:
        """The factor at a real step, after what was heard."""
        return self(step, state)


class Recipe(Schedule):
    """A name for a combination of other schedules; `_curve` holds it once all lengths are known."""

    __slots__ = ()
    _curve: Schedule | None

    @abstractmethod
    def _made(self) -> Schedule:
        """The combination, of checked arguments."""

    def _cook(self, **checked: object) -> None:
        """Store checked arguments, and make the combination if all lengths are known."""
        self._keep(**checked)
        self._keep(_curve=self._made() if self.known else None)

    @property
    def combination(self) -> Schedule | None:
        """What it stands for; None until all lengths are known."""
        return self._curve

    def __call__(self, step: int) -> float:
        """The factor at a real step."""
        if self._curve is None:
            return (
                next(v for k in self.LENGTHS if isinstance(v := getattr(self, k), Length)) + step
            )  # refuses
        return self._curve(step)


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
        """The factor at a real step."""
        return self.value


@dataclass(frozen=True, slots=True, repr=False)
class Product(Schedule):
    """Multiply two curves; also written `a * b` and `0.5 * a` in Python.

        factor = a(s) b(s)

    Args:
        a: one curve; may be given without its name.
        b: the other; may be given without its name.

    Raises:
        ConfigError: one is no schedule; or, when called, the product is too large for a float.

    >>> Product(Constant(0.5), Constant(0.5))(3)
    0.25
    >>> 0.5 * Constant(3)
    Product(Constant(0.5), Constant(3.0))
    """

    a: Schedule
    b: Schedule

    def __post_init__(self) -> None:
        self._keep(a=checked_schedule("Product: a", self.a), b=checked_schedule("Product: b", self.b))

    def __call__(self, step: int) -> float:
        """The factor at a real step."""
        return checked_factor("Product", step, self.a(step) * self.b(step))


def checked_schedule(where: str, value: object) -> Schedule:
    """`value`, if it can be part of a combination: a `Schedule`, and not one that listens to a metric.

    Args:
        where: class and argument, as they will stand in the message.
        value: what was given.

    Raises:
        ConfigError: it is something else; the message has the next action.
    """
    if isinstance(value, Schedule | FeedbackSchedule) and value.listener:
        name = type(value).__name__
        raise ConfigError(
            f"{where} cannot be {name}, which listens to a metric: a feedback schedule stands alone, or as "
            "`then` of a Warmup"
        )
    if isinstance(value, Schedule):
        return value
    if isinstance(value, type):
        raise ConfigError(
            f"{where} must be a schedule, got the class {value.__name__}: write {value.__name__}()"
        )
    quoted = "; a schedule has brackets and no quotes: Cosine(steps=900)" if isinstance(value, str) else ""
    raise ConfigError(f"{where} must be a schedule, got {value!r:.80}{quoted}")


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
    a, b = (Constant(value) if isinstance(value, int | float) else value for value in both)
    return Product(a, b)

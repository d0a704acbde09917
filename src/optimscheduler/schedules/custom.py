"""A function of the user's own as a schedule."""

# ruff: noqa: D102 -- what __call__ returns is the formula of its class, and base.py explains its argument

from __future__ import annotations

from collections import abc  # its Sequence and ours are two things
from dataclasses import dataclass
from typing import cast

from optimscheduler.errors import ConfigError
from optimscheduler.lookup import function_at, reason
from optimscheduler.schedules.base import FeedbackSchedule, Schedule, checked_factor, checked_schedule

__all__ = ["Custom"]


@dataclass(frozen=True, slots=True, repr=False)
class Custom(Schedule):
    """Take any function of the step for a curve.

        factor = fn(s)

    A function at the top of a module also prints and pickles, because it is found again by its path. A lambda
    works too, but cannot be written into a configuration, and neither can a builtin such as `abs`.

    A path comes from a configuration, so it may name only a function of `math`, or a function of one number
    that is written with `def` outside Python's own library. An object is taken as it is.

    Args:
        fn: the function, or its dotted path, `"package.module.fn"`; may be given without its name. It gets
            the number of the real step (>= 1) and returns a finite number >= 0, the same whenever asked.

    Raises:
        ConfigError: there is no such function, or it may not be named; or, when called, it failed or returned
            something else.

    >>> import math
    >>> Custom(math.sqrt)(4)
    2.0
    >>> Custom("math.sqrt") == Custom(math.sqrt), Custom(math.sqrt)
    (True, Custom("math.sqrt"))
    """

    fn: abc.Callable[[int], float] | str

    def __post_init__(self) -> None:
        fn = function_at(self.fn, "Custom: fn") if isinstance(self.fn, str) else self.fn
        if isinstance(fn, Schedule | FeedbackSchedule):
            checked_schedule("Custom: fn", fn)
        if not callable(fn):
            raise ConfigError(f"Custom: fn must be a function of the step or its path, got {self.fn!r:.80}")
        self._keep(fn=fn)

    def __call__(self, step: int) -> float:
        fn = cast("abc.Callable[[int], float]", self.fn)  # a path became a function at birth
        try:
            factor = fn(step)
        except Exception as error:  # whatever somebody's function does
            raise ConfigError(f"{self!r}: at s = {step} it failed: {reason(error)}") from error
        return checked_factor(repr(self), step, factor)

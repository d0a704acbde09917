"""Lengths that depend on the run: `"3ep"`, `"10%"`, `"1e6samples"`, `"1e9tok"`, `"rest"`.

A schedule holds them as they were written; `schedule.resolved(Run(steps=...))` puts real steps there.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Never

from optimscheduler.checks import number, shown, whole
from optimscheduler.errors import ConfigError

__all__ = ["UNIT", "Length", "Run", "in_steps", "is_rest", "length"]

UNIT: Final = "real steps"
_FORMS: Final = '"3ep", "10%", "1e6samples", "1e9tok" or "rest"'
_MOST: Final = 2**63 - 1
_TEXT: Final = re.compile(r"(\d+\.?\d*(?:[eE]\+?\d+)?)\s*(%|ep|samples|tok)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How long a run is, for lengths that are given in other units than real steps.

    Args:
        steps: real steps of the whole run, >= 1.
        steps_per_epoch: real steps of an epoch, > 0; None where there are no epochs.
        samples_per_step: items behind a real step, over all ranks, > 0; None where nobody counts them.
        tokens_per_step: tokens behind a real step, over all ranks, > 0; None where nobody counts them.

    Raises:
        ConfigError: an argument is out of range.
    """

    steps: int
    steps_per_epoch: float | None = None
    samples_per_step: float | None = None
    tokens_per_step: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", whole("Run: steps", self.steps, least=1, unit=UNIT))
        for name in ("steps_per_epoch", "samples_per_step", "tokens_per_step"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, number(f"Run: {name}", value, above=0))


class Length(str):
    """A length that is not known before the run is; whoever calculates with it is told so.

    >>> Length("10%").steps("Cosine: steps", Run(steps=2000), left=1500)
    200
    >>> Length("rest").steps("Cosine: steps", Run(steps=2000), left=1500)
    1500
    >>> 4 / Length("10%")
    Traceback (most recent call last):
    optimscheduler.errors.ConfigError: the length '10%' depends on the run: \
schedule.resolved(Run(steps=...)) puts real steps in its place
    """

    __slots__ = ()

    def steps(self, where: str, run: Run, left: int) -> int:
        """Its real steps: rounded, and 1 at least where it is not 0.

        Args:
            where: class and argument, as they will stand in the message.
            run: what it is a part of.
            left: what `"rest"` is: real steps that nothing else takes.

        Raises:
            ConfigError: nothing is left, it is too long, or the run does not say what is needed.
        """
        if self == "rest":
            if left < 1:
                raise ConfigError(
                    f"{where} is 'rest', but nothing is left: the other lengths take all "
                    f"{run.steps} real steps of the run"
                )
            return left
        match = _TEXT.fullmatch(self)
        assert match is not None  # checked by `length`
        amount, unit = float(match[1]), match[2]
        if unit == "%":
            steps = run.steps * amount / 100
        elif unit == "ep":
            steps = amount * _known(where, self, run.steps_per_epoch, "steps_per_epoch")
        elif unit == "tok":
            steps = amount / _known(where, self, run.tokens_per_step, "tokens_per_step")
        else:
            steps = amount / _known(where, self, run.samples_per_step, "samples_per_step")
        if steps > _MOST:
            raise ConfigError(f"{where} is {str(self)!r:.80}, which is more than 2^63 - 1 {UNIT}")
        return max(round(steps), 1) if amount else 0

    def _unknown(self, *_: object) -> Never:
        raise ConfigError(
            f"the length {str(self)!r:.80} depends on the run: schedule.resolved(Run(steps=...)) puts real "
            "steps in its place"
        )

    __lt__ = __le__ = __gt__ = __ge__ = _unknown
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _unknown
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _unknown


def length(where: str, value: object, *, least: int) -> int:
    """A whole number of real steps, or a text that stands for one.

    Args:
        where: class and argument, as they will stand in the message.
        value: what was given.
        least: the smallest number allowed.

    Returns:
        The number; or a `Length`, which must be resolved before anything is calculated with it.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, str):
        return whole(where, value, least=least, unit=UNIT)
    text = value.strip()
    if text != "rest":
        match = _TEXT.fullmatch(text)
        if match is None or (least and not float(match[1])) or math.isinf(float(match[1])):
            raise ConfigError(
                f"{where} must be a whole number of {UNIT} >= {least}, or {_FORMS}, got {shown(value)}"
            )
        if match[2] == "%" and float(match[1]) > 100:
            raise ConfigError(f"{where} is {value!r:.80} of the run; at most 100%")
    return Length(text)  # type: ignore[return-value]  # stands for a number, and refuses to be taken for one


def in_steps(where: str, value: int, run: Run, left: int) -> int:
    """What `length` has returned, in real steps of a run; see `Length.steps`."""
    return value.steps(where, run, left) if isinstance(value, Length) else value


def is_rest(value: object) -> bool:
    """Whether it is what the other lengths leave."""
    return isinstance(value, Length) and value == "rest"


def _known(where: str, written: str, value: float | None, name: str) -> float:
    if value is None:
        raise ConfigError(f"{where} is {written!r:.80}, and the run does not say its {name}")
    return value

"""Checks of plain values, with one manner of speaking: where, what is allowed, what was given.

>>> whole("Cosine: steps", 0, least=1)
Traceback (most recent call last):
optimscheduler.errors.ConfigError: Cosine: steps must be a whole number >= 1, got 0
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable

from optimscheduler.errors import ConfigError, nearest

__all__ = ["boolean", "number", "one_of", "shown", "whole"]

_MOST = 2**63 - 1  # what a counter in a tensor or a checkpoint holds

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*", re.IGNORECASE)


def shown(value: object) -> str:
    """What was given where a number is needed, for the end of a message.

    >>> print(shown("1e-2"))
    '1e-2'; write it without quotes
    """
    quoted = isinstance(value, str) and _NUMBER.fullmatch(value)
    return f"{value!r:.80}{'; write it without quotes' if quoted else ''}"


def boolean(where: str, value: object) -> bool:
    """True or False, and nothing that only passes for one.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{where} must be True or False, got {value!r:.80}")
    return value


def whole(where: str, value: object, *, least: int = -_MOST, unit: str = "") -> int:
    """A whole number from `least` to 2^63 - 1; `4000.0` counts as 4000, `True` and `"4000"` do not count.

    Args:
        where: place and name, as they will stand in the message.
        value: what was given.
        least: the smallest value allowed; -(2^63 - 1) if not given.
        unit: what is counted (`"real steps"`), for the message.

    Raises:
        ConfigError: it is none.
    """
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and least <= value <= _MOST
        and value == int(value)
    ):
        return int(value)
    of = f" of {unit}" if unit else ""
    bound = f" >= {least}" if least > -_MOST else ""
    raise ConfigError(f"{where} must be a whole number{of}{bound}, got {shown(value)}")


def number(
    where: str,
    value: object,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """A finite number in a range.

    Args:
        where: place and name, as they will stand in the message.
        value: what was given; int or float, not bool.
        least: allowed from here on, inclusive.
        most: allowed up to here, inclusive.
        above: must be greater than this.
        below: must be less than this.

    Raises:
        ConfigError: it is no number, NaN, infinite, or out of range.
    """
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
        and least <= value <= most
        and above < value < below
    ):
        return float(value)
    bounds = [(">=", least), ("<=", most), (">", above), ("<", below)]
    told = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if math.isfinite(bound))
    raise ConfigError(f"{where} must be a finite number{' ' + told if told else ''}, got {shown(value)}")


def one_of(where: str, value: object, options: Iterable[str]) -> str:
    """One of the given names.

    Raises:
        ConfigError: it is another; the message has the nearest.
    """
    known = list(options)
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{where}: {value!r:.80} is not known. {nearest(value, known)}")
    return value

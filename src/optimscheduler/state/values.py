"""Checks of values in a saved state. Each error says place, what is allowed and what is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from optimscheduler.errors import CheckpointError

__all__ = [
    "COUNT",
    "Check",
    "anything",
    "check_flag",
    "check_keys",
    "check_text",
    "damaged",
    "listed",
    "mapping",
    "real_number",
    "whole_number",
]

Check = Callable[[str, object], object]  # takes place and value, and raises

_MOST: Final = 2**63 - 1
_LARGEST_FLOAT32: Final = float(torch.finfo(torch.float32).max)


def damaged(place: str, value: object, allowed: str) -> CheckpointError:
    """The error for a value that is not what it must be."""
    return CheckpointError(f"this state is damaged: {place} must {allowed}, got {value!r:.80}")


def check_keys(place: str, part: object, known: Mapping[str, Check]) -> None:
    """Check that a part is a mapping with these keys, and what they hold."""
    found = mapping(place, part)
    if missing := [key for key in known if key not in found]:
        raise CheckpointError(f"this state is damaged: {place} has no {', '.join(map(repr, missing))}")
    for key, check in known.items():
        check(f"{place}.{key}", found[key])


def mapping(place: str, value: object) -> Mapping[Any, Any]:
    """The value, which must be a mapping."""
    if not isinstance(value, Mapping):
        raise damaged(place, value, "be a mapping")
    return value


def listed(place: str, value: object) -> Sequence[Any]:
    """The value, which must be a list."""
    if not isinstance(value, list | tuple):
        raise damaged(place, value, "be a list")
    return value


def check_text(place: str, value: object) -> None:
    """Text."""
    if not isinstance(value, str):
        raise damaged(place, value, "be text")


def check_flag(place: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise damaged(place, value, "be True or False")


def anything(place: str, value: object) -> None:
    """Others look at it."""


def whole_number(*, least: int = 0, most: int = _MOST) -> Check:
    """A check for whole numbers in a range; neither 2.0 nor True is one."""

    def check(place: str, value: object) -> None:
        if type(value) is not int or not least <= value <= most:
            bound = "" if most == _MOST else f" and <= {most}"
            raise damaged(place, value, f"be a whole number >= {least}{bound}")

    return check


def real_number(
    *,
    least: float = -_LARGEST_FLOAT32,
    above: float = -math.inf,
    most: float = _LARGEST_FLOAT32,
    below: float = math.inf,
) -> Check:
    """A check for numbers in a range that float32 holds."""

    def check(place: str, value: object) -> None:
        right = isinstance(value, int | float) and not isinstance(value, bool)
        if not (right and least <= value <= most and above < value < below):  # type: ignore[operator]  # it is a number
            lower = f"> {above:g}" if above > -math.inf else f">= {least:g}"
            upper = f"< {below:g}" if below < math.inf else f"<= {most:g}"
            raise damaged(place, value, f"be a number {lower} and {upper}")

    return check


COUNT: Final = whole_number()

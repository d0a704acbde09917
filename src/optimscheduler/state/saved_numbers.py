"""Whether the numbers of a saved optimizer's groups may stand where an optimizer has its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from optimscheduler.state.group_numbers import constructor_names

__all__ = ["unfit_numbers"]


def unfit_numbers(optimizer: Optimizer, taken: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for every number that is of another kind than the optimizer's own, not finite or out of range.

    Args:
        optimizer: with numbers that are right.
        taken: for each of its groups, what it is to take of a saved one.
    """
    known = constructor_names(type(optimizer))
    lines = []
    for i, (own, theirs) in enumerate(zip(optimizer.param_groups, taken, strict=True)):
        for key in (key for key in theirs if key in own):
            if allowed := _unlike(own[key], theirs[key], is_setting=key in known, below_one=key == "betas"):
                lines.append(f"{key} of group {i} must be {allowed}, got {theirs[key]!r:.60}")
    return lines


def _unlike(own: object, theirs: object, *, is_setting: bool, below_one: bool = False) -> str | None:
    """What is allowed in the place of a value, if another is not; None if it is."""
    if isinstance(own, Tensor) and own.numel() > 1:
        right = isinstance(theirs, Tensor) and theirs.shape == own.shape
        return None if right else f"a tensor of shape {tuple(own.shape)}"
    if isinstance(own, bool):
        return None if isinstance(theirs, bool) else "True or False"
    if isinstance(own, int | float | Tensor):
        return _unlike_number(float(own), theirs, is_setting=is_setting, below_one=below_one)
    if isinstance(own, list | tuple):
        return _unlike_list(own, theirs, is_setting=is_setting, below_one=below_one)
    return "text" if isinstance(own, str) and not isinstance(theirs, str) else None


def _unlike_number(own: float, theirs: object, *, is_setting: bool, below_one: bool) -> str | None:
    finite, least = math.isfinite(own), 0.0 if is_setting and own >= 0 else -math.inf
    below = 1.0 if below_one and own < 1 else math.inf
    if isinstance(theirs, Tensor) and theirs.numel() == 1:
        theirs = theirs.item()
    right = isinstance(theirs, int | float) and not isinstance(theirs, bool)
    if right and (not finite or least <= theirs < below) and (not finite or math.isfinite(theirs)):  # type: ignore[operator, arg-type]  # a number
        return None
    bounds = f"{' >= 0' if least == 0 else ''}{' and below 1' if below == 1 else ''}"
    return f"a {'finite ' if finite else ''}number{bounds}"


def _unlike_list(own: Sequence[Any], theirs: object, *, is_setting: bool, below_one: bool) -> str | None:
    allowed = f"{len(own)} values like {own}" if is_setting else "a list"
    if not isinstance(theirs, list | tuple) or (is_setting and len(theirs) != len(own)):
        return allowed
    if len(theirs) != len(own):  # what a class counts may grow
        return None
    rules = {"is_setting": is_setting, "below_one": below_one}
    return allowed if any(_unlike(*pair, **rules) for pair in zip(own, theirs, strict=True)) else None

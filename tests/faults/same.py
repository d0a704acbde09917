"""Whether two runs came to the same, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tests.run.command import last_state, metrics, without_seconds

__all__ = ["difference", "difference_of_states"]


def difference(one: Path, other: Path) -> str | None:
    """Where two run folders differ first: metrics, then weights and state; None if they do not.

    Args:
        one: a run folder.
        other: another.
    """
    for name in ("metrics.jsonl", "validation.jsonl"):
        ours, theirs = (without_seconds(metrics(run, name)) for run in (one, other))
        if ours != theirs:
            at = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
            return f"{name}: {len(ours)} and {len(theirs)} lines, differing from line {at}"
    return difference_of_states(last_state(one), last_state(other))


def difference_of_states(one: object, other: object, place: str = "") -> str | None:
    """The first place where two trees differ; bytes in files of metrics are no part of a state."""
    if place == "lengths":
        return None
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if list(one) != list(other):
            return f"{place}: {list(one)} and {list(other)}"
        pairs = [(key, one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"{place}: {len(one)} and {len(other)} entries"
        pairs = [(key, *pair) for key, pair in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, Tensor) and isinstance(other, Tensor):
        return None if one.dtype == other.dtype and torch.equal(one, other) else place
    else:
        return None if one == other else f"{place}: {one!r:.60} and {other!r:.60}"
    found = (difference_of_states(a, b, f"{place}.{key}".strip(".")) for key, a, b in pairs)
    return next(filter(None, found), None)

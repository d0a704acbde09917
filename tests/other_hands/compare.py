"""Where two trees, or two sides of a training, are apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tests.other_hands.sides import Side

__all__ = ["apart", "apart_at_the_end", "far"]


def apart(ours: Side, plain: Side) -> list[str]:
    """Weights, gradients, and whatever was told, between two events."""
    close = plain.training.close
    found = list(far(_weights(ours), _weights(plain), close, "weights"))
    found += far(_gradients(ours), _gradients(plain), close, "gradients")
    found += far(ours.shown, plain.shown, close, "a held model.state_dict()")
    for (what, tree), (_, expected) in zip(ours.told, plain.told, strict=False):
        found += far(tree, expected, close, what)
    if [what for what, _ in ours.told] != [what for what, _ in plain.told]:
        found.append(f"told {[what for what, _ in ours.told]}, not {[what for what, _ in plain.told]}")
    for model, weights in ours.at_rest:
        found += far(dict(model.named_parameters()), weights, 0.0, "weights that nobody trains")
    ours.told.clear()
    plain.told.clear()
    return found


def apart_at_the_end(ours: Side, plain: Side) -> list[str]:
    """`optimizer.state_dict()`."""
    states = [[optimizer.state_dict() for optimizer in side.optimizers] for side in (ours, plain)]
    return list(far(*states, plain.training.close, "optimizers"))


def far(one: Any, other: Any, close: float, place: str) -> Iterator[str]:  # Any: trees of tensors and values
    """Places where two trees differ by more than this, relative and absolute.

    A state without entries is none: torch makes one when somebody reads it.
    """
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        yield from _far_tensors(one.detach(), other.detach(), close, place)
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        one, other = ({k: v for k, v in tree.items() if not _is_empty(v)} for tree in (one, other))
        if set(one) != set(other):
            yield f"{place}: {sorted(map(str, one))}, not {sorted(map(str, other))}"
        for key in set(one) & set(other):
            yield from far(one[key], other[key], close, f"{place}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            yield f"{place}: {len(one)} entries, not {len(other)}"
        for i, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from far(a, b, close, f"{place}[{i}]")
    elif isinstance(one, float) and isinstance(other, float):
        if not math.isclose(one, other, rel_tol=close, abs_tol=close):
            yield f"{place}: {one!r}, not {other!r}"
    elif type(one) is not type(other) or one != other:
        yield f"{place}: {_short(one)}, not {_short(other)}"


def _is_empty(tree: object) -> bool:
    return isinstance(tree, Mapping) and all(map(_is_empty, tree.values()))


def _short(value: object) -> str:
    """In one line."""
    return " ".join(repr(value).split())[:60]


def _far_tensors(one: Tensor, other: Tensor, close: float, place: str) -> Iterator[str]:
    if one.shape != other.shape or one.dtype != other.dtype:
        shapes = [f"{tuple(t.shape)} {t.dtype}" for t in (one, other)]
        yield f"{place}: {shapes[0]}, not {shapes[1]}"
    elif not torch.allclose(one, other, rtol=close, atol=close, equal_nan=True):
        yield f"{place}: off by {float((one - other).abs().max()):.2g}"


def _weights(side: Side) -> dict[str, Tensor]:
    return dict(side.model.named_parameters())


def _gradients(side: Side) -> dict[str, Tensor | None]:
    return {name: p.grad for name, p in side.model.named_parameters()}

"""Parameters that `fully_shard` has spread over ranks: DTensors, of which each rank holds a part.

They are recognised by what they have; importing their class takes longer than the rest of the package.
"""

from __future__ import annotations

import math
from typing import Any, cast

from torch import Tensor, nn

__all__ = ["copies", "has_whole_rows", "is_fsdp", "is_sharded", "local"]


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor."""
    return hasattr(tensor, "device_mesh")


def is_fsdp(module: nn.Module) -> bool:
    """Whether `fully_shard` was applied to the module."""
    return hasattr(module, "set_requires_gradient_sync")


def local(tensor: Tensor) -> Tensor:
    """The part that this rank holds, in the same memory; of any other tensor itself."""
    sharded = cast(Any, tensor)
    return sharded.to_local() if is_sharded(tensor) else tensor


def has_whole_rows(tensor: Tensor) -> bool:
    """Whether each rank holds a part of the rows of a DTensor, and all of each; a vector has none."""
    return tensor.ndim > 1 and all(
        place.is_replicate() or getattr(place, "dim", None) == 0 for place in cast(Any, tensor).placements
    )


def copies(tensor: Tensor, ranks: int) -> int:
    """On how many of the ranks each of its elements is."""
    if not is_sharded(tensor):
        return ranks
    sharded = cast(Any, tensor)
    mesh = sharded.device_mesh.shape
    parts = [n for n, place in zip(mesh, sharded.placements, strict=True) if not place.is_replicate()]
    spread: int = math.prod(parts)
    return ranks // spread  # the ranks beside its mesh count too: each holds what some rank here holds

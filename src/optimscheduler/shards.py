"""Parameters that `fully_shard` or tensor parallelism spreads over ranks: DTensors, a part on each.

They are recognised by what they have; importing their class takes longer than the rest of the package.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, nn

__all__ = [
    "copies",
    "has_whole_rows",
    "is_fsdp",
    "is_sharded",
    "laid_as",
    "local",
    "place_as_parameter",
    "spread_over",
    "whole",
]


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


def whole(tensor: Tensor) -> Tensor:
    """All of it, on every rank, with a way back for gradients; of any other tensor itself.

    A collective, unless every rank of its mesh has all of it already.
    """
    sharded = cast(Any, tensor)
    everything: Tensor = sharded.full_tensor() if is_sharded(tensor) else tensor
    return everything


def laid_as(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, the same on every rank, spread as a parameter of its shape is; nothing crosses.

    What is spread already, or has another shape, or belongs to a parameter that is whole, stays as it is.
    """
    if is_sharded(value) or not is_sharded(parameter) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import DTensor, Replicate  # takes long, and is there now

    mesh, placements = cast(Any, parameter).device_mesh, cast(Any, parameter).placements
    everywhere = [Replicate() for _ in placements]
    held = DTensor.from_local(value.to(parameter.device), mesh, everywhere, run_check=False)
    return held.redistribute(placements=placements)


def spread_over(tensors: Iterable[Tensor]) -> Any:  # Any: a DeviceMesh, whose import takes long
    """The largest mesh that one of these is spread over; None where none is."""
    meshes = [cast(Any, tensor).device_mesh for tensor in tensors if is_sharded(tensor)]
    return max(meshes, key=lambda mesh: mesh.size(), default=None)


def place_as_parameter(parameters: Iterable[Tensor]) -> None:
    """Lay every gradient on the mesh as its parameter lies there.

    Tensor and sequence parallelism leave some gradients as parts that have yet to be summed (`Partial`): of a
    layer norm whose input is sharded along the sequence, for example. `fully_shard` sums them itself. A
    collective for every gradient that lies otherwise.
    """
    for parameter in parameters:
        if parameter.grad is not None and is_sharded(parameter):
            placements = cast(Any, parameter).placements
            if cast(Any, parameter.grad).placements != placements:
                parameter.grad = cast(Any, parameter.grad).redistribute(placements=placements)


def copies(tensor: Tensor, ranks: int) -> int:
    """On how many of the ranks each of its elements is."""
    if not is_sharded(tensor):
        return ranks
    sharded = cast(Any, tensor)
    mesh = sharded.device_mesh.shape
    parts = [n for n, place in zip(mesh, sharded.placements, strict=True) if not place.is_replicate()]
    spread: int = math.prod(parts)
    return ranks // spread  # the ranks beside its mesh count too: each holds what some rank here holds

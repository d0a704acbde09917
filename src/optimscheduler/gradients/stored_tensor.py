"""What an update moves, as it lies in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

__all__ = ["StoredTensor", "itself"]


class StoredTensor(NamedTuple):
    """One tensor that an update moves: a parameter, or several side by side.

    Attributes:
        tensor: the optimizer's: the parameter, or 1-D memory with parameters in it.
        names: of the parameters in it, canonical.
        parts: of a tensor that lies as this one does, the part of each parameter, shaped like it.
    """

    tensor: Tensor
    names: Sequence[str]
    parts: Callable[[Tensor], list[Tensor]]


def itself(tensor: Tensor) -> list[Tensor]:
    """The part of a parameter that lies alone."""
    return [tensor]

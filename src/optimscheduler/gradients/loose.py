"""Gradients as torch leaves them: one `.grad` per parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from optimscheduler.shards import local

__all__ = ["Loose"]


class Loose:
    """The reference layout: every parameter and every gradient a tensor of its own.

    Args:
        parameters: canonical name -> parameter, in the optimizer's order.
    """

    bit_for_bit = True
    moved_elsewhere: Sequence[nn.Parameter] = ()

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._named = dict(parameters)
        self._own = list(self._named.values())  # those whose `.grad` is a block
        self._blocks: list[Tensor] | None = None  # from `settle` to `clear`
        self.parameters = list(self._named.values())

    def __str__(self) -> str:
        return f"{len(self.parameters)} tensors, each on its own"

    def outlook(self) -> int:
        """Nothing is going to move."""
        return 0

    def settle(self, *, alike: bool = True) -> None:  # noqa: ARG002  # the protocol's
        """Everything is where it belongs."""
        self._blocks = None

    def blocks(self) -> list[Tensor]:
        """The gradients there are; of a sparse one its values, of a sharded one this rank's part."""
        if self._blocks is None:
            self._blocks = [_block(p, p.grad) for p in self._own if p.grad is not None]
        return self._blocks

    def missing(self) -> list[str]:
        """Canonical names of the trainable parameters that have no gradient."""
        return [name for name, p in self._named.items() if p.requires_grad and p.grad is None]

    def by_name(self) -> dict[str, Tensor]:
        """Canonical parameter name -> gradient, for those that have one."""
        return {name: p.grad for name, p in self._named.items() if p.grad is not None}

    def restore(self, gradients: Mapping[str, Tensor]) -> None:
        """Put saved gradients back; parameters without one get none."""
        self._blocks = None
        for name, parameter in self._named.items():
            saved = gradients.get(name)
            parameter.grad = None if saved is None else saved.detach().clone().to(parameter.device)

    def clear(self) -> None:
        """Forget all gradients; the memory goes back to the allocator, or to the next backward."""
        self._blocks = None
        for parameter in self.parameters:
            parameter.grad = None

    def arrangement(self) -> dict[str, Any] | None:
        """None: nothing lies beside anything."""
        return None

    def arrange(self, arrangement: Mapping[str, Any] | None) -> None:
        """There is nothing to arrange."""

    def loosen(self) -> None:
        """It is."""


def _block(parameter: nn.Parameter, gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        parameter.grad = gradient = gradient.coalesce()
        return gradient.values()
    return local(gradient)

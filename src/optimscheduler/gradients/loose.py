"""Gradients as torch leaves them: one `.grad` per parameter."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from optimscheduler.shards import local

__all__ = ["Loose"]


class Loose:
    """The reference layout: every parameter and every gradient a tensor of its own."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)
        self.leaves = list(parameters.values())

    def blocks(self) -> list[Tensor]:
        """The gradients there are; of a sparse one its values, of a sharded one this rank's part."""
        return [_values(p) if p.grad.is_sparse else local(p.grad) for p in self.leaves if p.grad is not None]

    def missing(self) -> list[str]:
        """Canonical names of the trainable parameters that have no gradient."""
        return [name for name, p in self._parameters.items() if p.requires_grad and p.grad is None]

    def by_name(self) -> dict[str, Tensor]:
        """Canonical parameter name -> gradient, for those that have one."""
        return {name: p.grad for name, p in self._parameters.items() if p.grad is not None}

    def restore(self, gradients: Mapping[str, Tensor]) -> None:
        """Put saved gradients back; parameters without one get none."""
        for name, parameter in self._parameters.items():
            saved = gradients.get(name)
            parameter.grad = None if saved is None else saved.detach().clone().to(parameter.device)

    def clear(self) -> None:
        """Forget all gradients; the memory goes back to the allocator, or to the next backward."""
        for parameter in self.leaves:
            parameter.grad = None


def _values(parameter: nn.Parameter) -> Tensor:
    parameter.grad = parameter.grad.coalesce()  # type: ignore[union-attr]  # the caller has looked
    return parameter.grad.values()

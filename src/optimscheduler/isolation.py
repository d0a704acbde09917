"""Keep the backward of a loss out of gradients that are not its owner's.

- `WholeModel`: there are no others; a plain backward.
- `ByInputs`: `backward(inputs=...)`, which also saves the work of computing them.
- `ByStashing`: the others' gradients are set aside and put back. For graphs with reentrant
  checkpointing, where `backward(inputs=...)` leaves gradients out without an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn
from torch.autograd.graph import Node

__all__ = ["ByInputs", "ByStashing", "Isolation", "WholeModel", "isolation_for"]


class Isolation(Protocol):
    """A way to run a backward."""

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """Add the gradients of `loss`, a scalar, to those of the owned parameters and of no others."""


def isolation_for(model: nn.Module, owned: Sequence[nn.Parameter]) -> Isolation:
    """The cheapest way that is right for a loss whose owners have the parameters `owned`."""
    ours = {id(parameter) for parameter in owned}
    others = [parameter for parameter in model.parameters() if id(parameter) not in ours]
    return ByInputs(owned, others) if others else WholeModel()


class WholeModel:
    """Every parameter of the model is the owner's."""

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """A plain backward."""
        loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]  # torch's own is not typed


class ByStashing:
    """Sets the others' gradients aside for the time of the backward."""

    def __init__(self, others: Sequence[nn.Parameter]) -> None:
        self._others = others

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """A plain backward, after which the others' gradients are what they were before."""
        kept = [parameter.grad for parameter in self._others]
        for parameter in self._others:
            parameter.grad = None
        try:
            loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]  # see above
        finally:
            for parameter, gradient in zip(self._others, kept, strict=True):
                parameter.grad = gradient


class ByInputs:
    """Asks autograd for the owned gradients alone, as long as the graph allows it."""

    def __init__(self, owned: Sequence[nn.Parameter], others: Sequence[nn.Parameter]) -> None:
        self._owned = owned
        self._stashing = ByStashing(others)
        self._reentrant = False

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """A backward towards the owned parameters; by stashing from the first reentrant graph on."""
        self._reentrant = self._reentrant or _is_reentrant(loss)
        if self._reentrant:
            self._stashing.backward(loss, retain_graph=retain_graph)
            return
        inputs = [parameter for parameter in self._owned if parameter.requires_grad]
        loss.backward(inputs=inputs, retain_graph=retain_graph)  # type: ignore[no-untyped-call]  # see above


def _is_reentrant(loss: Tensor) -> bool:
    """Whether a node of the graph runs a backward of its own (torch's, fairscale's, DeepSpeed's)."""
    todo: list[Node | None] = [loss.grad_fn]
    seen: set[Node | None] = {None}
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        if "CheckpointFunction" in type(node).__name__:
            return True
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
    return False

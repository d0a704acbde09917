"""Keep the backward of a loss out of gradients that are not its owner's.

- `WholeModel`: there are no others; a plain backward.
- `ByInputs`: `backward(inputs=...)`, which also saves the work of computing them.
- `ByStashing`: the others' gradients are set aside and put back. For parameters sharded by FSDP2 and for
  graphs with reentrant checkpointing, where `backward(inputs=...)` leaves gradients out without an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from optimscheduler.errors import GraphError
from optimscheduler.shards import is_sharded

__all__ = ["ByInputs", "ByStashing", "Isolation", "WholeModel", "isolation_for", "lateness_behind", "zeroed"]


class Isolation(Protocol):
    """A way to run a backward."""

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """Add the gradients of `loss`, a scalar, to those of the owned parameters and of no others."""


def isolation_for(parameters: Sequence[nn.Parameter], owned: Sequence[nn.Parameter]) -> Isolation:
    """The cheapest way that is right for a loss whose owners have `owned` of the model's parameters."""
    ours = {id(parameter) for parameter in owned}
    others = [parameter for parameter in parameters if id(parameter) not in ours]
    if others and any(map(is_sharded, parameters)):
        return ByStashing(others)
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


@contextmanager
def zeroed(leaves: Sequence[Tensor]) -> Iterator[None]:
    """A backward inside gives these parameters zeros, whatever the graph says.

    For a batch that counts nothing on this rank while other ranks wait for its backward.
    """
    hooks = [
        leaf.register_hook(torch.zeros_like)  # type: ignore[no-untyped-call]  # torch's own is not typed
        for leaf in leaves
        if leaf.requires_grad
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def lateness_behind(error: RuntimeError, loss: str) -> GraphError | None:
    """What to do, if the error means that the graph was used by another step before."""
    if not any(sign in str(error) for sign in ("a second time", "modified by an inplace operation")):
        return None
    return GraphError(
        f"the backward of loss {loss!r} came too late: its graph was freed, or weights in it have moved. "
        "OptimSchedulers whose losses share a graph take their step together: "
        "OptimSchedulerDict({'name': optim, ...}).step(losses) "
        f"(torch: {str(error).splitlines()[0]:.160})"
    )


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

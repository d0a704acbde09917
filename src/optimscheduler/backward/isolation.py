"""Keep the backward of a loss out of gradients that are not its owner's.

- `WholeModel`: there are no others; a plain backward.
- `ByInputs`: `backward(inputs=...)`, for graphs that reach others: it saves the work of computing theirs.
- `ByStashing`: the others' gradients are set aside and put back. For graphs that were seen to reach none,
  where it costs less; for parameters sharded by FSDP2 and graphs with reentrant checkpointing, where
  `backward(inputs=...)` leaves gradients out.
- `PastHooks`: gradients come as values and are added by hand, so that no wrapper hears of them.

`Isolation` finds out for each graph which of them is right and costs least.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Protocol

import torch
from torch import Tensor, nn

from optimscheduler.backward.graph_shapes import GraphShapes
from optimscheduler.backward.owners import Claim
from optimscheduler.errors import GraphError
from optimscheduler.shards import is_sharded

__all__ = [
    "ByInputs",
    "ByStashing",
    "Isolation",
    "PastHooks",
    "Way",
    "WholeModel",
    "change_behind",
    "lateness_behind",
    "parallelism_behind",
    "zeroed",
]


_log = logging.getLogger("optimscheduler")

_gradient_of = attrgetter("grad")


class Way(Protocol):
    """A way to run a backward."""

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """Add the gradients of `loss`, a scalar, to those of the owned parameters and of no others."""


class Isolation:
    """Runs the backwards of a loss for those who own it.

    Args:
        claim: the model's.
        owners: the parameters of each of them.
        loss: its name.
    """

    def __init__(self, claim: Claim, owners: Sequence[Sequence[nn.Parameter]], loss: str) -> None:
        self._claim = claim
        self._loss = loss
        self._owned = [parameter for owned in owners for parameter in owned]
        self._mine = {id(parameter) for parameter in self._owned}
        self._others = [p for p in claim.parameters if id(p) not in self._mine]
        self._sharded = any(map(is_sharded, claim.parameters))
        self._sight = GraphShapes()
        self._said = False
        self._looked = False
        self._half = any(p.dtype is torch.float16 for p in self._owned)

    def __reduce__(self) -> tuple[object, ...]:
        return Isolation, (self._claim, [self._owned], self._loss)  # a copy has seen nothing yet

    def backward(
        self, loss: Tensor, since: int | None = None, *, retain_graph: bool = False, past_hooks: bool = False
    ) -> None:
        """Add the gradients of `loss`, a scalar, to those of the owned parameters and of no others.

        Args:
            loss: 0-d.
            since: `graph_age` before the forward pass; None is unknown.
            retain_graph: another backward follows.
            past_hooks: a wrapper that waits for gradients must not get these.

        Raises:
            GraphError: a reentrant checkpoint was asked for single gradients, as by `past_hooks`.
        """
        if not self._sharded:
            self._sight.look(loss.grad_fn, since, self._mine)
            if self._sight.has_strays:
                self._say_strays()
        elif not self._looked:  # the leaves are whole parameters that nobody owns
            self._looked = True
            self._sight.look_for_half(loss.grad_fn)
        if past_hooks and self._sight.reentrant:
            raise _broke_off(self._loss)
        try:
            self._way(past_hooks).backward(loss, retain_graph=retain_graph)
        except RuntimeError as error:
            if "use_reentrant=True" not in str(error):
                raise
            self._sight.reentrant = True
            raise _broke_off(self._loss) from error

    @property
    def casts_to_half(self) -> bool:
        """Whether somebody computes in float16 though no parameter is."""
        return self._sight.half and not self._half

    def _say_strays(self) -> None:
        """Say that parameters are reached which nobody has told us of, once: somebody may count on them."""
        if self._said:
            return
        told = {id(p) for p in (*self._claim.model.parameters(), *self._claim.of_others())}
        strays = [tuple(stray.shape) for stray in self._sight.strays if id(stray) not in told]
        self._said = bool(strays)
        if strays:
            _log.warning(
                "loss %r also reaches %d parameters outside the model, of shapes %s: it gives them no "
                "gradient. If they are to learn from it, make them a part of the model",
                self._loss,
                len(strays),
                ", ".join(map(str, strays[:5])) + (", ..." if len(strays) > 5 else ""),
            )

    def _way(self, past_hooks: bool) -> Way:
        if past_hooks:
            return PastHooks(self._owned)
        reached = self._sight.has_strays or self._sight.blind
        if reached and not (self._sharded or self._sight.reentrant):
            return ByInputs(self._owned)
        if self._others or reached or self._claim.has_others():
            return ByStashing([*self._others, *self._claim.of_others(), *self._sight.strays])
        return _WHOLE


class WholeModel:
    """Nobody but the owner has parameters that the graph might reach."""

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """A plain backward."""
        loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]  # torch's own is not typed


_WHOLE = WholeModel()


class ByStashing:
    """Sets the others' gradients aside for the time of the backward."""

    def __init__(self, others: Sequence[Tensor]) -> None:
        self._others = others

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """A plain backward, after which the others' gradients are what they were before."""
        kept = self._gradients()
        for parameter, _ in kept:
            parameter.grad = None
        try:
            loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]  # see above
        finally:
            for parameter, _ in self._gradients():
                parameter.grad = None
            for parameter, gradient in kept:
                parameter.grad = gradient

    def _gradients(self) -> list[tuple[Tensor, Tensor]]:
        gradients = map(_gradient_of, self._others)
        return [(p, grad) for p, grad in zip(self._others, gradients, strict=True) if grad is not None]


class ByInputs:
    """Asks autograd for the owned gradients alone."""

    def __init__(self, owned: Sequence[nn.Parameter]) -> None:
        self._owned = owned

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """A backward towards the owned parameters that are not frozen, of which there must be one."""
        inputs = [parameter for parameter in self._owned if parameter.requires_grad]
        loss.backward(inputs=inputs, retain_graph=retain_graph)  # type: ignore[no-untyped-call]  # see above


class PastHooks:
    """Asks autograd for the owned gradients as values.

    DistributedDataParallel listens where autograd adds to `.grad`. It is not told of these gradients, and
    what it has prepared for its next backward stays as it is.
    """

    def __init__(self, owned: Sequence[nn.Parameter]) -> None:
        self._owned = owned

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """See `ByInputs`."""
        leaves = [parameter for parameter in self._owned if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, leaves, retain_graph=retain_graph, allow_unused=True)
        with torch.no_grad():
            for leaf, gradient in zip(leaves, gradients, strict=True):
                if gradient is not None:
                    _add(leaf, gradient)


def _add(leaf: nn.Parameter, gradient: Tensor) -> None:
    """As autograd does it; a gradient is copied first, for others may look at its memory."""
    if leaf.grad is not None:
        leaf.grad = leaf.grad + gradient if leaf.grad.is_sparse else leaf.grad.add_(gradient)
    elif gradient.is_sparse:
        leaf.grad = gradient.clone()
    else:
        leaf.grad = torch.empty_like(leaf).copy_(gradient)


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


def lateness_behind(error: RuntimeError, loss: str, *, shared: bool) -> GraphError | None:
    """What to do, if the error means that the graph was used before.

    Args:
        error: torch's.
        loss: its name.
        shared: other OptimSchedulers train the same model, and theirs may have been the step before.
    """
    if not any(sign in str(error) for sign in ("a second time", "modified by an inplace operation")):
        return None
    together = (
        "OptimSchedulers whose losses share a graph take their step together: "
        "OptimSchedulerDict({'name': optim, ...}).step(losses). Otherwise: "
    )
    return GraphError(
        f"the backward of loss {loss!r} came too late: its graph was freed, or weights in it have moved. "
        f"{together if shared else ''}"
        "Does a state (hidden, memory) of the last batch go into this one? Write state.detach(). "
        "Was loss.backward() called before step()? Leave it out. "
        "Was the loss computed before the last update? Compute it anew "
        f"(torch: {str(error).splitlines()[0]:.160})"
    )


def change_behind(error: RuntimeError, loss: str) -> GraphError | None:
    """What to do, if the error means that a wrapper was promised a graph that never changes."""
    if "training graph has changed" not in str(error):
        return None
    return GraphError(
        f"the backward of loss {loss!r} used other parameters than the first one, and "
        "DistributedDataParallel(static_graph=True) was promised that they are always the same. Write "
        "DistributedDataParallel(model, find_unused_parameters=True) in its place "
        f"(torch: {str(error).splitlines()[0]:.160})"
    )


def parallelism_behind(error: RuntimeError, loss: str) -> GraphError | None:
    """What to do, if the error means that a backward of loss parallelism ran outside its context."""
    if "mixed torch.Tensor and DTensor" not in str(error):
        return None
    return GraphError(
        f"the backward of loss {loss!r} met sharded and whole tensors together. Where the loss was computed "
        "in `with loss_parallel():`, call optim.step(losses) inside it too, because the backward runs there "
        f"(torch: {str(error).splitlines()[0]:.160})"
    )


def _broke_off(loss: str) -> GraphError:
    return GraphError(
        f"the backward of loss {loss!r} broke off at a reentrant checkpoint, which cannot give single "
        "gradients, and its window was dropped. Write checkpoint(..., use_reentrant=False); under "
        "DistributedDataParallel also run every training forward inside: "
        "with optim.forward(): losses = model(batch)"
    )

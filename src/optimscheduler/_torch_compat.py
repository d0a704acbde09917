"""Names of torch that are not public, each behind a function that does without.

Where a name is missing the answer is the safe one: slower, never wrong. The names are looked up when they are
needed, so that a torch without them imports as any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn.parallel import DistributedDataParallel

__all__ = [
    "awaits_static_graph",
    "copy_each",
    "graph_age",
    "inside_ddp",
    "leaf_of",
    "quiet",
    "scatters_gradients",
    "update_scale",
]


def graph_age(node: Node | None = None) -> int | None:
    """How many nodes of graphs this thread had made when it made that one, or has made by now.

    Returns:
        None where torch does not say: graphs then have to be looked at.
    """
    try:
        number: int = torch._C._autograd._get_sequence_nr() if node is None else node._sequence_nr()
    except AttributeError:
        return None
    return number


def leaf_of(node: Node) -> Tensor | None:
    """The leaf tensor whose gradient a node of the name AccumulateGrad adds to; None where torch hides it."""
    leaf: Tensor | None = getattr(node, "variable", None)
    return leaf


def inside_ddp() -> bool:
    """Whether the forward of a DistributedDataParallel is running; False where torch does not say.

    It is asked about wrappers that we do not see; those that we see have hooks of ours.
    """
    return getattr(DistributedDataParallel, "_active_ddp_module", None) is not None


@contextmanager
def quiet(wrapped: Sequence[DistributedDataParallel], *, buffers: bool = True) -> Iterator[None]:
    """Forwards inside prepare no reduction; afterwards the wrappers are as before.

    Args:
        wrapped: the wrappers.
        buffers: the forwards share no buffers either, and the next one does as if these had not been.
    """
    settings = {"require_backward_grad_sync": False, "_static_graph_delay_allreduce_enqueued": True}
    settings |= {"require_forward_param_sync": False} if buffers else {}
    before = [(ddp, name, getattr(ddp, name)) for ddp in wrapped for name in settings if hasattr(ddp, name)]
    for ddp, name, _ in before:
        setattr(ddp, name, settings[name])
    try:
        yield
    finally:
        for ddp, name, value in before:
            setattr(ddp, name, value)


def awaits_static_graph(ddp: DistributedDataParallel) -> bool:
    """Whether the wrapper takes its first backward, reduced or not, for what its static graph is."""
    return bool(ddp.static_graph) and not getattr(ddp, "_static_graph_delay_allreduce_enqueued", False)


def scatters_gradients(part: Any) -> bool:  # Any: torch mixes the class in
    """Whether a backward through a module under `fully_shard` reduces; True where torch does not say."""
    try:
        return all(group.reduce_grads for group in part._get_fsdp_state()._fsdp_param_groups)
    except AttributeError:
        return True


def copy_each(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy every source into its target; in one call where torch has one."""
    together = getattr(torch, "_foreach_copy_", None)
    if together is not None:
        together(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def update_scale(
    scale: Tensor, tracker: Tensor, found: Tensor, growth: float, backoff: float, interval: int
) -> None:
    """`GradScaler`'s rule, in place: x backoff after a non-finite gradient, x growth after `interval` others.

    Args:
        scale: 0-d float32.
        tracker: 0-d int32, finite gradients in a row.
        found: 0-d float32, not 0 after a non-finite one.
        growth: factor.
        backoff: factor.
        interval: finite gradients.
    """
    rule = getattr(torch, "_amp_update_scale_", None)
    if rule is not None:
        rule(scale, tracker, found, growth, backoff, interval)
        return
    bad, full = found != 0, tracker + 1 >= interval
    grown = torch.where(full & (scale * growth).isfinite(), scale * growth, scale)
    scale.copy_(torch.where(bad, scale * backoff, grown))
    tracker.copy_(torch.where(bad | full, torch.zeros_like(tracker), tracker + 1))

"""Modules and their wrappers: DistributedDataParallel, fully_shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = [
    "awaits_static_graph",
    "inside_ddp",
    "quiet",
    "scatters_gradients",
    "unsaved_buffers",
    "was_sharded",
]


def unsaved_buffers(module: nn.Module) -> set[str]:
    """The names of a module's own buffers that are not saved with it."""
    try:
        return module._non_persistent_buffers_set
    except AttributeError:
        saved = module.state_dict(keep_vars=True)
        return {name for name, _ in module.named_buffers(recurse=False) if name not in saved}


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
        state = part._get_fsdp_state()
        groups = getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group]  # of torch 2.11
        return all(group.reduce_grads for group in groups if group is not None)
    except AttributeError:
        return True


def was_sharded(parameter: Tensor) -> bool:
    """Whether DistributedDataParallel has put it in place of a DTensor; no where torch hides it."""
    return hasattr(parameter, "_st_info")

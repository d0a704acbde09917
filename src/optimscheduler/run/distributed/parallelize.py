"""What several processes do with a model: wrap it, shard it, or leave it to the OptimSchedulers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from optimscheduler.parameters.owned import saved_buffers
from optimscheduler.run.distributed.world import World
from optimscheduler.shards import is_fsdp
from optimscheduler.sync.ranks import Ranks

__all__ = ["share_buffers", "unsharded", "wrapped"]


def wrapped(model: nn.Module, how: bool | str, world: World, device: torch.device) -> nn.Module:
    """The model as it is to be called in training.

    Args:
        model: on its device; sharded in place.
        how: `"ddp"` or True, `"deferred"`, `"fsdp"`.
        world: a single process leaves it as it is.
        device: of this process.
    """
    if world.count == 1 or how == "deferred":
        return model
    if how == "fsdp":
        mesh = init_device_mesh(device.type, (world.count,))
        for module in model.modules():
            for part in module if isinstance(module, nn.ModuleList) else ():
                fully_shard(part, mesh=mesh)  # the layers of a stack, one after the other
        fully_shard(model, mesh=mesh)
        return model
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def share_buffers(model: nn.Module, world: World) -> None:
    """Everybody takes the buffers of rank 0, which are the ones that count.

    DistributedDataParallel does so before a forward that reduces; a validation and a checkpoint come before
    the next of those.
    """
    if world.count > 1:
        Ranks().share(list(saved_buffers(model)))


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Every rank holds the whole model inside; all ranks must enter."""
    parts: list[Any] = [module for module in model.modules() if is_fsdp(module)]  # Any: torch mixes it in
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()

"""Where the gradients of several ranks meet.

- `SingleProcess`: nowhere.
- `ReducedByDdp`: one loss, one owner of everything: DistributedDataParallel reduces in the last backward
  of a window, overlapped with it, and is kept quiet in the others. Only the forward decides about that.
- `ReducedByHand`: several losses, a part of the parameters, or a model without wrapper: one reduction for
  each OptimScheduler at the end of its window, never in a backward.
- `ShardedByFsdp`: parameters and gradients that `fully_shard`, or tensor parallelism, has spread over a mesh.

Each gives the mean over the ranks of the gradients and of their weight, so that their ratio is that of one
process with all the data.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from optimscheduler._torch_compat import was_sharded
from optimscheduler.errors import ConfigError
from optimscheduler.shards import is_fsdp, is_sharded, spread_over
from optimscheduler.sync.base import GradientSync, ReducedWindow, SingleProcess
from optimscheduler.sync.ranks import Ranks
from optimscheduler.sync.replicated import ReducedByDdp, ReducedByHand
from optimscheduler.sync.sharded import ShardedByFsdp

__all__ = [
    "GradientSync",
    "ReducedByDdp",
    "ReducedByHand",
    "ReducedWindow",
    "ShardedByFsdp",
    "SingleProcess",
    "sync_for",
]

_log = logging.getLogger("optimscheduler")


def sync_for(
    model: nn.Module, owners: Sequence[Sequence[nn.Parameter]], *, distributed: bool
) -> GradientSync:
    """The way that fits to how a model is wrapped.

    Args:
        model: wrapped or not.
        owners: the parameters of each OptimScheduler.
        distributed: average the gradients of a model that is not wrapped, too.

    Raises:
        ConfigError: `distributed` without a process group, or a mesh that cannot be trained over.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        return SingleProcess()  # a model that only shows what a run would do
    together = dist.is_available() and dist.is_initialized()
    if distributed and not together:
        raise ConfigError(
            "distributed: there is no process group. Start with torchrun and call "
            "torch.distributed.init_process_group() first, or leave it False"
        )
    if not together or dist.get_world_size() == 1:
        return SingleProcess()
    wrapped = [module for module in model.modules() if isinstance(module, DistributedDataParallel)]
    first = {id(parameter) for parameter in owners[0]}
    alone = len(owners) == 1 and all(id(p) in first for p in model.parameters() if p.requires_grad)
    if any(map(is_sharded, model.parameters())):
        return ShardedByFsdp(_ranks_of(model, distributed=distributed), model, alone=alone)
    if any(map(was_sharded, model.parameters())):
        raise ConfigError(
            "DistributedDataParallel over a part of a mesh, round a model with tensor parallelism: it hides "
            "from the optimizer which parameters are parts of others, so their norm would be wrong. Write "
            "fully_shard(model, mesh=mesh['dp']) in its place"
        )
    if wrapped == [model] and alone:
        return ReducedByDdp(Ranks(wrapped[0].process_group), wrapped[0])
    if wrapped:
        return ReducedByHand(Ranks(wrapped[0].process_group), model, wrapped)
    if distributed:
        return ReducedByHand(Ranks(), model, ())
    _log.warning(
        "there are %d processes, but the model is not wrapped and distributed is False: each process "
        "trains a model of its own. Write distributed=True to train one together",
        dist.get_world_size(),
    )
    return SingleProcess()


def _ranks_of(model: nn.Module, *, distributed: bool) -> Ranks:
    """The processes that train a sharded model together.

    `fully_shard` over one dimension of a mesh means all of them: tensor parallelism, or nothing, is along the
    others. With tensor parallelism alone, a mesh that leaves processes out makes as many models.

    Raises:
        ConfigError: those are to be trained together.
    """
    mesh = spread_over(model.parameters())
    if mesh.size() == dist.get_world_size() or any(map(is_fsdp, model.modules())):
        return Ranks()
    if distributed or mesh.ndim > 1:
        raise ConfigError(
            f"the model is tensor-parallel over {mesh.size()} of {dist.get_world_size()} processes, and "
            "nothing brings in the gradients of the others. Write fully_shard(model, mesh=mesh['dp']), "
            "over the other dimension of the mesh, before this"
        )
    _log.warning(
        "the model is tensor-parallel over %d of %d processes: each %d train a model of their own. To train "
        "one together, write fully_shard(model, mesh=mesh['dp']) over the other dimension of the mesh",
        mesh.size(),
        dist.get_world_size(),
        mesh.size(),
    )
    return Ranks(mesh.get_group())

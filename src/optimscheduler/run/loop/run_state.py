"""Everything that the rest of a run depends on: taken for a checkpoint, and put back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from optimscheduler.api.optim_scheduler_dict import OptimSchedulerDict
from optimscheduler.parameters.owned import canonical
from optimscheduler.run.checkpoint.resuming import check_model, for_ranks
from optimscheduler.run.checkpoint.tensors import Place
from optimscheduler.run.config.schema import RunConfig
from optimscheduler.run.data.batch_ranges import BatchRanges
from optimscheduler.run.data.rng import random_state, restore_random_state
from optimscheduler.run.distributed.world import World
from optimscheduler.run.loop.modes import checked_trained, trained_again
from optimscheduler.shards import is_sharded
from optimscheduler.written import OnMismatch

__all__ = ["Progress", "RunState", "State"]

State = dict[str, Any]  # Any: a tree of plain values and tensors


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        epoch: the current one, from 1.
        batch_in_epoch: batches of it that are done.
        batch: batches of the whole run that are done.
        windows: windows that are over, idle ones included.
        skip: numbers of batches that are passed over.
    """

    epoch: int = 1
    batch_in_epoch: int = 0
    batch: int = 0
    windows: int = 0
    skip: BatchRanges = field(default_factory=BatchRanges)


class RunState:
    """The parts of a run that change while it goes on.

    Args:
        config: of the run.
        model: as it was built, not wrapped.
        optim_sches: over it.
        device: of this process.
        world: who takes part.
        batches: per epoch, as they are run now.
    """

    def __init__(
        self,
        config: RunConfig,
        model: nn.Module,
        optim_sches: OptimSchedulerDict,
        device: torch.device,
        world: World,
        batches: int,
    ) -> None:
        self._config, self._model, self._optim_sches = config, model, optim_sches
        self._device, self._world, self._batches = device, world, batches

    def taken(self, progress: Progress, lengths: Mapping[str, int], trained: Mapping[str, Tensor]) -> State:
        """All of it; tensors are references. All ranks take part.

        Args:
            progress: of the run.
            lengths: bytes in the files of metrics that belong to it.
            trained: weights as they are trained, where the model's are averages; see `averaged`.
        """
        return {
            "config": self._config.plain(),
            "ranks": self._world.count,
            "model": self._model.state_dict(),
            "optim_sches": self._optim_sches.state_dict(),
            "progress": asdict(progress) | {"skip": str(progress.skip)},
            "random": self._world.gather(random_state(self._device)),
            "lengths": dict(lengths),
            **({"trained": dict(trained)} if trained else {}),
        }

    def like(self, place: Place, size: torch.Size, dtype: torch.dtype) -> Tensor:
        """What to read a tensor of a checkpoint into: the model's own, or one sharded as its parameter."""
        own = self._tensors.get(place[1:]) if place[0] == "model" else None
        if own is not None and (own.shape, own.dtype) == (size, dtype):
            return own
        for name in place:
            parameter = self._sharded.get(name)
            if parameter is not None and parameter.shape == size:
                return torch.empty_like(parameter, dtype=dtype)
        return torch.empty(size, dtype=dtype)

    @cached_property
    def _tensors(self) -> dict[Place, Tensor]:
        saved = self._model.state_dict().items()
        return {(name,): value.detach() for name, value in saved if isinstance(value, Tensor)}

    @cached_property
    def _sharded(self) -> dict[str | int, Tensor]:
        named = self._model.named_parameters()
        return {canonical(name): p.detach() for name, p in named if is_sharded(p)}

    def restore(self, state: State, on_mismatch: OnMismatch, diverge: Callable[[int], None]) -> Progress:
        """Go on from a checkpoint.

        Args:
            state: from `taken`, read with `like`; its weights are taken out of it.
            on_mismatch: see `OptimScheduler.load_state_dict`.
            diverge: seeds the generators, given the batch, where those of the checkpoint do not fit.

        Raises:
            CheckpointError: it is of another model, or of other OptimSchedulers.
        """
        weights, saved, config = state.pop("model"), state["optim_sches"], self._config
        check_model(weights, self._model.state_dict())
        trained = checked_trained(state.pop("trained", {}), weights)
        if state["ranks"] != self._world.count and on_mismatch == "error":
            size = config.data_cfg.batch_size
            saved = for_ranks(saved, self._optim_sches, size, state["ranks"], self._world.count)
        self._model.load_state_dict(weights)
        del weights  # nobody else may look at parameters that are to lie side by side
        vars(self).pop("_tensors", None)
        self._optim_sches.load_state_dict(saved, on_mismatch)
        exact = on_mismatch != "config"  # another average is trained from other weights
        trained_again(self._optim_sches, trained if exact else {})
        skip = BatchRanges.read(state["progress"].get("skip", ""), "progress.skip")
        progress = Progress(**{**state["progress"], "skip": skip})
        items = progress.batch_in_epoch * state["config"]["data_cfg"]["batch_size"] * state["ranks"]
        done = math.ceil(items / (config.data_cfg.batch_size * self._world.count))
        progress.batch_in_epoch = min(done, self._batches)
        if state["ranks"] == self._world.count:
            restore_random_state(state["random"][self._world.rank], self._device)
        else:
            diverge(progress.batch)
        return progress

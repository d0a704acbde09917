"""The processes of a run: one, or as many as torchrun has started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from optimscheduler.errors import ConfigError, OptimSchedulerError, RankError
from optimscheduler.run.distributed.device import device_named, device_of_process
from optimscheduler.run.distributed.torchrun import rank_of_process
from optimscheduler.sync.ranks import meeting

__all__ = ["ALONE", "World", "joined"]

T = TypeVar("T")

_TO_LEAVE: Final = timedelta(seconds=5)  # together, after an error


class World:
    """Who takes part in a run, and what they agree on. Nothing here waits for an accelerator.

    Args:
        rank: of this process, from 0.
        count: of processes.
        local_count: of those on this machine.
        group: over the CPU; None is a single process.
    """

    def __init__(
        self, rank: int = 0, count: int = 1, local_count: int = 1, group: dist.ProcessGroup | None = None
    ) -> None:
        self.rank, self.count, self.local_count, self.group = rank, count, local_count, group

    @property
    def main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Everybody's values, plain ones or small tensors, rank by rank."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.count  # Any: as torch gives them back
        with meeting("tell one another how they are"):
            dist.all_gather_object(values, value, group=self.group)
        return values

    def any(self, wish: bool) -> bool:
        """Whether it is true of any of them."""
        if self.group is None:
            return wish
        wishes = torch.tensor([int(wish)])
        with meeting("agree on whether to go on"):
            dist.all_reduce(wishes, group=self.group)
        return bool(wishes.item())

    def wait(self) -> None:
        """Until all of them are here."""
        self.any(False)

    def apart(self) -> World:
        """The same processes with a channel of their own, for a thread; all of them must ask for it."""
        if self.group is None:
            return self
        return World(self.rank, self.count, self.local_count, dist.new_group(backend="gloo"))

    def same(self, what: str, value: object) -> None:
        """Check that all of them see the same.

        Raises:
            RankError: one does not.
        """
        first, *others = self.gather(value)
        for rank, other in enumerate(others, start=1):
            if other != first:
                raise RankError(f"rank {rank} has another {what} than rank 0: {other!r}, not {first!r}")

    def run_on_all_ranks(self, prepare: Callable[[], T]) -> T:
        """Let everybody prepare something; if one cannot, all of them stop.

        Raises:
            OptimSchedulerError: this process could not.
            RankError: another one could not.
        """
        try:
            result, error = prepare(), None
        except OptimSchedulerError as failure:
            if self.group is None:
                raise
            error = failure
        errors = self.gather(None if error is None else str(error))
        if error is not None:
            raise error
        for rank, text in enumerate(errors):
            if text is not None:
                raise RankError(f"rank {rank}: {text}")
        return result


ALONE: Final = World()
"""A single process."""


def _store(count: int) -> Any:  # Any: torch does not declare the class
    """Where the processes find one another.

    On one machine torchrun keeps it from one restart to the next, with the addresses of those that are dead;
    so each restart has a part of its own. Several machines need not count restarts alike, and are given a
    new one by `--rdzv-backend c10d`.
    """
    store, _, _ = next(rendezvous("env://"))
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) < count:
        return store
    part = f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    return dist.PrefixStore(part, store)  # type: ignore[attr-defined]  # see above


@contextmanager
def joined(device: str, distributed: bool | str) -> Iterator[tuple[World, torch.device]]:
    """Join the processes that torchrun has started, until the end of the context.

    Args:
        device: of the configuration; `"auto"` is one accelerator per process.
        distributed: of the configuration.

    Raises:
        ConfigError: the device is not there, or several processes were started for a run of one.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE, device_named(device)
        return
    if distributed is False:
        raise ConfigError(
            f"distributed: it is false, but {count} processes were started; write ddp or fsdp, or leave out "
            "torchrun"
        )
    rank, found = rank_of_process(), device_of_process(device, int(os.environ.get("LOCAL_RANK", "0")))
    try:
        backend = "cpu:gloo,cuda:nccl" if found.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=_store(count), rank=rank, world_size=count)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RankError(
            f"the {count} processes cannot meet; start them with torchrun: {reason:.200}"
        ) from error
    try:
        group = dist.group.WORLD if found.type == "cpu" else dist.new_group(backend="gloo")
        yield World(rank, count, int(os.environ.get("LOCAL_WORLD_SIZE", "1")), group), found
        dist.barrier(group)  # nobody leaves while others still hear from it
    except OptimSchedulerError:  # on all ranks as a rule, or one has gone already
        with suppress(RuntimeError):
            dist.monitored_barrier(group, _TO_LEAVE)
        raise
    finally:
        dist.destroy_process_group()

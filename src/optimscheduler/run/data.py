"""The data of a run, in an order that is a function of (seed, epoch), so that it can be entered anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from optimscheduler.errors import ConfigError
from optimscheduler.lookup import class_at, construct
from optimscheduler.run.config import ClassConf

__all__ = ["Batches", "build_dataset", "to_device"]


def build_dataset(described: ClassConf, where: str) -> Dataset[Any]:
    """The data set that a configuration names.

    Raises:
        ConfigError: it is no map-style data set, refuses its arguments, or is empty.
    """
    found: type[Dataset[Any]] = class_at(described.type, Dataset, f"{where}.type")
    if issubclass(found, IterableDataset):
        raise ConfigError(
            f"{where}.type: {described.type} is an IterableDataset; a run needs one with __len__ and "
            "__getitem__, because it must be able to go on in the middle of an epoch"
        )
    dataset: Dataset[Any] = construct(found, described.conf, f"{where}.conf")
    if not isinstance(dataset, Sized) or len(dataset) == 0:
        raise ConfigError(f"{where}: the data set {described.type} is empty")
    return dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """The batches of a data set.

    Args:
        dataset: map-style.
        batch_size: rows per batch; the last batch of an epoch may have fewer.
        seed: of the order; None keeps the data set's own order.
        num_workers: loading processes.
    """

    dataset: Dataset[Any]
    batch_size: int
    seed: int | None
    num_workers: int = 0

    def __len__(self) -> int:
        return -(-len(cast("Sized", self.dataset)) // self.batch_size)

    def of_epoch(self, epoch: int, first: int = 0, end: int | None = None) -> Iterator[Any]:
        """The batches of an epoch, from the `first` (counted from 0) up to, not including, `end`.

        The global random generator is not consumed.
        """
        rows = len(cast("Sized", self.dataset))
        generator = torch.Generator().manual_seed((self.seed or 0) * 1_000_003 + epoch)
        order = torch.arange(rows) if self.seed is None else torch.randperm(rows, generator=generator)
        batches = [part.tolist() for part in torch.split(order, self.batch_size)][first:end]
        return iter(
            DataLoader(self.dataset, batch_sampler=batches, num_workers=self.num_workers, generator=generator)
        )


def to_device(batch: Any, device: torch.device) -> Any:  # Any: whatever the data set yields
    """The batch with every tensor in it on the device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(part, device) for key, part in batch.items()}
    if isinstance(batch, list | tuple):
        parts = [to_device(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch

"""Batches whose order and randomness are a function of (seed, epoch, place), so a run can resume anywhere.

The order of an epoch is a permutation drawn from a generator of its own. What a data set draws at random
while it gives an item is drawn from generators seeded for that batch, and the global ones are put back. So
neither the number of loading processes nor where a run was stopped changes anything.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from optimscheduler.run.config.instantiate import build_dataset
from optimscheduler.run.config.schema import RunConfig
from optimscheduler.run.data.rng import derived_seed, host_seeded, seed_everything

__all__ = ["RunData", "batch_indices", "moved", "open_data"]

Batch = Any  # whatever the data set's items collate to


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What to load: the numbers of the items, and the seed for whatever is random in them."""

    indices: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one rank takes of a batch.

    Attributes:
        indices: numbers of the items; a stand-in where none is left for this rank.
        count: how many of them count; 0 for a stand-in.
        of: items in the whole batch.
    """

    indices: tuple[int, ...]
    count: int
    of: int


class _Batches(Dataset[Batch]):
    """A data set of whole batches, indexed by what is to be in them."""

    def __init__(self, items: Dataset[Any]) -> None:
        self._items = items

    def __getitem__(self, wanted: _Wanted) -> Batch:
        with host_seeded(wanted.seed):
            return default_collate(self._taken(wanted.indices))

    def _taken(self, indices: Sequence[int]) -> list[Any]:
        if hasattr(self._items, "__getitems__"):
            return list(self._items.__getitems__(list(indices)))
        return [self._items[index] for index in indices]


def batch_indices(count: int, batch_size: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """The batches of an epoch: item numbers in shuffled order, the last batch with what is left.

    Args:
        count: items in the data set, >= 1.
        batch_size: items per batch, >= 1.
        seed: the run's.
        epoch: from 1.

    >>> sorted(sum(batch_indices(5, 2, seed=0, epoch=1), ()))
    [0, 1, 2, 3, 4]
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
    return _cut(torch.randperm(count, generator=generator).tolist(), batch_size)


def _dealt(batch: tuple[int, ...], size: int, rank: int) -> _Part:
    """One rank's part of a batch: `size` items, of the last batch of an epoch what is left for this rank.

    >>> _dealt((7, 8, 9), size=2, rank=1)
    _Part(indices=(9,), count=1, of=3)
    >>> _dealt((7, 8), size=2, rank=1)
    _Part(indices=(7, 8), count=0, of=2)
    """
    mine = batch[rank * size : (rank + 1) * size]
    return _Part(indices=mine or batch[:size], count=len(mine), of=len(batch))


def _cut(order: Sequence[int], batch_size: int) -> list[tuple[int, ...]]:
    return [tuple(order[at : at + batch_size]) for at in range(0, len(order), batch_size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """The batches of a run.

    Args:
        config: the run's.
        train: what is trained on.
        valid: what is validated on; None goes without.
        rank: of this process.
        ranks: among how many the batches are dealt out.
    """

    config: RunConfig
    train: Dataset[Any]
    valid: Dataset[Any] | None
    rank: int = 0
    ranks: int = 1

    @property
    def items(self) -> int:
        """Items in the training set."""
        return len(self.train)  # type: ignore[arg-type]  # checked to have a length when it was built

    @property
    def valid_items(self) -> int:
        """Items in the validation set."""
        return len(self.valid) if self.valid is not None else 0  # type: ignore[arg-type]  # as above

    @property
    def batches(self) -> int:
        """Batches that an epoch's items make, each rank with `batch_size` of their items."""
        return math.ceil(self.items / (self.config.data_cfg.batch_size * self.ranks))

    @property
    def tokens_per_item(self) -> object:
        """What the training set says about itself, if it does."""
        return getattr(self.train, "tokens_per_item", None)

    def training(
        self, epoch: int, device: torch.device, places: Sequence[int]
    ) -> Iterator[tuple[int, float, Batch]]:
        """This rank's parts of some batches of an epoch: the place, the weight, and what is in it.

        Every rank has a part of every batch, so that all take the same number of steps. The weight says how
        much it counts, 0 where it is only a stand-in: where samples per update were asked for, the items in
        it, as a share of `batch_size`; otherwise its share of the batch, times the number of ranks.

        Args:
            epoch: from 1.
            device: where they are wanted.
            places: of the batches in the epoch, from 0; the others are not loaded.
        """
        seed, size = self.config.seed, self.config.data_cfg.batch_size
        whole = batch_indices(self.items, size * self.ranks, seed, epoch)
        parts = [_dealt(batch, size, self.rank) for batch in whole]
        own = (self.rank,) if self.ranks > 1 else ()
        wanted = [
            _Wanted(indices=parts[place].indices, seed=derived_seed(seed, "items", epoch, place, *own))
            for place in places
        ]
        weights = (self._weight(parts[place]) for place in places)
        return zip(places, weights, self._loaded(self.train, wanted, device), strict=True)

    def _weight(self, part: _Part) -> float:
        if self.config.counts_items:
            return part.count / self.config.data_cfg.batch_size
        return part.count * self.ranks / part.of

    def validation(self, device: torch.device) -> Iterator[tuple[int, Batch]]:
        """The number of items in, and the contents of, this rank's validation batches.

        They are the same each time. Every rank has as many; those that are stand-ins have 0 items.
        """
        if self.valid is None:
            return
        cfg = self.config.data_cfg
        cut = _cut(range(self.valid_items), cfg.valid_batch_size or cfg.batch_size)
        mine = [(place, cut[place], len(cut[place])) for place in range(self.rank, len(cut), self.ranks)]
        mine += [(0, cut[0], 0)] * (-(-len(cut) // self.ranks) - len(mine))
        wanted = [
            _Wanted(indices=chosen, seed=derived_seed(self.config.seed, "validation", place))
            for place, chosen, _ in mine
        ]
        yield from zip((n for *_, n in mine), self._loaded(self.valid, wanted, device), strict=True)

    def _loaded(self, items: Dataset[Any], wanted: list[_Wanted], device: torch.device) -> Iterator[Batch]:
        loader = DataLoader(
            _Batches(items),
            batch_size=None,
            sampler=wanted,
            num_workers=self.config.data_cfg.num_workers,
            worker_init_fn=_ignore_interrupts,
            pin_memory=device.type == "cuda",
            generator=torch.Generator().manual_seed(
                self.config.seed
            ),  # else it would draw from the global one
        )
        return (moved(batch, device) for batch in loader)


def open_data(config: RunConfig, rank: int = 0, ranks: int = 1) -> RunData:
    """Build the data sets.

    Raises:
        ConfigError: there is no such class, or a set is empty.
    """
    seed_everything(config.seed)
    train = build_dataset(config.data_cfg.train, "data_cfg.train")
    held_out = config.data_cfg.valid
    valid = None if held_out is None else build_dataset(held_out, "data_cfg.valid")
    return RunData(config=config, train=train, valid=valid, rank=rank, ranks=ranks)


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on the device; mappings, lists and tuples are gone through.

    >>> moved({"x": [torch.zeros(2)], "name": "a"}, torch.device("cpu"))
    {'x': [tensor([0., 0.])], 'name': 'a'}
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(moved(value, device) for value in batch)
    return batch


def _ignore_interrupts(_worker: int) -> None:
    """Ctrl-C and SIGTERM may reach a whole group of processes; the main one decides when to stop.

    By SIGTERM torch ends a worker that does not end by itself, too: the second one works.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _frame: signal.signal(number, signal.SIG_DFL))

"""Batches are a function of (seed, epoch, place)."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.run.config.schema import RunConfig
from optimscheduler.run.data.batches import batch_indices, moved, open_data
from optimscheduler.run.data.rng import random_state
from tests.run.command import config_of

CPU = torch.device("cpu")


def batches(config: RunConfig, epoch: int = 1, first: int = 0, end: int = 5) -> list[dict[str, torch.Tensor]]:
    parts = list(open_data(config).training(epoch, CPU, range(first, end)))
    assert [place for place, _, _ in parts] == list(range(first, end))
    assert {share for _, share, _ in parts} <= {1.0}, "a single process has the whole of each"
    return [batch for _, _, batch in parts]


def equal(ours: list[dict[str, torch.Tensor]], theirs: list[dict[str, torch.Tensor]]) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(a[key], b[key]) for a, b in zip(ours, theirs, strict=True) for key in a
    )


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 2**63 - 1), st.integers(1, 100))
def test_every_item_comes_once_per_epoch(count: int, batch_size: int, seed: int, epoch: int) -> None:
    cut = batch_indices(count, batch_size, seed, epoch)
    assert sorted(index for batch in cut for index in batch) == list(range(count))
    assert {len(batch) for batch in cut[:-1]} <= {batch_size}
    assert 1 <= len(cut[-1]) <= batch_size


def test_the_order_follows_from_seed_and_epoch() -> None:
    assert batch_indices(50, 50, 0, 1) == batch_indices(50, 50, 0, 1)
    assert len({batch_indices(50, 50, seed, epoch)[0] for seed in (0, 1) for epoch in (1, 2)}) == 4


@pytest.mark.parametrize("first", [0, 1, 3, 5])
def test_an_epoch_that_is_begun_anywhere_goes_on_with_the_same_batches(first: int) -> None:
    whole = batches(config_of())
    assert [len(batch["x"]) for batch in whole] == [4, 4, 4, 4, 2]
    assert equal(batches(config_of(), first=first), whole[first:])
    assert equal(batches(config_of(), end=4), whole[:4])
    assert not equal(batches(config_of(), epoch=2), whole)


def test_noise_is_drawn_anew_in_every_epoch() -> None:
    def noise(epoch: int) -> set[float]:
        rows = [row for batch in batches(config_of(), epoch) for row in zip(*batch.values(), strict=True)]
        return {round((y - x.sum()).item(), 5) for x, y in rows}

    assert len(noise(1)) == 18
    assert not noise(1) & noise(2)


def test_loading_does_not_touch_the_global_generators() -> None:
    data = open_data(config_of())
    before = random_state(CPU)
    list(data.training(1, CPU, range(5)))
    list(data.validation(CPU))
    after = random_state(CPU)
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]
    assert before["numpy"] == after["numpy"]


def test_processes_that_load_give_the_same_batches() -> None:
    assert equal(batches(config_of("data_cfg.num_workers=2")), batches(config_of()))


def test_validation_is_the_same_each_time_and_says_how_many_items_there_are() -> None:
    data = open_data(config_of("data_cfg.valid_batch_size=5"))
    counts, once = zip(*data.validation(CPU), strict=True)
    assert counts == (5, 1)
    assert equal(list(once), [batch for _, batch in data.validation(CPU)])
    assert data.valid_items == 6
    assert [count for count, _ in open_data(config_of()).validation(CPU)] == [4, 2]


def test_without_validation_data_there_are_no_batches() -> None:
    data = open_data(config_of("data_cfg.valid=null"))
    assert list(data.validation(CPU)) == []
    assert data.valid_items == 0


def test_items_that_can_be_taken_together_are() -> None:
    class Together(torch.utils.data.Dataset[int]):
        def __len__(self) -> int:
            return 18

        def __getitems__(self, indices: list[int]) -> list[int]:
            assert isinstance(indices, list)
            return [index * 10 for index in indices]

    data = open_data(config_of())
    object.__setattr__(data, "train", Together())
    tens = torch.cat([batch for *_, batch in data.training(1, CPU, range(5))])
    assert tens.tolist() == [index * 10 for batch in batch_indices(18, 4, 3, 1) for index in batch]


Pair = namedtuple("Pair", ["left", "right"])  # what collate functions make


def test_nested_batches_are_moved_whole() -> None:
    batch: Any = {
        "a": torch.zeros(2),
        "b": [torch.zeros(1), (torch.zeros(1), "text")],
        "c": Pair(torch.zeros(3), 4),
    }
    there = moved(batch, torch.device("meta"))
    tensors = [there["a"], there["b"][0], there["b"][1][0], there["c"].left]
    assert [t.device.type for t in tensors] == ["meta"] * 4
    assert there["b"][1][1] == "text"
    assert isinstance(there["c"], Pair)
    assert there["c"].right == 4

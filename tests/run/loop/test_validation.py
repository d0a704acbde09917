"""Means over the held-out data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optimscheduler.errors import ConfigError, LossNotFound
from optimscheduler.run.loop.validation import items_behind, mean_outputs, outputs_of
from tests.cases import HalvedWhenWorse
from tests.run.command import call, metrics, write


class Echo(nn.Module):
    """Returns the batch."""

    def forward(self, batch: Any) -> Any:
        return batch


def means(batches: list[tuple[int, Any]], weight: str | None = None) -> dict[str, float] | None:
    return mean_outputs(Echo(), batches, weight, lambda: False)


def test_each_batch_counts_as_much_as_it_has_items() -> None:
    batches = [(4, {"loss": torch.tensor(1.0)}), (2, {"loss": torch.tensor(4.0)})]
    assert means(batches) == {"loss": 2.0}  # (4 * 1 + 2 * 4) / 6


def test_the_model_may_say_how_many_items_there_are() -> None:
    batches = [
        (4, {"loss": torch.tensor(1.0), "frames": torch.tensor(10)}),
        (4, {"loss": torch.tensor(2.0), "frames": torch.tensor(30)}),
        (4, {"loss": torch.tensor(math.nan), "frames": torch.tensor(0)}),  # the mean of nothing
    ]
    assert means(batches, "frames") == {"loss": 1.75}  # (10 * 1 + 30 * 2) / 40


def test_what_is_no_single_number_is_left_out() -> None:
    batch = {"loss": torch.tensor([1.0]), "each": torch.ones(3), "text": "a", "accuracy": torch.tensor(0.5)}
    assert means([(1, batch)]) == {"loss": 1.0, "accuracy": 0.5}


def test_sums_are_exact_in_double_precision() -> None:
    batches = [(1, {"loss": torch.tensor(0.1)})] * 10_000
    assert means(batches) == {"loss": float(torch.tensor(0.1))}


def test_nothing_counted_is_nan_and_nothing_there_is_nothing() -> None:
    found = means([(1, {"loss": torch.tensor(1.0), "n": torch.tensor(0)})], "n")
    assert found is not None
    assert math.isnan(found["loss"])
    assert means([]) == {}


def test_it_can_be_stopped_before_every_batch() -> None:
    answers = iter([False, True])
    batches = [(1, {"loss": torch.tensor(1.0)})] * 3
    assert mean_outputs(Echo(), batches, None, lambda: next(answers)) is None


def test_a_model_that_returns_no_dict_is_told() -> None:
    with pytest.raises(ConfigError, match=r"train_cfg\.model\.type: Echo returned a Tensor; .* dict"):
        outputs_of(Echo(), torch.tensor(1.0))


def test_a_number_of_items_that_is_not_there_is_told() -> None:
    with pytest.raises(LossNotFound, match=r"train_cfg\.weight: the model returned no 'itmes'.*'items'"):
        items_behind({"items": torch.tensor(1)}, "itmes")
    assert items_behind({"items": torch.tensor(1)}, None) is None


def test_validation_is_in_eval_mode_and_what_it_draws_changes_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tests.run.tiny as tiny

    modes: list[bool] = []

    class Careless(tiny.Tiny):
        def forward(self, batch: Any) -> Any:
            if not self.training:
                modes.append(torch.is_grad_enabled())
                torch.rand(5)
            return super().forward(batch)

    config = write(tmp_path)
    assert call("train", config, "num_epochs=2", "--out", tmp_path / "plain").code == 0
    monkeypatch.setattr(tiny, "Tiny", Careless)
    assert call("train", config, "num_epochs=2", "--out", tmp_path / "careless").code == 0
    assert modes == [False] * 4  # two batches, two epochs
    losses = [[record["loss"] for record in metrics(tmp_path / run)] for run in ("plain", "careless")]
    assert losses[0] == losses[1]


def test_the_held_out_loss_is_observed_by_a_schedule_that_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[float] = []
    observe = HalvedWhenWorse.observe

    def noted(self: HalvedWhenWorse, state: dict[str, float], metric: float) -> dict[str, float]:
        heard.append(metric)
        return observe(self, state, metric)

    monkeypatch.setattr(HalvedWhenWorse, "observe", noted)
    member = (
        "train_cfg.optim_sches={conf: {optim_type: SGD, optim_conf: {lr: 0.5}, "
        "schedule: tests.cases.HalvedWhenWorse()}}"
    )
    assert call("train", write(tmp_path), member, "--out", tmp_path / "run").code == 0
    validation = metrics(tmp_path / "run", "validation.jsonl")
    assert heard == [record["loss"] for record in validation]
    # the rate of an epoch is halved for every time that the loss had become worse before it
    worse = [heard[1] > heard[0], heard[1] > heard[0], False]
    lrs = [record["lr"] for record in metrics(tmp_path / "run")]
    assert lrs[:6] == [0.5] * 6
    assert lrs[6:] == [0.5 * 0.5 ** worse[0]] * 3


def test_what_is_written_of_a_validation(tmp_path: Path) -> None:
    model = "train_cfg.model={type: tests.run.tiny.Weighted}"
    said = call(
        "train", write(tmp_path), model, "train_cfg.weight=items", "num_epochs=1", "--out", tmp_path / "run"
    )
    assert said.code == 0
    line = json.loads((tmp_path / "run" / "validation.jsonl").read_text())
    assert list(line) == ["batch", "real_step", "epoch", "loss"]  # `items` counts and is no result
    assert (line["batch"], line["real_step"], line["epoch"]) == (5, 3, 1)

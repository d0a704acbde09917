"""Buffers that a bad batch has spoilt: never validated with, never saved, and the same in a resumed run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from optimscheduler.run.data.batches import batch_indices
from optimscheduler.run.loop.buffer_guard import CleanBuffers
from tests.run.command import call, last_weights, metrics, saved, without_seconds, write
from tests.run.tiny import Tiny

LAST = batch_indices(18, 4, 3, 1)[4][0]
"""An item of the last batch of the first epoch; carried over, its window is closed in the second."""

CARRY = ["partial_window=carry", f"data_cfg.train={{type: tests.run.tiny.Poisoned, conf: {{bad: {LAST}}}}}"]

GOOD, BAD = torch.tensor(1.0), torch.tensor(torch.nan)


def means_and_variances(model: Tiny) -> tuple[list[float], list[float]]:
    return model.norm.running_mean.tolist(), model.norm.running_var.tolist()


def test_what_a_bad_batch_has_spoilt_is_put_back_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    model = Tiny()
    buffers = CleanBuffers(model)
    model.norm.running_mean.fill_(2.0)
    buffers.after([GOOD])
    model.norm.running_mean.fill_(torch.inf)
    model.norm.running_var.fill_(3.0)
    buffers.after([GOOD, BAD])
    assert means_and_variances(model) == ([2.0] * 6, [3.0] * 6)
    buffers.tell()
    buffers.tell()
    assert caplog.messages == ["1 of the model's buffers were not finite any more, and were put back"]


def test_without_a_bad_loss_it_is_put_back_when_the_gradient_is_refused() -> None:
    model = Tiny()
    buffers = CleanBuffers(model)
    model.norm.running_mean[0] = torch.nan
    buffers.after([GOOD])
    assert model.norm.running_mean[0].isnan(), "an infinite buffer may be meant"
    buffers.refused()
    assert model.norm.running_mean.tolist() == [0.0] * 6


def test_a_buffer_that_never_was_finite_is_left_alone_and_keeps_no_other_from_being_remembered() -> None:
    model = nn.Module()
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    model.register_buffer("mean", torch.tensor(0.0))
    buffers = CleanBuffers(model)
    model.mean.fill_(5.0)
    buffers.after([GOOD])
    model.mask.copy_(torch.tensor([-torch.inf, 0.0]))
    model.mean.fill_(torch.nan)
    buffers.after([BAD])
    assert model.mask.tolist() == [-torch.inf, 0.0]
    assert float(model.mean) == 5.0


def test_a_model_without_such_buffers_has_nothing_to_put_back() -> None:
    buffers = CleanBuffers(nn.Linear(1, 1))
    buffers.after([BAD])
    buffers.refused()
    buffers.tell()


def test_a_buffer_of_another_size_is_remembered_anew() -> None:
    model = Tiny()
    buffers = CleanBuffers(model)
    model.norm.running_mean = torch.ones(3)
    buffers.after([GOOD])
    model.norm.running_mean.fill_(torch.nan)
    buffers.after([BAD])
    assert model.norm.running_mean.tolist() == [1.0] * 3


def test_no_validation_is_with_buffers_that_a_batch_in_an_open_window_has_spoilt(tmp_path: Path) -> None:
    assert call("train", write(tmp_path), *CARRY, "--out", tmp_path / "run").code == 0
    assert len(metrics(tmp_path / "run", "validation.jsonl")) == 3
    assert all(line["loss"] is not None for line in metrics(tmp_path / "run", "validation.jsonl"))


def test_what_a_refused_window_has_spoilt_is_put_back_though_its_loss_is_finite(tmp_path: Path) -> None:
    settings = ["train_cfg.model.type=tests.run.tiny.Hides", "data_cfg.train.type=tests.run.tiny.Poisoned"]
    assert call("train", write(tmp_path), *settings, "--out", tmp_path / "run").code == 0
    assert sum(record["skipped"] for record in metrics(tmp_path / "run")) == 3
    assert all(value.isfinite().all() for value in last_weights(tmp_path / "run").values())


@pytest.mark.parametrize("batch", [4, 5, 6, 7, 11])
def test_R34_stopped_beside_a_bad_batch_is_as_if_never_stopped(batch: int, tmp_path: Path) -> None:
    config = write(tmp_path)
    assert call("train", config, *CARRY, "--out", tmp_path / "whole").code == 0
    assert call("train", config, *CARRY, "--out", tmp_path / "run", "--stop-after", batch).code == 130
    assert call("train", config, *CARRY, "--out", tmp_path / "run", "--resume").code == 0
    ours, theirs = last_weights(tmp_path / "run"), last_weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for name in ("metrics.jsonl", "validation.jsonl"):
        lines = [without_seconds(metrics(tmp_path / run, name)) for run in ("run", "whole")]
        assert lines[0] == lines[1]


def test_no_checkpoint_has_buffers_that_are_not_finite(tmp_path: Path) -> None:
    config = write(tmp_path)
    assert call("train", config, *CARRY, "--out", tmp_path / "run", "--stop-after", 5).code == 130
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        assert all(value.isfinite().all() for value in saved(path)["model"].values())


def test_a_held_out_mean_that_is_not_finite_lowers_no_rate(tmp_path: Path) -> None:
    member = (
        "train_cfg.optim_sches={conf: {optim_type: SGD, optim_conf: {lr: 0.01}, "
        "schedule: 'ReduceOnPlateau(patience=0)'}}"
    )
    held_out = "data_cfg.valid={type: tests.run.tiny.Poisoned, conf: {count: 8}}"
    said = call("train", write(tmp_path), member, held_out, "--out", tmp_path / "run")
    assert said.code == 0
    assert said.out.count("the mean of 'loss' over the held-out data is nan; no schedule is told") == 3
    assert {record["lr"] for record in metrics(tmp_path / "run")} == {0.01}


def test_buffers_that_nobody_can_write_to_are_left_alone() -> None:
    model = Tiny()
    model.register_buffer("repeated", torch.ones(1).expand(3))
    model.register_buffer("learnt", torch.ones(2, requires_grad=True))
    model.register_buffer("narrow", torch.ones(2).to(torch.float8_e4m3fn))
    buffers = CleanBuffers(model)
    model.norm.running_mean.fill_(torch.nan)
    buffers.after([torch.tensor(torch.nan)])
    assert model.norm.running_mean.tolist() == [0.0] * 6
    assert model.get_buffer("repeated").tolist() == [1.0] * 3

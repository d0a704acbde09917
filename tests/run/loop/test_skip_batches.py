"""`--skip-batches`: batches that are left out, from the start or from where a run is, and stay so."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from optimscheduler.run.checkpoint.manifest import Manifest
from optimscheduler.run.data.batches import batch_indices
from optimscheduler.run.monitor import JsonLines
from tests.run.command import (
    Said,
    call,
    checkpoints,
    last_weights,
    metrics,
    without_seconds,
    write,
)

SMOOTH = "train_cfg.model={type: tests.run.tiny.Smooth}"

CONF = "optim_type: SGD, optim_conf: {lr: 0.01}"

UNEQUAL = (
    f"train_cfg.optim_sches={{"
    f"fast: {{conf: {{{CONF}, optim_loss: easy, updated_modules: easy, accum_grad: 1}}}}, "
    f"slow: {{conf: {{{CONF}, optim_loss: hard, updated_modules: hard, accum_grad: 4}}}}}}"
)

TWO_LOSSES = ["train_cfg.model={type: tests.run.tiny.TwoLosses}", UNEQUAL]


class Killed(BaseException):
    """Stands for SIGKILL."""


def poisoned(*places: int) -> str:
    """Data with an item in each of these batches of the first epoch that is no number."""
    order = batch_indices(18, 4, 3, 1)
    bad = [order[place - 1][0] for place in places]
    return f"data_cfg.train={{type: tests.run.tiny.Poisoned, conf: {{bad: {bad}}}}}"


def typed(said: Said) -> list[str]:
    """What the message says to type, without the name of the command."""
    assert said.code == 2, said
    return shlex.split(said.err.partition("without these batches:")[2])[1:]


def same(one: Path, other: Path) -> None:
    ours, theirs = last_weights(one), last_weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert without_seconds(metrics(one)) == without_seconds(metrics(other))
    assert metrics(one, "validation.jsonl") == metrics(other, "validation.jsonl")


def test_batches_may_be_left_out_from_the_start(tmp_path: Path) -> None:
    config = write(tmp_path)
    # windows end at 2 4 5 7 9 10 12 14 15; without 3-5 two are left out, without 6 one is of a single batch,
    # and without 12 its other batch joins the next
    said = call("train", config, "--skip-batches", "3-5, 6,12", "--out", tmp_path / "run")
    assert said.code == 0
    assert "skipping   batches 3-6,12" in said.out
    assert [record["batch"] for record in metrics(tmp_path / "run")] == [2, 7, 9, 10, 14, 15]
    assert [record["real_step"] for record in metrics(tmp_path / "run")] == [1, 4, 5, 6, 8, 9]


@pytest.mark.parametrize("text", ["0", "5-3", "a", "1;2", "-3", "1-"])
def test_what_is_no_number_of_a_batch_is_told(text: str, tmp_path: Path) -> None:
    said = call("train", write(tmp_path), f"--skip-batches={text}", "--out", tmp_path / "run")
    assert said.code == 2
    assert "--skip-batches must be numbers of batches from 1, like 1200-1210" in said.err


def test_batches_that_are_done_stay_done_and_that_is_said(tmp_path: Path) -> None:
    config, out = write(tmp_path), ["--out", tmp_path / "run"]
    assert call("train", config, *out, "--stop-after", 7).code == 130
    said = call("train", config, *out, "--resume", "--skip-batches", "6-8")
    assert said.code == 0
    assert "--skip-batches: batch 6 is done already, and stays done; the run goes on with batch 8" in said.out
    assert [record["batch"] for record in metrics(tmp_path / "run")] == [2, 4, 5, 7, 9, 10, 12, 14, 15]


def test_a_whole_epoch_may_be_left_out_and_the_next_is_as_it_was(tmp_path: Path) -> None:
    config = write(tmp_path)
    said = call("train", config, "--skip-batches", "6-10", "--out", tmp_path / "run")
    assert said.code == 0
    assert [record["real_step"] for record in metrics(tmp_path / "run")] == [1, 2, 3, 7, 8, 9]
    assert len(metrics(tmp_path / "run", "validation.jsonl")) == 3


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["data_cfg.num_workers=1"],
        ["accum_grad=", "samples_per_update=12"],
        ["partial_window=carry"],
        ["partial_window=carry", "accum_grad=4"],
        ["partial_window=drop"],
        TWO_LOSSES,
        [*TWO_LOSSES, "partial_window=carry"],
    ],
    ids=["apply", "workers", "samples", "carry", "carry 4", "drop", "unequal", "unequal carry"],
)
@pytest.mark.parametrize("batch", [1, 3, 5])
def test_left_out_from_the_middle_is_left_out_from_the_start(
    batch: int, settings: list[str], tmp_path: Path
) -> None:
    config, skip = write(tmp_path), ["--skip-batches", "6-7,9,11-12"]
    assert call("train", config, *settings, *skip, "--out", tmp_path / "whole").code == 0
    run = ["train", config, *settings, "--out", tmp_path / "run"]
    assert call(*run, "--stop-after", batch).code == 130
    said = call(*run, "--resume", *skip)
    assert said.code == 0
    assert "warning" not in said.out
    same(tmp_path / "run", tmp_path / "whole")


def test_an_open_window_with_such_a_batch_in_it_is_dropped_and_one_command_is_enough(tmp_path: Path) -> None:
    config, run = write(tmp_path), tmp_path / "run"
    settings = [poisoned(5), SMOOTH, "partial_window=carry", "num_epochs=2"]
    said = call("train", config, *settings, "on_nonfinite=raise", "--out", run)
    assert checkpoints(run)[-1] == "batch-00000005", "the window of 5 and 6 is open, and has the bad gradient"
    assert "Newest checkpoint: batch-00000005. To go on" in said.err, "that is not from before"
    assert typed(said)[-1] == "5-6"
    said = call(*typed(said))
    assert "of loss 'loss', the open window with batches 5 is dropped" in said.out
    assert "is done already" not in said.out
    assert "Newest checkpoint, from before: batch-00000" in said.err, "the second epoch has the item too"
    skip = typed(said)[-1]
    assert skip == "5-8"
    assert call(*typed(said)).code == 0
    assert call("train", config, *settings, "--skip-batches", skip, "--out", tmp_path / "whole").code == 0
    same(run, tmp_path / "whole")


def test_of_two_members_the_window_of_the_slow_one_is_dropped(tmp_path: Path) -> None:
    config, run = write(tmp_path), tmp_path / "run"
    settings = [*TWO_LOSSES, poisoned(2), "num_epochs=1", "checkpoint_every=1", "on_nonfinite=raise"]
    said = call("train", config, *settings, "--out", run)
    assert "Newest checkpoint: batch-00000003. To go on" in said.err
    again = typed(said)
    assert again[-1] == "1-4"
    said = call(*again)
    assert said.code == 0, said
    assert "of loss 'hard', the open window with batches 1-3 is dropped" in said.out
    assert "batch 1 is done already, and stays done; the run goes on with batch 4" in said.out, "by the other"
    slow = [record for record in metrics(run) if record["member"] == "slow"]
    assert [(record["batch"], record["real_step"]) for record in slow] == [(5, 2)]


def test_two_bad_windows_after_one_checkpoint_take_one_command_each(tmp_path: Path) -> None:
    settings = [poisoned(2, 5), "checkpoint_every=10", "num_epochs=1", "on_nonfinite=raise"]
    said = call("train", write(tmp_path), *settings, "--out", tmp_path / "run")
    assert typed(said)[-1] == "1-2"
    said = call(*typed(said))
    assert typed(said)[-1] == "1-2,5"
    assert call(*typed(said)).code == 0


def test_they_stay_left_out_when_the_run_is_killed_before_its_next_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = write(tmp_path), ["--out", tmp_path / "run"]
    assert call("train", config, "--skip-batches", "8", "--out", tmp_path / "whole").code == 0
    assert call("train", config, "num_epochs=1", "keep_best=1", *out).code == 0

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(JsonLines, "window", killed)
        with pytest.raises(Killed):
            call("train", config, *out, "--resume", "--skip-batches", "8")
    (newest,) = [name for name in checkpoints(tmp_path / "run") if name.startswith("batch-00000005")]
    assert Manifest.read(tmp_path / "run" / "checkpoints" / newest).metrics, "it is as good as it was"
    said = call("train", config, *out, "--resume")
    assert said.code == 0
    assert "skipping   batches 8" in said.out
    same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("skip", "says"),
    [
        ("1-15", "every batch is left out, so nothing is trained"),
        ("16-20", "batch 16 and later do not exist; the run has 15"),
        ("3,14-20,25", "batch 16 and later do not exist; the run has 15"),
    ],
)
def test_what_comes_to_nothing_is_said(skip: str, says: str, tmp_path: Path) -> None:
    said = call("train", write(tmp_path), "--skip-batches", skip, "--out", tmp_path / "run")
    assert said.code == 0
    assert said.out.count("--skip-batches") == 1
    assert f"--skip-batches: {says}" in said.out


def test_what_comes_to_nothing_is_said_of_a_resumed_run_too(tmp_path: Path) -> None:
    config, out = write(tmp_path), ["--out", tmp_path / "run"]
    assert call("train", config, *out, "--stop-after", 7).code == 130
    said = call("train", config, *out, "--resume", "--skip-batches", "8-15")
    assert "--skip-batches: every batch after 7 is left out, so nothing is trained" in said.out
    said = call("train", config, "num_epochs=4", *out, "--resume", "--skip-batches", "8,21")
    assert "--skip-batches: batch 21 and later do not exist; the run has 20" in said.out
    assert "batch 8 is done" not in said.out, "it never was"

"""A run that was stopped anywhere and resumed is the run that was not: same weights, same lines."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from optimscheduler.run.checkpoint import store as checkpoint_module
from optimscheduler.run.commands import train as train_module
from optimscheduler.run.loop.signals import Interrupt
from optimscheduler.run.monitor import JsonLines
from tests.run.command import call, checkpoints, last_weights, metrics, without_seconds, write
from tests.run.tiny import Tiny


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the runs; `test_train.py` looks at them."""
    monkeypatch.setattr(train_module, "plot_curves", lambda _folder: None)


class Killed(BaseException):
    """Stands for SIGKILL where a test must choose the very line."""


class AfterWindows(Interrupt):
    """As if Ctrl-C was pressed just after the n-th question whether it was."""

    left = 0

    @property  # type: ignore[override]  # instead of the attribute
    def asked(self) -> bool:
        type(self).left -= 1
        return type(self).left < 0

    @asked.setter
    def asked(self, value: bool) -> None: ...


def same(one: Path, other: Path) -> None:
    """Same weights, buffers, windows and validations in two run folders."""
    ours, theirs = last_weights(one), last_weights(other)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert without_seconds(metrics(one)) == without_seconds(metrics(other))
    assert metrics(one, "validation.jsonl") == metrics(other, "validation.jsonl")


def test_a_resumed_run_draws_the_pictures_of_one_that_was_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [write(tmp_path), "train_cfg.model={type: tests.run.tiny.Draws}"]
    assert call("train", *settings, "--out", tmp_path / "whole").code == 0
    with monkeypatch.context() as patch:
        AfterWindows.left = 7  # five per epoch: three windows and two held-out batches
        patch.setattr(train_module, "Interrupt", AfterWindows)
        call("train", *settings, "--out", tmp_path / "parts")
    assert len(list((tmp_path / "parts" / "samples").iterdir())) == 1, "it was stopped in the second epoch"
    assert call("train", *settings, "--out", tmp_path / "parts", "--resume").code == 0
    pictures = [
        {path.name: path.read_bytes() for path in (tmp_path / run / "samples").iterdir()}
        for run in ("whole", "parts")
    ]
    assert len(pictures[0]) == 3
    assert pictures[0] == pictures[1]
    same(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("partial_window", ["apply", "carry", "drop"])
@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5, 6, 7, 8])
def test_R34_stopped_and_resumed_is_as_if_never_stopped(
    partial_window: str, stop_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, settings = write(tmp_path), [f"partial_window={partial_window}"]
    assert call("train", config, *settings, "--out", tmp_path / "whole").code == 0
    with monkeypatch.context() as patch:
        AfterWindows.left = stop_after
        patch.setattr(train_module, "Interrupt", AfterWindows)
        stopped = call("train", config, *settings, "--out", tmp_path / "parts")
    assert stopped.code == 130
    assert len(metrics(tmp_path / "parts")) < len(metrics(tmp_path / "whole"))
    resumed = call("train", config, *settings, "--out", tmp_path / "parts", "--resume")
    assert resumed.code == 0
    assert "resuming   from" in resumed.out
    same(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_R34_killed_between_the_last_batch_of_an_epoch_and_its_validation(
    every: int, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, settings = write(tmp_path), [f"checkpoint_every={every}"]
    assert call("train", config, *settings, "--out", tmp_path / "whole").code == 0
    validated, calls = JsonLines.validated, []

    def killed(self: JsonLines, record: dict[str, object]) -> None:
        calls.append(record)
        if len(calls) == at:
            raise Killed
        validated(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(JsonLines, "validated", killed)
        with pytest.raises(Killed):
            call("train", config, *settings, "--out", tmp_path / "parts")
    assert call("train", config, *settings, "--out", tmp_path / "parts", "--resume").code == 0
    same(tmp_path / "parts", tmp_path / "whole")


def test_R34_what_was_written_after_the_checkpoint_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path)
    assert call("train", config, "--out", tmp_path / "whole").code == 0
    window, calls = JsonLines.window, []

    def killed(self: JsonLines, record: dict[str, object]) -> None:
        window(self, record)
        calls.append(record)
        if len(calls) == 6:  # checkpoints come after windows 2 and 4, and at the end of the epoch, 3
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(JsonLines, "window", killed)
        with pytest.raises(Killed):
            call("train", config, "--out", tmp_path / "parts")
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"batch": 1')  # a line that was being written
    assert call("train", config, "--out", tmp_path / "parts", "--resume").code == 0
    same(tmp_path / "parts", tmp_path / "whole")


def test_R34_killed_before_the_first_checkpoint_resume_starts_over_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path)
    assert call("train", config, "--out", tmp_path / "whole").code == 0
    window = JsonLines.window

    def killed(self: JsonLines, record: dict[str, object]) -> None:
        window(self, record)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(JsonLines, "window", killed)
        with pytest.raises(Killed):
            call("train", config, "--out", tmp_path / "parts")
    assert len(metrics(tmp_path / "parts")) == 1
    refused = call("train", config, "--out", tmp_path / "parts")
    assert refused.code == 2
    assert "holds files already" in refused.err
    said = call("train", config, "--out", tmp_path / "parts", "--resume")
    assert said.code == 0
    assert "has no checkpoint yet, so the run starts over" in said.out
    same(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("in_training_batch", [1, 6])
def test_ctrl_c_finishes_the_window_and_says_how_to_go_on(in_training_batch: int, tmp_path: Path) -> None:
    config, out = write(tmp_path), tmp_path / "run"
    model = (
        f"train_cfg.model={{type: tests.run.tiny.SendsItself, conf: {{at: {in_training_batch}}}}}",
        "num_epochs=2",
    )
    said = call("train", config, *model, "--out", out)
    assert said.code == 130
    closed = in_training_batch + in_training_batch % 2 if in_training_batch < 5 else in_training_batch + 1
    assert re.search(
        rf"stopped    as asked, after batch {closed}, safely \d\.\d\d s after SIGINT\. To", said.out
    )
    again = shlex.split(said.out.partition("To go on:")[2])
    assert again == ["optimscheduler", "train", str(config), *model, "--out", str(out), "--resume"]
    assert checkpoints(out)[-1] == f"batch-{closed:08}"
    finished = call(*again[1:], "train_cfg.model.conf.at=999", "--on-mismatch", "config")
    assert finished.code == 0
    assert [record["batch"] for record in metrics(out)] == [2, 4, 5, 7, 9, 10]


def test_ctrl_c_twice_stops_at_once(tmp_path: Path) -> None:
    model = "train_cfg.model={type: tests.run.tiny.SendsItself, conf: {at: 3, times: 2}}"
    said = call("train", write(tmp_path), model, "accum_grad=9", "--out", tmp_path / "run")
    assert said.code == 130
    assert said.err == "stopped at once, by Ctrl-C\n"
    assert "stopping   at once, by Ctrl-C; There is no checkpoint yet" in said.out
    assert metrics(tmp_path / "run") == []


def test_ctrl_c_twice_says_how_to_go_on_and_what_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, real = threading.Event(), checkpoint_module.write_tensors

    def slowly(*given: Any) -> None:
        assert held.wait(60)
        real(*given)

    def twice(self: Tiny, batch: Any) -> Any:
        if len(metrics(out)) == 3 and self.training:  # while the checkpoint of the second window is written
            os.kill(os.getpid(), signal.SIGINT)
            threading.Timer(0.2, held.set).start()
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, batch)

    config, out, forward = write(tmp_path), tmp_path / "run", Tiny.forward
    monkeypatch.setattr(checkpoint_module, "write_tensors", slowly)
    monkeypatch.setattr(Tiny, "forward", twice)
    said = call("train", config, "accum_grad=1", "checkpoint_every=2", "--out", out)
    assert said.code == 130
    assert "the checkpoint that is being written is finished first. To go on from the newest" in said.out
    assert checkpoints(out) == ["batch-00000002"]
    monkeypatch.undo()
    again = shlex.split(said.out.partition("checkpoint:\n")[2])
    assert call(*again[1:]).code == 0


def test_a_finished_run_says_so_and_more_epochs_make_it_longer(tmp_path: Path) -> None:
    config, out = write(tmp_path), tmp_path / "run"
    assert call("train", config, "num_epochs=2", "--out", out).code == 0
    before = metrics(out)
    said = call("train", config, "num_epochs=2", "--out", out, "--resume")
    assert said.code == 0
    assert "finished   this run was at its end already" in said.out
    assert metrics(out) == before
    assert call("train", config, "--out", out, "--resume", "log_every=1", "keep=9", "threads=1").code == 0
    assert call("train", config, "--out", tmp_path / "whole").code == 0
    same(out, tmp_path / "whole")


def test_number_of_loading_processes_changes_nothing(tmp_path: Path) -> None:
    config = write(tmp_path)
    assert call("train", config, "num_epochs=1", "--out", tmp_path / "none").code == 0
    said = call("train", config, "num_epochs=1", "data_cfg.num_workers=1", "--out", tmp_path / "one")
    assert said.code == 0
    same(tmp_path / "one", tmp_path / "none")


def test_on_mismatch_config_goes_on_with_the_new_values(tmp_path: Path) -> None:
    config, out = write(tmp_path), tmp_path / "run"
    assert call("train", config, "num_epochs=1", "--out", out).code == 0
    new = ("train_cfg.optim_sches.conf.optim_conf.lr=1", "accum_grad=5", "data_cfg.batch_size=6")
    said = call("train", config, *new, "num_epochs=2", "--out", out, "--resume", "--on-mismatch", "config")
    assert said.code == 0
    assert "optim_conf.lr: 0.01 in the checkpoint, 1 in the configuration; the config wins" in said.out
    assert said.out.count("accum_grad: 2 in the checkpoint") == 1
    assert [record["real_step"] for record in metrics(out)] == [1, 2, 3, 4]
    # 18 items in batches of 6 are 3 batches, one short window of 5; the fourth real step of Noam with w = 3
    assert metrics(out)[-1]["batch"] == 8
    assert metrics(out)[-1]["lr"] == pytest.approx(1 * (3 / 4) ** 0.5, rel=1e-12)
    assert "accum_grad: 5" in (out / "config.yaml").read_text()


def test_on_mismatch_checkpoint_goes_on_with_the_values_of_the_checkpoint(tmp_path: Path) -> None:
    config, out = write(tmp_path), tmp_path / "run"
    assert call("train", config, "num_epochs=1", "--out", out).code == 0
    other = ("accum_grad=5", "data_cfg.batch_size=6", "seed=4", "data_cfg.num_workers=0", "log_every=1")
    said = call("train", config, *other, "--out", out, "--resume", "--on-mismatch", "checkpoint")
    assert said.code == 0
    assert "seed: 3 in the checkpoint, 4 in the configuration; the checkpoint wins" in said.out
    assert call("train", config, "--out", tmp_path / "whole").code == 0
    same(out, tmp_path / "whole")
    assert (
        "log_every: 1" in (out / "config.yaml").read_text()
    )  # what may change freely is as it was asked for


def test_another_batch_size_in_mid_epoch_goes_on_behind_the_items_that_were_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = write(tmp_path), tmp_path / "run"
    with monkeypatch.context() as patch:
        AfterWindows.left = 1  # stopped at the end of the second window: 4 batches of 4, 16 items
        patch.setattr(train_module, "Interrupt", AfterWindows)
        assert call("train", config, "--out", out).code == 130
    bigger = ("num_epochs=1", "data_cfg.batch_size=3", "--on-mismatch", "config")
    assert call("train", config, *bigger, "--out", out, "--resume").code == 0
    # 16 items are 5.3 batches of 3, so the sixth and last one is not begun in the middle: nothing is left
    assert [record["batch"] for record in metrics(out)] == [2, 4]
    assert [record["epoch"] for record in metrics(out, "validation.jsonl")] == [1]


def test_R34_a_run_that_torchrun_has_started_again_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = write(tmp_path), ["--out", tmp_path / "run"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # as it is without --rdzv-id
    assert call("train", config, *out, "--stop-after", 7).code == 130
    assert "holds a run already" in call("train", config, *out).err
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    said = call("train", config, *out)
    assert said.code == 0
    assert "batch-00000007, epoch 2, batch 7" in said.out
    assert call("train", config, "--out", tmp_path / "whole", "--resume").code == 0
    same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("other", ["another job", "this job", ""])
def test_a_restarted_job_leaves_the_run_of_another_alone(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt was refused; torchrun cannot know that another one makes no sense.

    The same --rdzv-id may be given to one job after the other.
    """
    config, out = write(tmp_path), ["--out", tmp_path / "run"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", other)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getppid", lambda: 1)  # the launcher
        assert call("train", config, *out, "--stop-after", 7).code == 130
    before = metrics(tmp_path / "run")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this job")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    said = call("train", config, *out)
    assert said.code == 2
    assert "holds a run already" in said.err
    assert metrics(tmp_path / "run") == before


def test_a_stop_that_was_asked_for_is_no_failure_where_torchrun_would_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = write(tmp_path), ["--out", tmp_path / "run"]
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    assert call("train", config, *out, "--stop-after", 2).code == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert call("train", config, *out, "--stop-after", 4, "--resume").code == 130


def test_lines_of_a_run_whose_checkpoints_are_gone_are_kept(tmp_path: Path) -> None:
    config, run = write(tmp_path), tmp_path / "run"
    assert call("train", config, "--out", run).code == 0
    before = (run / "metrics.jsonl").read_bytes()
    for name in ("metrics-1.jsonl", "metrics-2.jsonl"):
        shutil.rmtree(run / "checkpoints")
        said = call("train", config, "num_epochs=1", "--out", run, "--resume")
        assert f"is of a run without a checkpoint; it is kept as {name}" in said.out
    assert (run / "metrics-1.jsonl").read_bytes() == before
    assert len(metrics(run)) == len(metrics(run, "metrics-2.jsonl")) == 3


@pytest.mark.parametrize("batch", range(1, 15))
def test_R34_stopped_after_any_batch_also_in_an_open_window(batch: int, tmp_path: Path) -> None:
    config, run = write(tmp_path), tmp_path / "run"
    assert call("train", config, "--out", run, "--stop-after", batch).code == 130
    assert checkpoints(run)[-1].startswith(f"batch-{batch:08}")
    assert call("train", config, "--out", run, "--resume").code == 0
    assert call("train", config, "--out", tmp_path / "whole").code == 0
    same(run, tmp_path / "whole")

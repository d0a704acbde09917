"""What goes wrong around a run: full disks, forbidden folders, folders that somebody removes."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from optimscheduler.errors import CheckpointError
from optimscheduler.run.checkpoint import io as checkpoint_files
from optimscheduler.run.checkpoint import store as checkpoint_module
from optimscheduler.run.checkpoint.retention import Retention
from optimscheduler.run.checkpoint.store import Checkpoints
from optimscheduler.run.loop.runner import Runner
from optimscheduler.run.monitor import Several
from tests.run.command import call, checkpoints, last_weights, metrics, without_seconds, write

STATE: dict[str, Any] = dict.fromkeys(["config", "model", "optim_sches", "progress", "random", "lengths"], 0)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses larger ones, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def after_windows(monkeypatch: pytest.MonkeyPatch, windows: int, then: Callable[[], object]) -> None:
    """Do something when a run has closed so many windows."""
    real, left = Runner._closes_window, [windows]

    def closes_window(self: Runner, *given: Any) -> bool:
        closed = real(self, *given)
        left[0] -= closed
        if closed and not left[0]:
            then()
        return closed

    monkeypatch.setattr(Runner, "_closes_window", closes_window)


@pytest.mark.parametrize("background", ["true", "false"])
def test_a_full_disk_is_a_warning_and_training_goes_on(
    background: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = write(tmp_path), tmp_path / "run"
    settings = ["train_cfg.model.conf={width: 2000}", f"save_in_background={background}"]
    with ExitStack() as disk:
        after_windows(monkeypatch, 1, lambda: disk.enter_context(files_of_at_most(60_000)))
        after_windows(monkeypatch, 8, disk.close)
        said = call("train", config, *settings, "--out", run)
    assert said.code == 0, said.err
    assert "cannot be written: " in said.out
    assert "File too large" in said.out
    assert "The training goes on, and the next checkpoint is tried again" in said.out
    assert call("train", config, *settings, "--out", tmp_path / "whole").code == 0
    ours, theirs = last_weights(run), last_weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not [name for name in checkpoints(run) if name.endswith(".tmp")]


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    config, run = write(tmp_path), tmp_path / "run"
    with files_of_at_most(60_000):
        said = call("train", config, "train_cfg.model.conf={width: 2000}", "--out", run)
    assert said.code == 2
    assert said.err.startswith(f"error: {run / 'checkpoints' / 'batch-00000015'} cannot be written: ")
    assert "File too large" in said.err
    assert len(metrics(run)) == 9, "everything else is there"


def test_a_folder_that_may_not_be_written_is_a_warning_until_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = write(tmp_path), tmp_path / "run"
    after_windows(monkeypatch, 1, lambda: (run / "checkpoints").write_text(""))  # a file in its place
    said = call("train", config, "--out", run)
    assert said.code == 2
    assert said.out.count("The training goes on") >= 4
    assert "cannot be written: Not a directory" in said.err


@contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """The system lets nobody look at what is in a folder, whoever runs this."""

    def refuse(real: Callable[..., Any]) -> Callable[..., Any]:
        def asked(name: Any, *given: Any, **more: Any) -> Any:
            if isinstance(name, str | os.PathLike) and (name == path or path in Path(name).parents):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))
            return real(name, *given, **more)

        return asked

    with pytest.MonkeyPatch.context() as patch:
        for name in ("stat", "lstat", "listdir", "scandir", "mkdir", "rename", "replace", "open", "unlink"):
            patch.setattr(os, name, refuse(getattr(os, name)))
        patch.setattr(io, "open", refuse(io.open))
        yield


@pytest.mark.parametrize("what", ["run", "run/checkpoints"])
def test_a_folder_that_is_forbidden_while_a_run_goes_on_is_a_warning(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = write(tmp_path), tmp_path / "run"
    with ExitStack() as stack:
        after_windows(monkeypatch, 4, lambda: stack.enter_context(forbidden(tmp_path / what)))
        after_windows(monkeypatch, 8, stack.close)
        said = call("train", config, "--out", run)
    assert said.code == 0, said.err
    assert "cannot be written: Permission denied. The training goes on" in said.out
    assert call("train", config, "--out", tmp_path / "whole").code == 0
    ours, theirs = last_weights(run), last_weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert without_seconds(metrics(run)) == without_seconds(metrics(tmp_path / "whole"))


def test_a_folder_that_is_forbidden_to_the_end_is_an_error_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        after_windows(monkeypatch, 4, lambda: stack.enter_context(forbidden(tmp_path / "run")))
        said = call("train", write(tmp_path), "--out", tmp_path / "run")
    assert said.code == 2
    assert "batch-00000015 cannot be written: Permission denied" in said.err


@pytest.mark.parametrize("what", ["run", "run/checkpoints", "run/metrics.jsonl"])
def test_what_is_removed_while_a_run_goes_on_is_put_back(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run, gone = write(tmp_path), tmp_path / "run", tmp_path / what
    after_windows(monkeypatch, 5, lambda: shutil.rmtree(gone) if gone.is_dir() else gone.unlink())
    said = call("train", config, "save_in_background=false", "--out", run)
    monkeypatch.undo()
    assert said.code == 0, said.err
    assert ("was removed while the run goes on" in said.out) == (what != "run/checkpoints")
    assert call("train", config, "--out", tmp_path / "whole").code == 0
    assert without_seconds(metrics(run)) == without_seconds(metrics(tmp_path / "whole"))
    assert {path.name for path in run.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    assert call("train", config, "num_epochs=4", "--out", run, "--resume").code == 0


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writing of the first waits for the next window; in the foreground that would be for ever."""
    written, real = threading.Event(), checkpoint_module.write_tensors
    threads = []

    def slowly(*given: Any) -> None:
        threads.append(threading.current_thread() is threading.main_thread())
        assert written.wait(60)
        real(*given)

    monkeypatch.setattr(checkpoint_module, "write_tensors", slowly)
    after_windows(monkeypatch, 3, written.set)
    assert call("train", write(tmp_path), "keep=9", "--out", tmp_path / "run").code == 0
    assert threads[0] is False
    assert threads[-1] is True, "the last is waited for"
    assert len(checkpoints(tmp_path / "run")) == 6, "none is left out"


def test_what_is_written_beside_the_training_is_what_was_there_when_it_was_saved(tmp_path: Path) -> None:
    files, weights = Checkpoints(tmp_path), torch.ones(3)
    state = {**STATE, "model": {"w": weights}, "progress": {"batches": [1, 2]}}
    path = files.save(1, state, background=True)
    weights.zero_()
    state["progress"]["batches"].append(3)
    files.finish()
    loaded = files.load(path)
    assert loaded["model"]["w"].tolist() == [1.0, 1.0, 1.0]
    assert loaded["progress"] == {"batches": [1, 2]}


def test_without_memory_for_a_copy_training_waits_for_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: Mapping[str, Any]) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(checkpoint_module, "staged", full)
    files = Checkpoints(tmp_path)
    path = files.save(1, {**STATE, "model": {"w": torch.ones(3)}}, background=True)
    assert not files.busy
    assert files.load(path)["model"]["w"].tolist() == [1.0, 1.0, 1.0]
    assert "there is no memory to copy the weights (DefaultCPUAllocator" in caplog.text
    assert "save_in_background: false" in caplog.text


def test_memory_that_runs_out_in_writing_is_an_error_of_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise MemoryError

    monkeypatch.setattr(checkpoint_files, "file_entry", full)
    with pytest.raises(CheckpointError, match="batch-00000001 cannot be written: MemoryError"):
        Checkpoints(tmp_path).save(1, STATE)


def test_never_two_at_once_and_the_first_error_is_raised_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "file_entry", _denied)
        files.save(1, STATE, background=True)
        with pytest.raises(CheckpointError, match="batch-00000001 cannot be written: Permission denied"):
            files.save(2, STATE, background=True)
    files.save(2, STATE)
    files.finish()
    assert [path.name for path in files.all()] == ["batch-00000002"]


def _denied(path: Path) -> Mapping[str, int]:
    raise PermissionError("Permission denied")


# ---- which stay ----


def test_a_checkpoint_that_was_moved_to_another_disk_is_only_unlinked(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path / "here", Retention(newest=1))
    (tmp_path / "there").mkdir()
    moved = files.save(1, STATE).rename(tmp_path / "there" / "batch-00000001")
    (files.folder / moved.name).symlink_to(moved)
    assert files.newest() == files.folder / moved.name
    files.save(2, STATE)
    assert os.listdir(files.folder) == ["batch-00000002"]
    assert (moved / "manifest.json").is_file()


def test_what_cannot_be_removed_is_a_warning_and_the_others_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    everything, files = Retention(newest=9), Checkpoints(tmp_path, Retention(newest=1))
    for batch in (1, 2, 3):
        Checkpoints(tmp_path, everything).save(batch, STATE)
    real = checkpoint_files.remove

    def busy(path: Path) -> None:
        if path.name == "batch-00000001":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        real(path)

    monkeypatch.setattr(checkpoint_module, "remove", busy)
    files.save(4, STATE)
    assert [int(path.name[-8:]) for path in files.all()] == [1, 4]
    assert "batch-00000001 cannot be removed: Device or resource busy" in caplog.text


def test_the_best_stay_beside_the_newest(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path, Retention(newest=1, best=2, monitor="accuracy", mode="max"))
    for batch, accuracy in enumerate([0.5, 0.9, 0.7, float("nan"), 0.9, 0.1], start=1):
        files.save(batch, STATE, metrics={"accuracy": accuracy})
    files.save(7, STATE)
    assert [int(path.name[-8:]) for path in files.all()] == [2, 5, 7]
    again = Checkpoints(tmp_path, Retention(newest=1, best=1, monitor="accuracy", mode="max"))
    again.save(8, STATE)
    assert [int(path.name[-8:]) for path in again.all()] == [5, 8], "of two that are equal the newer one"


def test_a_run_keeps_its_best_by_the_held_out_loss(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ["num_epochs=6", "keep=1", "keep_best=1", "train_cfg.optim_sches.conf.optim_conf.lr=1"]
    assert call("train", write(tmp_path), *settings, "--out", run).code == 0
    losses = [line["loss"] for line in metrics(run, "validation.jsonl")]
    best = metrics(run, "validation.jsonl")[losses.index(min(losses))]["batch"]
    assert {int(name[6:14]) for name in checkpoints(run)} == {best, 30}


def test_a_number_that_the_model_does_not_return_is_told(tmp_path: Path) -> None:
    said = call("train", write(tmp_path), "keep_best=1", "monitor=lss", "--out", tmp_path / "run")
    assert said.code == 0
    assert "monitor: the means over the held-out data have no 'lss', so keep_best keeps nothing." in said.out
    assert "Did you mean 'loss'?" in said.out


def test_the_best_of_nothing_is_refused(tmp_path: Path) -> None:
    said = call("train", write(tmp_path), "keep_best=1", "data_cfg.valid=null", "--out", tmp_path / "run")
    assert said.code == 2
    assert "keep_best: without data_cfg.valid there is nothing to compare checkpoints by" in said.err


# ---- monitors ----


class Failing:
    """A monitor whose disk is gone."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        def fail(*_: Any) -> None:
            raise OSError("stale file handle")

        return fail


def test_a_monitor_that_cannot_write_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    several = Several([Failing(), Failing()])
    several.window({})
    several.validated({})
    several.close()
    assert [record.getMessage() for record in caplog.records] == [
        "Failing cannot write: stale file handle. The training goes on"
    ] * 2

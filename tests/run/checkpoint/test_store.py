"""Checkpoint files: whole or not there, the newest few, nothing executed. Damage: `test_bad_input.py`."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from optimscheduler.errors import CheckpointError
from optimscheduler.run.checkpoint.retention import Retention
from optimscheduler.run.checkpoint.store import Checkpoints
from tests.run.command import call, checkpoints, last_weights, saved, write

STATE: dict[str, Any] = dict.fromkeys(["config", "model", "optim_sches", "progress", "random", "lengths"], 0)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path / "checkpoints", Retention(newest=2))
    assert files.all() == []
    path = files.save(12, {**STATE, "model": {"w": torch.ones(2)}})
    assert path.name == "batch-00000012"
    state = files.load(path)
    assert torch.equal(state.pop("model")["w"], torch.ones(2))
    assert state == {key: 0 for key in STATE if key != "model"}


def test_the_newest_few_stay_by_number_not_by_name(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path, Retention(newest=2))
    for batch in (99_999_999, 5, 100_000_000):  # the last has a digit more and sorts before as text
        files.save(batch, STATE)
    assert [path.name for path in files.all()] == ["batch-99999999", "batch-100000000"]


def test_of_the_same_batch_the_newer_one_comes_later(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path, Retention(newest=9))
    for name in ("batch-00000003-2", "batch-00000003-3", "batch-00000003-4"):
        if files.all():
            assert files.save(3, STATE).name == name
        else:
            files.save(3, STATE).rename(tmp_path / name)
        assert [path.name for path in files.all()] == [name]


def test_other_files_are_neither_taken_for_checkpoints_nor_removed(tmp_path: Path) -> None:
    for name in ("batch-1", "batch-00000001.bak", "best.pt"):
        (tmp_path / name).write_text("mine")
    Checkpoints(tmp_path, Retention(newest=1)).save(3, STATE)
    assert sorted(os.listdir(tmp_path)) == [
        "batch-00000001.bak",
        "batch-00000003",
        "batch-1",
        "best.pt",
    ]


def test_what_a_killed_process_left_half_written_goes_away(tmp_path: Path) -> None:
    (tmp_path / "batch-00000002.tmp").mkdir()
    (tmp_path / "batch-00000002.tmp" / "plain.pt").write_bytes(b"half")
    files = Checkpoints(tmp_path, Retention(newest=2))
    assert files.all() == []
    files.save(3, STATE)
    assert os.listdir(tmp_path) == ["batch-00000003"]


def test_an_error_in_writing_leaves_the_file_before_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Checkpoints(tmp_path, Retention(newest=2))
    files.save(3, STATE)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"batch-00000003-2 cannot be written: .*No space left"):
            files.save(3, {**STATE, "progress": 1})
    assert files.load(files.all()[-1])["progress"] == 0
    assert files.save(3, {**STATE, "progress": 2}).name == "batch-00000003-2"
    assert os.listdir(tmp_path) == ["batch-00000003-2"], "one per batch, and nothing half written"


def test_bytes_are_synced_before_the_name_and_the_name_before_others_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_sync, real_replace, real_rmtree = os.fsync, Path.replace, shutil.rmtree

    def fsync(handle: int) -> None:
        order.append("sync folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "sync file")
        real_sync(handle)

    def replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return real_replace(self, target)

    def rmtree(path: Path, **_: Any) -> None:
        order.append("remove" if Path(path).exists() else "nothing to remove")
        real_rmtree(path, **_)

    files = Checkpoints(tmp_path, Retention(newest=1))
    files.save(1, STATE | {"model": {"w": torch.ones(2)}})
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    files.save(2, STATE | {"model": {"w": torch.ones(2)}})
    # what is no tensor, the tensors, the manifest, and their names
    written = ["sync file", "sync file", "sync file", "sync folder"]
    assert order == ["nothing to remove", *written, "rename", "sync folder", "remove"]


def test_every_tensor_comes_back_as_it_was(tmp_path: Path) -> None:
    tied = torch.randn(3, 4)
    tensors = {
        "tied": tied,
        "again": tied,
        "turned": tied.t(),
        "number": torch.tensor(3),
        "none of them": torch.zeros(0, 3),
        "flag": torch.tensor([True, False]),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "listed": [torch.ones(1), {"deep": torch.zeros(2, dtype=torch.uint8)}],
    }
    files = Checkpoints(tmp_path, Retention(newest=1))
    model = files.load(files.save(1, STATE | {"model": tensors}))["model"]
    assert model["tied"] is model["again"], "saved once"
    for name in ("tied", "turned", "number", "none of them", "flag", "half"):
        assert torch.equal(model[name], tensors[name])
        assert model[name].dtype == tensors[name].dtype
    assert torch.equal(model["listed"][1]["deep"], torch.zeros(2, dtype=torch.uint8))


def test_a_run_checkpoints_every_few_windows_and_at_the_end_of_each_epoch(tmp_path: Path) -> None:
    config = write(tmp_path)
    settings = ["keep=99", "save_in_background=false"]
    assert call("train", config, *settings, "--out", tmp_path / "run").code == 0
    # 15 batches, 9 windows that end at 2 4 5 7 9 10 12 14 15: every second one, and each epoch's last
    assert checkpoints(tmp_path / "run") == [
        *(f"batch-{n:08}" for n in (4, 5, 7)),
        "batch-00000010-2",  # once before and once after the validation
        *(f"batch-{n:08}" for n in (14, 15)),
    ]
    state = saved(tmp_path / "run" / "checkpoints" / "batch-00000004")
    assert state["progress"] == {"epoch": 1, "batch_in_epoch": 4, "batch": 4, "windows": 2, "skip": ""}
    assert state["config"]["train_cfg"]["model"]["type"] == "tests.run.tiny.Tiny"
    assert set(last_weights(tmp_path / "run")) == set(state["model"])

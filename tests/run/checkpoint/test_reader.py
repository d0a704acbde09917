"""Checkpoints as they are found: damaged, forbidden, of something else, out of reach."""

from __future__ import annotations

import errno
import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.run.command import call, checkpoints, copied, write


def test_a_truncated_checkpoint_is_set_aside_and_the_one_before_is_used(
    trained: Path, tmp_path: Path
) -> None:
    run = copied(trained, tmp_path)
    first, last = (run / "checkpoints" / name for name in checkpoints(run))
    (shard,) = last.glob("*.safetensors")
    written = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:1000])
    again = ("train", write(tmp_path), "num_epochs=1", "--out", run, "--resume")
    said = call(*again)
    assert said.code == 0
    assert f"{last} cannot be used: {shard.name} has 1,000 bytes, and {written:,} were written." in said.out
    assert "It is set aside as batch-00000005.damaged" in said.out
    assert f"resuming   from {first}" in said.out
    assert checkpoints(run) == ["batch-00000004", "batch-00000005", "batch-00000005.damaged"]


def test_without_a_whole_checkpoint_nothing_is_started_over_unasked(trained: Path, tmp_path: Path) -> None:
    run = copied(trained, tmp_path)
    for name in checkpoints(run):
        (run / "checkpoints" / name / "plain.json").write_bytes(b"")
    again = ("train", write(tmp_path), "num_epochs=1", "--out", run, "--resume")
    for _ in range(2):
        said = call(*again)
        assert said.code == 2
        assert "there is no whole checkpoint in" in said.err
        assert "start over with --out ANOTHER_DIR" in said.err
    shutil.rmtree(run / "checkpoints")
    assert "no checkpoint yet, so the run starts over" in call(*again).out


def denied(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The system lets nobody read files of this name, whoever runs this."""
    real = io.open

    def opened(path: Any, *given: Any, **more: Any) -> Any:
        if Path(str(path)).name == what:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *given, **more)

    monkeypatch.setattr(io, "open", opened)


@pytest.mark.parametrize("what", ["plain.json", "manifest.json"])
def test_a_checkpoint_that_may_not_be_read_is_not_damaged(
    what: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(trained, tmp_path)
    again, names = ("train", write(tmp_path), "num_epochs=1", "--out", run, "--resume"), checkpoints(run)
    with monkeypatch.context() as patch:
        denied(patch, what)
        said = call(*again)
    assert said.code == 2
    assert (
        "batch-00000005 cannot be read: Permission denied. It is left as it is; mend that and try" in said.err
    )
    assert checkpoints(run) == names
    assert call(*again).code == 0


@pytest.mark.parametrize("how", ["forbidden", "link to nothing"])
def test_checkpoints_that_cannot_be_listed_are_not_none(
    how: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, real = copied(trained, tmp_path), os.listdir
    lines = (run / "metrics.jsonl").read_bytes()

    def listdir(path: Any = ".") -> list[str]:
        if Path(path) == run / "checkpoints":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    if how == "forbidden":
        monkeypatch.setattr(os, "listdir", listdir)
    else:
        (run / "checkpoints").rename(tmp_path / "elsewhere")
        (run / "checkpoints").symlink_to(tmp_path / "not mounted")
    said = call("train", write(tmp_path), "num_epochs=1", "--out", run, "--resume")
    assert said.code == 2
    assert f"the folder of checkpoints {run / 'checkpoints'} cannot be read: " in said.err
    assert (run / "metrics.jsonl").read_bytes() == lines


def test_damaged_ones_that_cannot_be_renamed_do_not_make_a_run_start_over(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(trained, tmp_path)
    for name in checkpoints(run):
        (run / "checkpoints" / name / "plain.json").write_bytes(b"")

    def read_only(self: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "rename", read_only)
    said = call("train", write(tmp_path), "num_epochs=1", "--out", run, "--resume")
    assert said.code == 2
    assert "It cannot be renamed: Read-only file system" in said.out
    assert "It is set aside" not in said.out
    assert "there is no whole checkpoint in" in said.err
    assert "only damaged ones: batch-00000004, batch-00000005." in said.err


def test_damaged_ones_are_named_with_how_to_try_them_again(trained: Path, tmp_path: Path) -> None:
    run = copied(trained, tmp_path)
    for name in checkpoints(run):
        (run / "checkpoints" / name / "plain.json").unlink()
    said = call("train", write(tmp_path), "num_epochs=1", "--out", run, "--resume")
    assert said.code == 2
    assert "only damaged ones: batch-00000004.damaged, batch-00000005.damaged. Put a copy" in said.err
    assert "to try one again, take .damaged off its name" in said.err

"""Checkpoints that agree with themselves and that no run has written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimscheduler.run.checkpoint.manifest import Manifest, file_entry
from optimscheduler.run.checkpoint.plain_json import read_plain, write_plain
from tests.run.command import call, checkpoints, copied, write


def without(key: str) -> Any:  # Any: a function of trees
    return lambda content: content.pop(key)


def put(*path_and_value: Any) -> Any:  # Any: a function of trees
    *path, key, value = path_and_value

    def change(content: Any) -> None:
        for step in path:
            content = content[step]
        content[key] = value

    return change


FORGED: dict[str, tuple[Any, str]] = {
    "no ranks": (without("ranks"), "ranks: field required"),
    "no ranks at all": (put("ranks", 0), "ranks: input should be greater than or equal to 1, got 0"),
    "more ranks": (put("ranks", 3), "ranks is 3, and random is of 1"),
    "progress": (put("progress", []), "progress: input should be"),
    "batch": (put("progress", "batch", "x"), "progress.batch: input should be a valid integer, got 'x'"),
    "windows": (put("progress", "windows", 1e9), "progress.windows: input should be a valid integer"),
    "epoch": (put("progress", "epoch", 0), "progress.epoch: input should be greater than"),
    "another key": (put("progress", "extra", 1), "progress.extra: extra inputs are not permitted"),
    "skip": (put("progress", "skip", "all"), "progress.skip must be numbers of batches"),
    "random": (put("random", [{}]), "cannot be read: 'python'"),
    "lengths": (put("lengths", 5), "lengths: input should be a valid dictionary, got 5"),
    "length": (
        put("lengths", "metrics.jsonl", "9"),
        "lengths.metrics.jsonl: input should be a valid integer",
    ),
    "negative": (put("lengths", "metrics.jsonl", -5), "lengths.metrics.jsonl: input should be greater than"),
    "optim_sches": (put("optim_sches", 3), "optim_sches: input should be a valid dictionary, got 3"),
    "member": (put("optim_sches", "main", 3), "optim_sches.main: input should be"),
    "clock": (lambda content: content["optim_sches"]["main"].pop("clock"), "optim_sches.main.clock: field"),
    "inside": (
        put("optim_sches", "main", "clock", "inside", "x"),
        "main: this state is damaged: clock.inside must be a whole number >= 0, got 'x'",
    ),
    "optimizer": (
        put("optim_sches", "main", "optimizer", 3),
        "main: this state is damaged: optimizer must be a mapping, got 3",
    ),
    "window": (
        put("optim_sches", "main", "window", []),
        "main: this state is damaged: window must be a mapping, got []",
    ),
    "config": (put("config", 3), "config: input should be a valid dictionary, got 3"),
    "model": (put("model", [1]), "model: input should be a valid dictionary"),
}


@pytest.mark.parametrize(("change", "says"), FORGED.values(), ids=FORGED)
def test_a_checkpoint_that_agrees_with_itself_and_is_nonsense_is_refused(
    change: Any, says: str, trained: Path, tmp_path: Path
) -> None:
    run = copied(trained, tmp_path)
    path = run / "checkpoints" / checkpoints(run)[-1]
    content = read_plain((path / "plain.json").read_bytes())
    change(content["plain"])
    content["tensors"] = [entry for entry in content["tensors"] if _leads(content["plain"], entry[0])]
    (path / "plain.json").write_bytes(write_plain(content))
    manifest = Manifest.read(path)
    files = {**manifest.files, "plain.json": file_entry(path / "plain.json")}
    replace(manifest, files=files).write(path)
    said = call("train", write(tmp_path), "num_epochs=2", "--out", run, "--resume")
    assert said.code == 2
    assert says in said.err


def _leads(tree: Any, place: list[Any]) -> bool:
    """Whether a tensor can still be put there."""
    try:
        for key in place:
            tree = tree[key]
    except (KeyError, IndexError, TypeError):
        return False
    return True

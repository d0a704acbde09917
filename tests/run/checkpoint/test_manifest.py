"""`manifest.json`: what it knows of a checkpoint, and what does not pass it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from optimscheduler.errors import CheckpointError
from optimscheduler.run.checkpoint.manifest import MANIFEST, Damage, Manifest
from optimscheduler.run.checkpoint.reader import damage_of
from optimscheduler.run.checkpoint.store import Checkpoints
from optimscheduler.run.checkpoint.tensors import check_tensors

STATE: dict[str, Any] = dict.fromkeys(["config", "model", "optim_sches", "progress", "random", "lengths"], 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Checkpoints(tmp_path).save(12, {**STATE, "model": {"w": torch.ones(3)}}, metrics={"loss": 0.1})


def test_it_says_what_there_is(path: Path) -> None:
    content = json.loads((path / MANIFEST).read_text())
    assert (content["batch"], content["ranks"], content["format"]) == (12, 1, 3)
    assert content["metrics"] == {"loss": 0.1}
    assert content["torch"] == torch.__version__
    for name, entry in content["files"].items():
        assert entry["bytes"] == (path / name).stat().st_size
        assert entry["sha256"] == hashlib.sha256((path / name).read_bytes()).hexdigest(), "as sha256sum says"
    assert {MANIFEST, *content["files"]} == set(os.listdir(path))


def test_a_whole_one_has_no_damage(path: Path) -> None:
    assert damage_of(path) is None
    assert Checkpoints(path.parent).newest() == path


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not what was written"),
        (b"[]", "is not what was written"),
        (b"{" * 100_000, "is not what was written"),
        (b'{"format": 3}', "is not what was written"),
        (b'{"checksum": 1, "format": 4, "package": "9.9"}', "it has format 4, written by version '9.9'"),
        (b'{"checksum": 1, "format": 3, "batch": 12}', "its checksum is another"),
    ],
)
def test_what_is_no_manifest(path: Path, content: bytes, says: str) -> None:
    (path / MANIFEST).write_bytes(content)
    with pytest.raises(Damage, match=says):
        Manifest.read(path)


def test_white_space_is_a_change_too(path: Path) -> None:
    text = (path / MANIFEST).read_text()
    (path / MANIFEST).write_text(text + "\n")
    with pytest.raises(Damage, match="its checksum is another"):
        Manifest.read(path)


def forged(path: Path, **changes: Any) -> None:
    """A manifest that agrees with itself, as one who can write files can make it."""
    manifest = Manifest.read(path)
    content = {key: getattr(manifest, key) for key in Manifest.__slots__} | changes
    Manifest(**content).write(path)


def test_names_lead_out_of_no_folder(path: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    entry = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    files = Manifest.read(path).files
    forged(path, files={**files, "../secret": entry})
    assert damage_of(path) == "../secret is missing"
    (path / "link").symlink_to(tmp_path / "secret")
    forged(path, files={**files, "link": entry})
    assert damage_of(path) == "link is a link"


def test_plain_values_are_needed(path: Path) -> None:
    files = Manifest.read(path).files
    forged(path, files={name: entry for name, entry in files.items() if name != "plain.json"})
    assert damage_of(path) == "it has no plain.json"


def test_tensors_of_another_checkpoint_are_not_taken_along(path: Path) -> None:
    save_file({"model/w": torch.zeros(3)}, path / "shard-00009-model-00001-of-00001.safetensors")
    assert damage_of(path) == ("shard-00009-model-00001-of-00001.safetensors does not belong to it")


def test_tensors_that_claim_more_than_there_is_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    sharding = {"DCP_SHARDING_INFO": json.dumps({"w": {"saved_offsets": [10**15]}})}
    save_file({"w": torch.zeros(3)}, tmp_path / "shard-00001.safetensors", metadata=sharding)
    with pytest.raises(ValueError, match=r"claim 4,000,000,000,000,012 bytes, and its files have \d{3}$"):
        check_tensors(tmp_path, ["w"])
    with pytest.raises(ValueError, match="the tensor v is missing"):
        check_tensors(tmp_path, ["v"])


def test_a_state_that_cannot_be_written_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"plain\.progress\.0 is a set, which is no plain value"):
        Checkpoints(tmp_path).save(1, {**STATE, "progress": [{1}]})

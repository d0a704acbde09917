"""`verify-resume`: it finds nothing in a sound training, and the cause in one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from optimscheduler.run.verify import differences_of_states
from tests.run.command import call, write


@pytest.fixture(autouse=True)
def _found_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.mark.slow
def test_a_sound_training_is_identical(tmp_path: Path) -> None:
    said = call("verify-resume", write(tmp_path), "--batches", 9, "--at", 3)  # in the middle of a window
    assert said.code == 0, said.err
    assert "training   9 batches, stopped after 3\n" in said.out
    # 6 parameters, 3 buffers, 3 tensors of Adam for each parameter, a generator
    assert "identical  28 tensors of weights and state, the random generators, and 5 lines" in said.out


@pytest.mark.slow
def test_a_data_set_that_remembers_is_found(tmp_path: Path) -> None:
    data = "data_cfg.train={type: tests.run.tiny.Remembers}"
    said = call("verify-resume", write(tmp_path), data, "--batches", 99, "--at", 8)
    assert said.code == 1
    assert "training   15 batches, stopped after 8" in said.out, "there are no more"
    assert "different  metrics.jsonl, batch 9: loss " in said.out
    assert "places of the last checkpoint, the first: model.first.weight: " in said.out
    assert "a data set that remembers what it gave" in said.out
    folder = Path(said.out.partition("kept       ")[2].split("/:")[0])
    assert {path.name for path in folder.iterdir()} == {"whole", "parts"}


@pytest.mark.slow
def test_a_training_that_is_never_twice_the_same_is_told_apart(tmp_path: Path) -> None:
    data = "data_cfg.train={type: tests.run.tiny.Unsteady}"
    said = call("verify-resume", write(tmp_path), data, "--batches", 6, "--at", 4)
    assert said.code == 1
    assert "differ before the stop after batch 4 already: the training is not deterministic" in said.out


def test_mistakes_are_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path)
    assert (
        "--at must be a batch from 1 to 8, before the last, got 9"
        in call("verify-resume", config, "--batches", 9, "--at", 9).err
    )
    assert "seeed: unknown key" in call("verify-resume", config, "seeed=1").err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "leave out torchrun, and say --ranks" in call("verify-resume", config).err


def test_what_a_training_dies_of_is_told(tmp_path: Path) -> None:
    model = "train_cfg.model={type: tests.run.tiny.ReturnsTensor}"
    said = call("verify-resume", write(tmp_path), model, "--batches", 4)
    assert said.code == 2
    assert "the training fails: " in said.err
    assert "ReturnsTensor returned a Tensor" in said.err


def test_where_states_differ() -> None:
    one = {"a": torch.ones(2, 2), "b": [1, {"c": float("nan")}], "d": torch.tensor([1, 2]), "e": 1}
    assert list(differences_of_states(one, one, "x")) == []
    other = {"a": torch.ones(2), "b": [1, {"c": 2.0}], "d": torch.tensor([1, 5]), "f": 1}
    assert [str(found) for found in differences_of_states(one, other, "x")] == [
        "x.a: torch.float32 (2, 2) and torch.float32 (2,)",
        "x.b.1.c: nan and 2.0",
        "x.d: 1 of 2 elements, by at most 3",
        "x.e: it is in one of them alone",
        "x.f: it is in one of them alone",
    ]

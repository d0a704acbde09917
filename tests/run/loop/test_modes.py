"""A schedule-free optimizer in a run: averages are validated and saved, and it resumes to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from optimscheduler.errors import CheckpointError
from optimscheduler.run.commands import train as train_module
from optimscheduler.run.loop.modes import checked_trained
from tests.cases_models import assert_same, weights
from tests.run.command import YAML, call, last_state, metrics, write
from tests.run.tiny import Smooth

FREE = (
    YAML.replace("type: noam.Noamlr", "type: OptimScheduler")
    .replace("optim_type: Adam", "optim_type: tests.strangers.ScheduleFree")
    .replace("lr: 1e-2}\n      warmup_steps: 3", "lr: 0.1}")
)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "plot_curves", lambda _folder: None)


def trained(folder: Path, yaml: str = FREE, *arguments: str) -> Path:
    config = write(folder, yaml)
    said = call("train", config, "--out", folder / "out", *arguments)
    assert said.code == (130 if "--stop-after" in arguments else 0), said.err + said.out
    return folder / "out"


@pytest.mark.parametrize("at", [1, 2, 5, 6, 11])
def test_a_run_that_was_stopped_and_resumed_is_the_run_that_was_not(tmp_path: Path, at: int) -> None:
    """After batch 1, 6 and 11 in the middle of a window, after 5 before a validation."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "parts", FREE, "--stop-after", str(at))
    parts = trained(tmp_path / "parts", FREE, "--resume")
    for part in ("model", "trained", "optim_sches"):
        assert_same(last_state(parts)[part], last_state(whole)[part])
    assert metrics(parts, "validation.jsonl") == metrics(whole, "validation.jsonl")


def test_how_often_it_is_saved_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    one = trained(tmp_path / "one", FREE.replace("checkpoint_every: 2", "checkpoint_every: 100"))
    many = trained(tmp_path / "many", FREE.replace("checkpoint_every: 2", "checkpoint_every: 1"))
    for part in ("model", "trained", "optim_sches"):
        states = [last_state(out)[part] for out in (one, many)]
        for state in states:
            if part == "optim_sches":
                del state["main"]["config"]
        assert_same(*states)


def test_the_averages_are_what_is_validated_and_saved_as_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, dict[str, Tensor]] = {}
    forward = Smooth.forward

    def watched(self: Smooth, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        seen[self.training] = weights(self)
        return forward(self, batch)

    monkeypatch.setattr(Smooth, "forward", watched)
    state = last_state(trained(tmp_path, FREE.replace("tests.run.tiny.Tiny", "tests.run.tiny.Smooth")))
    assert_same(seen[False], dict(state["model"]))
    slow = state["optim_sches"]["main"]["optimizer"]["state"]
    for name, average in state["model"].items():
        assert not torch.equal(state["trained"][name], average)
        torch.testing.assert_close(state["trained"][name], torch.lerp(average, slow[name]["z"], 1 - 0.9))


def test_verify_resume_compares_what_is_trained_too(tmp_path: Path) -> None:
    said = call("verify-resume", write(tmp_path, FREE), "--batches", "6", "--at", "3")
    assert said.code == 0, said.err + said.out
    assert "identical" in said.out


def test_weights_of_another_shape_are_refused() -> None:
    weights = {"w": torch.zeros(2, 3)}
    assert checked_trained({"w": torch.ones(2, 3)}, weights)["w"].sum() == 6
    for wrong in ({"w": torch.zeros(3)}, {"v": torch.zeros(3)}, {"w": 1.0}):
        with pytest.raises(CheckpointError, match=r"damaged: trained\.[wv] must be a tensor of the shape"):
            checked_trained(wrong, weights)
    with pytest.raises(CheckpointError, match="trained must be a mapping"):
        checked_trained([1], weights)

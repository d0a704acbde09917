"""`average:` in a run: what validates, what is saved, and a run that was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from optimscheduler.run.commands import train as train_module
from optimscheduler.run.loop import runner as runner_module
from tests.run.command import call, last_state, last_weights, metrics, without_seconds, write

DECAY = "average={decay: 0.5}"


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "plot_curves", lambda _folder: None)


def averaged(folder: Path) -> dict[str, Tensor]:
    """The averages in the newest checkpoint."""
    (saved,) = last_state(folder)["optim_sches"]["main"]["averages"]
    weights: dict[str, Tensor] = saved["weights"]
    return weights


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The weights that each validation, and each sample, has seen."""
    seen: list[dict[str, Tensor]] = []
    for name in ("mean_outputs", "show"):
        real: Any = getattr(runner_module, name)

        def looked(model: torch.nn.Module, *others: Any, real: Any = real) -> Any:
            seen.append({n: p.detach().clone() for n, p in model.named_parameters()})
            return real(model, *others)

        monkeypatch.setattr(runner_module, name, looked)
    return seen


@pytest.mark.parametrize("decay", [0.5, None])
def test_a_run_validates_and_samples_with_averaged_weights_and_trains_with_its_own(
    tmp_path: Path, validated: list[dict[str, Tensor]], decay: float | None
) -> None:
    setting = f"average={{decay: {'null' if decay is None else decay}}}"
    speaks = "train_cfg.model.type=tests.run.tiny.Speaks"
    said = call("train", write(tmp_path), speaks, setting, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert len(validated) == 6, "a validation and a sample after each of three epochs"
    expected, own = averaged(tmp_path / "run"), last_weights(tmp_path / "run")
    for seen in validated[-2:]:
        assert all(torch.equal(seen[name], value) for name, value in expected.items())
        assert all(not torch.equal(seen[name], own[name]) for name in expected)
    assert call("train", write(tmp_path), speaks, "--out", tmp_path / "without").code == 0
    without = last_weights(tmp_path / "without")
    assert all(torch.equal(own[name], without[name]) for name in own)
    losses = [[m["loss"] for m in metrics(tmp_path / n, "validation.jsonl")] for n in ("run", "without")]
    assert all(one != other for one, other in zip(*losses, strict=True))


@pytest.mark.parametrize("stop_after", [3, 8])
def test_R34_a_stopped_run_goes_on_with_its_average(tmp_path: Path, stop_after: int) -> None:
    arguments = ["train", write(tmp_path), "average={decay: 0.8, warm_up: true, start: 2}", "--out"]
    assert call(*arguments, tmp_path / "whole").code == 0
    call(*arguments, tmp_path / "parts", "--stop-after", stop_after)
    assert len(metrics(tmp_path / "parts")) < len(metrics(tmp_path / "whole"))
    assert call(*arguments, tmp_path / "parts", "--resume").code == 0
    for read in (averaged, last_weights):
        one, other = read(tmp_path / "parts"), read(tmp_path / "whole")
        assert all(torch.equal(one[name], other[name]) for name in other)
    assert metrics(tmp_path / "parts", "validation.jsonl") == metrics(tmp_path / "whole", "validation.jsonl")
    assert without_seconds(metrics(tmp_path / "parts")) == without_seconds(metrics(tmp_path / "whole"))


def test_R35_a_run_that_is_to_average_from_here_on_is_asked_for_it(tmp_path: Path) -> None:
    run = ["train", write(tmp_path), "--out", tmp_path / "run"]
    assert call(*run, "num_epochs=1").code == 0
    said = call(*run, DECAY, "--resume")
    assert said.code != 0
    assert "average" in said.err
    assert call(*run, DECAY, "--resume", "--on-mismatch", "config").code == 0
    (saved,) = last_state(tmp_path / "run")["optim_sches"]["main"]["averages"]
    assert saved["count"] == 6, "three windows in each of two epochs"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("average={decay: 1.0}", "average.decay must be a number >= 0 and < 1, or null for the plain mean"),
        ("average={dekay: 0.9}", "average.dekay: unknown key. Did you mean 'decay'?"),
        ("average=0.9", "average must be a mapping such as {decay: 0.999}, or null"),
        ("average={decay: null, warm_up: true}", "the plain mean (decay=None) has no decay to warm up"),
        ("average={start: -1}", "average.start must be a whole number of updates >= 0"),
    ],
)
def test_R38_what_is_wrong_is_told_with_its_place(tmp_path: Path, setting: str, message: str) -> None:
    said = call("train", write(tmp_path), setting, "--out", tmp_path / "run")
    assert said.code != 0
    assert message in " ".join(said.err.split())


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (DECAY, "average    of the weights, for validation: decay 0.5\n"),
        ("average={decay: null, start: 9}", "for validation: plain mean, from update 10 on\n"),
        ("average={warm_up: true}", "for validation: decay 0.999 with a warm-up\n"),
    ],
)
def test_explain_shows_it(tmp_path: Path, setting: str, line: str) -> None:
    assert line in call("explain", write(tmp_path), setting).out

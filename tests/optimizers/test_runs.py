"""The command line with schedulefree's own classes: stopped and resumed, it is the run that was not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cases_models import assert_same
from tests.run.command import YAML, call, last_state, metrics, write

FREE = YAML.replace("type: noam.Noamlr", "type: OptimScheduler").replace("\n      warmup_steps: 3", "")


def trained(folder: Path, name: str, *arguments: str) -> Path:
    folder.mkdir(exist_ok=True)
    text = FREE.replace("optim_type: Adam", f"optim_type: schedulefree.{name}")
    said = call("train", write(folder, text), "--out", folder / "out", *arguments)
    assert said.code == (130 if "--stop-after" in arguments else 0), said.err + said.out
    return folder / "out"


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree", "RAdamScheduleFree"])
def test_a_run_that_was_stopped_and_resumed_is_the_run_that_was_not(tmp_path: Path, name: str) -> None:
    whole = trained(tmp_path / "whole", name)
    trained(tmp_path / "parts", name, "--stop-after", "7")
    parts = trained(tmp_path / "parts", name, "--resume")
    for part in ("model", "trained", "optim_sches"):
        assert_same(last_state(parts)[part], last_state(whole)[part])
    assert metrics(parts, "validation.jsonl") == metrics(whole, "validation.jsonl")

"""R31, R34: the main job with two ranks, and killed with two and gone on with one and with four."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.distributed.test_torchrun import finished, kill, torchrun
from tests.run.command import metrics

pytestmark = pytest.mark.long

CONFIG = Path(__file__).parents[2] / "examples" / "char_lm" / "train.yaml"
SAME = ["train", CONFIG, "accum_grad=", "samples_per_update=8"]


def job(ranks: int) -> list[object]:
    return ["--nproc-per-node", ranks, "-m", "optimscheduler", *SAME]


def held_out(run: Path) -> list[float]:
    return [record["loss"] for record in metrics(run, "validation.jsonl")]


def test_two_ranks_reach_the_held_out_loss_of_one_process(tmp_path: Path) -> None:
    for ranks in (1, 2):
        finished(torchrun(*job(ranks), "--out", tmp_path / str(ranks)), patience=1200)
    one, two = held_out(tmp_path / "1"), held_out(tmp_path / "2")
    print(f"one process {one}, two ranks {two}")
    assert len(one) == 3
    assert two == pytest.approx(one, abs=1e-3)


def test_killed_with_two_ranks_and_gone_on_with_one_and_with_four(tmp_path: Path) -> None:
    small = (
        "data_cfg.batch_size=2"  # so that four ranks fit into 8 samples; the sums are then in other orders
    )
    finished(torchrun(*job(2), small, "--out", tmp_path / "whole"), patience=1200)
    (*_, expected) = held_out(tmp_path / "whole")
    process = torchrun(*job(2), small, "--out", tmp_path / "killed")
    assert process.stdout is not None
    while "epoch 2/3" not in (line := process.stdout.readline()):
        assert line, "the run ended before it could be killed"
    kill(process)
    for ranks in (1, 4):
        run = tmp_path / f"resumed with {ranks}"
        shutil.copytree(tmp_path / "killed", run)
        said = finished(torchrun(*job(ranks), small, "--out", run, "--resume"), patience=1200)
        assert "resuming   from" in said
        print(f"uninterrupted {expected}, resumed with {ranks}: {held_out(run)}")
        assert held_out(run)[-1] == pytest.approx(expected, abs=1e-2)

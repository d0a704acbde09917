"""R31, R34: the main job with two ranks, and killed with two and gone on with one and with four."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.distributed.test_torchrun import finished, kill, torchrun
from tests.run.command import metrics

pytestmark = pytest.mark.long

CONFIG = Path(__file__).parents[2] / "examples" / "char_lm" / "train.yaml"
SAME = ["train", CONFIG, "accum_grad=", "samples_per_update=8", "data_cfg.batch_size=2", "--out"]


def job(ranks: int) -> list[object]:
    return ["--nproc-per-node", ranks, "-m", "optimscheduler"]


def held_out(run: Path) -> list[float]:
    return [record["loss"] for record in metrics(run, "validation.jsonl")]


def test_the_main_job_with_other_numbers_of_ranks(tmp_path: Path) -> None:
    began = time.monotonic()
    finished(torchrun(*job(1), *SAME, tmp_path / "one"), patience=1200)
    expected = held_out(tmp_path / "one")
    assert len(expected) == 3

    finished(torchrun(*job(2), *SAME, tmp_path / "two"), patience=1200)
    print(f"one process {expected}, two ranks {held_out(tmp_path / 'two')}, {time.monotonic() - began:.0f} s")
    assert held_out(tmp_path / "two") == pytest.approx(expected, abs=1e-3)

    process = torchrun(*job(2), *SAME, tmp_path / "killed")
    assert process.stdout is not None
    while "epoch 2/3" not in (line := process.stdout.readline()):
        assert line, "the run ended before it could be killed"
    kill(process)
    for ranks in (1, 4):
        run = tmp_path / f"resumed with {ranks}"
        shutil.copytree(tmp_path / "killed", run)
        assert "resuming   from" in finished(torchrun(*job(ranks), *SAME, run, "--resume"), patience=1200)
        print(f"resumed with {ranks}: {held_out(run)}")
        assert held_out(run)[-1] == pytest.approx(expected[-1], abs=1e-2)

"""R34: the main job, killed at ten random moments and resumed each time, ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.run.command import last_state

CONFIG = Path(__file__).parents[1] / "examples" / "char_lm" / "train.yaml"
SECONDS = ("backward_seconds", "update_seconds")


def start(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "optimscheduler", "train", str(CONFIG), "--out", str(folder), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in SECONDS} for line in lines]


def kill_ten_times(folder: Path, whole: float, seed: int) -> int:
    """Start, kill, resume, kill, ...; the moments are drawn from the time that an undisturbed run takes."""
    chance, killed = random.Random(seed), 0
    while killed < 10:
        process = start(folder, *(["--resume"] if folder.exists() else []))
        try:
            process.wait(timeout=chance.uniform(0.02, 0.15) * whole)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        else:
            assert process.returncode == 0
            return killed
    assert start(folder, "--resume").wait() == 0
    return killed


@pytest.mark.long
def test_R34_the_main_job_survives_ten_kills(tmp_path: Path) -> None:
    began = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    killed = kill_ten_times(tmp_path / "killed", time.monotonic() - began, seed=5)
    assert killed == 10, f"the run was over after {killed} kills"
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    ours, theirs = last_state(tmp_path / "killed"), last_state(tmp_path / "whole")
    assert ours["progress"] == theirs["progress"]
    for name, weight in theirs["model"].items():
        assert torch.equal(ours["model"][name], weight), name

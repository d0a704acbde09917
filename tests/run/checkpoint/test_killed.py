"""Processes of their own, stopped by signals at moments that nobody chose."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.run.command import last_state, last_weights, metrics, without_seconds, write

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
ENDLESS = "num_epochs=1000000"


def start(*arguments: object) -> subprocess.Popen[str]:
    """The command, as the leader of a group of processes."""
    command = [sys.executable, "-m", "optimscheduler", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd="/",
        start_new_session=True,
    )


def after_windows(
    process: subprocess.Popen[str], windows: int, then: signal.Signals, *, group: bool = False
) -> tuple[str, str]:
    """Let a run go on for a few windows, send it or its group a signal meanwhile, and wait for its end."""
    assert process.stdout is not None
    seen = ""
    while windows and (line := process.stdout.readline()):
        seen += line
        windows -= line.startswith("window ")
    if group:
        os.killpg(process.pid, then)
    else:
        process.send_signal(then)
    out, err = process.communicate(timeout=120)
    return seen + out, err


def finish(config: Path, out: Path, epochs: int) -> None:
    process = start("train", config, f"num_epochs={epochs}", "--out", out, "--resume")
    _, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")


def epoch_of(out: Path) -> int:
    """Where the newest checkpoint stands."""
    return int(last_state(out)["progress"]["epoch"])


def same(one: Path, other: Path) -> None:
    ours, theirs = last_weights(one), last_weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert without_seconds(metrics(one)) == without_seconds(metrics(other))
    assert metrics(one, "validation.jsonl") == metrics(other, "validation.jsonl")


def test_R34_killed_at_random_moments_and_resumed_each_time(tmp_path: Path) -> None:
    config, out = write(tmp_path), tmp_path / "killed"
    moments = random.Random(0)
    for _ in range(2):  # the drill of kills has many more, in processes that are quicker to start
        process = start(
            "train", config, ENDLESS, "log_every=1", "checkpoint_every=2", "--out", out, "--resume"
        )
        after_windows(process, moments.randrange(1, 40), signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    epochs = epoch_of(out) + 1
    finish(config, out, epochs)
    finish(config, tmp_path / "whole", epochs)
    same(out, tmp_path / "whole")


def test_ctrl_c_and_the_command_that_is_printed_then(tmp_path: Path) -> None:
    config, out = write(tmp_path), tmp_path / "my run"
    process = start("train", config, ENDLESS, "log_every=1", "data_cfg.num_workers=1", "--out", out)
    said, err = after_windows(process, 2, signal.SIGINT)
    assert (process.returncode, err) == (130, "")
    again = shlex.split(said.partition("To go on:")[2])
    epochs = epoch_of(out) + 1
    assert again[0] == "optimscheduler"
    resumed = start(*(f"num_epochs={epochs}" if word == ENDLESS else word for word in again[1:]))
    assert resumed.communicate(timeout=120)[1] == ""
    assert resumed.returncode == 0
    finish(config, tmp_path / "whole", epochs)
    same(out, tmp_path / "whole")


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_stops_as_one_to_the_run_alone(
    kind: signal.Signals, tmp_path: Path
) -> None:
    """A terminal, a cluster's scheduler, a service manager: they do not ask which process loads the data."""
    process = start(
        "train", write(tmp_path), ENDLESS, "log_every=1", "data_cfg.num_workers=2", "--out", tmp_path / "run"
    )
    said, err = after_windows(process, 3, kind, group=True)
    assert (process.returncode, err) == (130, "")
    assert f" s after {kind.name}. To go on:" in said

"""The launcher itself: one machine, two machines, and what is left after everything was killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.distributed.launch import free_port
from tests.distributed.test_run import YAML, close
from tests.run.command import call, metrics

pytestmark = [pytest.mark.xdist_group("ranks"), pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def torchrun(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd="/"
    )


def kill(process: subprocess.Popen[str], *, wait: bool = True) -> None:
    """The launcher and its workers, which are in sessions of their own, as a power cut would."""
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for each in [process.pid, *map(int, workers)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    if wait:
        process.communicate(timeout=60)


def finished(process: subprocess.Popen[str], patience: float = 120) -> str:
    out, err = process.communicate(timeout=patience)
    assert process.returncode == 0, err
    return out


def finished_together(agents: list[subprocess.Popen[str]], patience: float = 150) -> list[str]:
    """What each has said. One that fails leaves the others waiting for minutes, so all are watched."""
    end = time.monotonic() + patience
    while time.monotonic() < end and any(agent.poll() is None for agent in agents):
        if any(agent.poll() for agent in agents):
            break
        time.sleep(0.2)
    for agent in agents:
        if agent.poll() is None:
            kill(agent, wait=False)
    said = [agent.communicate(timeout=60) for agent in agents]
    told = [f"agent {i}: exit {a.returncode}\n{said[i][0]}\n{said[i][1]}" for i, a in enumerate(agents)]
    assert [agent.returncode for agent in agents] == [0] * len(agents), "\n".join(told)
    return [out for out, _ in said]


def a_config(folder: Path) -> Path:
    path = folder / "smooth.yaml"
    path.write_text(YAML)
    return path


def test_R31_two_machines_train_what_one_process_does(tmp_path: Path) -> None:
    config = a_config(tmp_path)
    meet = ["--nnodes", 2, "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-id", "job"]
    meet += ["--rdzv-endpoint", f"localhost:{free_port()}", "--local-addr", "localhost", "--rdzv-conf"]
    job = ["-m", "optimscheduler", "train", config, "--out", tmp_path / "run"]
    agents = [torchrun(*meet, f"is_host={host}", *job) for host in ("true", "false")]
    said = finished_together(agents)
    assert sorted(bool(out) for out in said) == [False, True], "rank 0 alone speaks"
    assert call("train", config, "--out", tmp_path / "alone").code == 0
    close(tmp_path / "run", tmp_path / "alone")


def test_R34_killed_with_two_ranks_and_resumed_with_one_and_with_four(tmp_path: Path) -> None:
    config, run = a_config(tmp_path), tmp_path / "run"
    endless = [config, "num_epochs=1000000", "--out", run]
    process = torchrun("--nproc-per-node", 2, "-m", "optimscheduler", "train", *endless)
    assert process.stdout is not None
    windows = 0
    while windows < 20 and (line := process.stdout.readline()):
        windows += line.startswith("window ")
    kill(process)
    epochs = metrics(run)[-1]["epoch"] + 3
    assert call("train", config, f"num_epochs={epochs}", "--out", tmp_path / "alone").code == 0
    assert call("train", config, f"num_epochs={epochs - 1}", "--out", run, "--resume").code == 0
    last = [config, f"num_epochs={epochs}", "--out", run, "--resume"]
    out = finished(torchrun("--nproc-per-node", 4, "-m", "optimscheduler", "train", *last))
    assert "resuming   from" in out
    close(run, tmp_path / "alone", 1e-4)  # many more updates, each with sums in another order

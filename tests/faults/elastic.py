"""Workers of a torchrun job killed one after the other, and the launcher asked to stop."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from tests.distributed.test_run import YAML
from tests.faults.row import Row
from tests.faults.same import difference
from tests.run.command import last_state

__all__ = ["drill", "sigterm"]

_ROOT = Path(__file__).parents[2]
_SETTINGS = ("log_every=1", "checkpoint_every=3")


def drill(count: int, folder: Path, seed: int = 0) -> Row:
    """Kill a worker that many times in a row; then do the same job without."""
    config, chance = _config(folder, epochs=8 + 5 * count), random.Random(seed)
    whole, run = folder / "whole", folder / "run"
    job = _Job("--max-restarts", count, "--nproc-per-node", 2, config=config, run=run)
    for _ in range(count):
        job.go_on(chance.randrange(6, 14))
        os.kill(chance.choice(job.workers()), signal.SIGKILL)
    code, said = job.end()
    failures = []
    if code != 0:
        failures.append(f"the job ends with exit code {code}: {said[-1000:]}")
    code, said = _Job("--nproc-per-node", 2, config=config, run=whole).end()
    assert code == 0, said
    if found := difference(whole, run):
        failures.append(f"it differs from the uninterrupted one: {found}")
    return Row(
        drill="a worker of a torchrun job of 2 ranks killed, again and again (`--max-restarts`)",
        promise="the job finishes with the uninterrupted run's weights, state and metrics, to the bit",
        count=count,
        figures=f"{count} kills, {'finished, identical' if not failures else 'failed'}",
        failures=tuple(failures),
    )


def sigterm(count: int, folder: Path, seed: int = 0) -> Row:
    """Send SIGTERM to the launcher that many times, and go on each time."""
    config, chance = _config(folder, epochs=8 + 5 * count), random.Random(seed)
    whole, run = folder / "whole", folder / "run"
    failures = []
    batches = []
    for _ in range(count):
        job = _Job("--nproc-per-node", 2, config=config, run=run, more=("--resume",))
        job.go_on(chance.randrange(3, 9))
        job.ask_to_stop()
        _, said = job.end()
        state = last_state(run)
        batches.append(state["progress"]["batch"])
        if f"stopped    as asked, after batch {batches[-1]}, safely " not in said:
            failures.append(f"no checkpoint from the window at which it was stopped: {said[-1000:]}")
        if len(state["random"]) != 2:
            failures.append("the checkpoint is not of both ranks")
    code, said = _Job("--nproc-per-node", 2, config=config, run=run, more=("--resume",)).end()
    if code != 0:
        failures.append(f"it does not go on: {said[-1000:]}")
    assert _Job("--nproc-per-node", 2, config=config, run=whole).end()[0] == 0
    if found := difference(whole, run):
        failures.append(f"it differs from the uninterrupted one: {found}")
    return Row(
        drill="SIGTERM to the launcher of 2 ranks",
        promise="a checkpoint from the next window on which both agree; it goes on as if never stopped",
        count=count,
        figures=f"stopped after batches {', '.join(map(str, batches))}; "
        f"{'identical at the end' if not failures else 'failed'}",
        failures=tuple(failures),
    )


class _Job:
    """A torchrun that trains."""

    def __init__(self, *launch: object, config: Path, run: Path, more: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", *launch, "-m", "optimscheduler", "train"]
        command += [config, *_SETTINGS, "--out", run, *more]
        env = {**os.environ, "PYTHONPATH": f"{_ROOT / 'src'}:{_ROOT}", "OMP_NUM_THREADS": "1"}
        self._said = ""
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            cwd="/",
        )

    def go_on(self, windows: int) -> None:
        """Until it has said so many more windows."""
        assert self._process.stdout is not None
        while windows and (line := self._process.stdout.readline()):
            self._said += line
            windows -= line.startswith("window ")
        assert not windows, self._said[-2000:]

    def workers(self) -> list[int]:
        """Their process numbers."""
        launcher = self._process.pid
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        return [int(child) for child in children if _trains(int(child))]

    def ask_to_stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def end(self) -> tuple[int, str]:
        """Its exit code, and everything that it has said."""
        said, _ = self._process.communicate(timeout=240)
        return self._process.returncode, self._said + said


def _trains(process: int) -> bool:
    try:
        return b"optimscheduler" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def _config(folder: Path, *, epochs: int) -> Path:
    """One of four windows in each epoch, which leaves enough of them for every kill."""
    path = folder / "smooth.yaml"
    path.write_text(YAML.replace("num_epochs: 4", f"num_epochs: {epochs}"))
    return path

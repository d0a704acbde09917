"""Runs killed at random moments, while a checkpoint is written too, and resumed."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

from tests.faults.process import Process
from tests.faults.row import Row
from tests.faults.same import difference
from tests.run.command import YAML, write

__all__ = ["drill"]

_SETTINGS = ("num_epochs=8", "checkpoint_every=1", "train_cfg.model.conf={width: 4000}")


def drill(count: int, folder: Path, seed: int = 0) -> Row:
    """Kill that many runs, each once or twice, and let each come to its end.

    Every third one is killed while a checkpoint is being written.
    """
    config, chance = write(folder, YAML), random.Random(seed)
    whole = folder / "whole"
    seconds = [_whole(folder, config, whole) for _ in range(2)][-1]  # the first one starts the server too
    kills = half_written = 0
    failures = []
    for number in range(count):
        run = folder / f"run-{number}"
        for _ in range(chance.choice((1, 1, 2))):
            kills += 1
            half_written += _killed(folder, config, run, chance, seconds, writing=number % 3 == 0)
        last = _started(folder, config, run)
        if last.finish() != 0:
            failures.append(f"run {number} does not resume: {last.said.read_text()[-500:]}")
        elif found := difference(whole, run):
            failures.append(f"run {number} differs from the uninterrupted one: {found}")
    return Row(
        drill="runs killed by SIGKILL at random moments, some twice, a third while they write a checkpoint",
        promise="each resumes, and ends with weights, state and metrics of the uninterrupted run, to the bit",
        count=count,
        figures=f"{kills} kills, {half_written} of them left a half-written checkpoint; "
        f"{count - len(failures)} of {count} resumed and identical",
        failures=tuple(failures),
    )


def _started(folder: Path, config: Path, run: Path) -> Process:
    arguments = ("train", config, *_SETTINGS, "--out", run, "--resume")
    return Process(folder / f"{run.name}.txt", *arguments)


def _whole(folder: Path, config: Path, whole: Path) -> float:
    """Train without a kill; the seconds that it takes."""
    shutil.rmtree(whole, ignore_errors=True)
    process = _started(folder, config, whole)
    assert process.finish() == 0, process.said.read_text()
    return time.monotonic() - process.began


def _killed(
    folder: Path, config: Path, run: Path, chance: random.Random, seconds: float, *, writing: bool
) -> bool:
    """Start or go on with a run, and kill it; whether a half-written checkpoint is left.

    One that comes to its end before is begun anew.
    """
    while True:
        wait = _Writing(run / "checkpoints", chance.randrange(1, 12), chance.random() * 0.01)
        moment = wait if writing else _Elapsed(chance.random() * seconds)
        if _started(folder, config, run).kill_when(moment):
            return any(run.glob("checkpoints/*.tmp"))
        shutil.rmtree(run)


class _Elapsed:
    """So many seconds are over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def __call__(self) -> bool:
        return time.monotonic() > self._end


class _Writing:
    """A checkpoint is being written, so many before it were, and a moment has passed."""

    def __init__(self, folder: Path, wanted: int, after: float) -> None:
        self._folder, self._left, self._after = folder, wanted, after
        self._seen: set[str] = set()
        self._end: float | None = None

    def __call__(self) -> bool:
        names = os.listdir(self._folder) if self._folder.is_dir() else []
        new = {name for name in names if name.endswith(".tmp")} - self._seen
        self._seen |= new
        self._left -= len(new)
        if self._left <= 0 and self._end is None:
            self._end = time.monotonic() + self._after
        return self._end is not None and time.monotonic() >= self._end

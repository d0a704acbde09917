"""Runs killed at random moments, while a checkpoint is written too, and resumed."""

from __future__ import annotations

import os
import random
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
    config, moments = write(folder, YAML), random.Random(seed)
    whole = folder / "whole"
    process = Process(folder / "whole.txt", "train", config, *_SETTINGS, "--out", whole)
    assert process.finish() == 0, process.said.read_text()
    seconds = time.monotonic() - process.began
    killed = half_written = 0
    failures = []
    for number in range(count):
        run = folder / f"run-{number}"
        arguments = ("train", config, *_SETTINGS, "--out", run, "--resume")
        for _ in range(moments.choice((1, 1, 2))):
            if number % 3 == 0:
                wanted, after = moments.randrange(1, 24), moments.random() * 0.02
                moment = _Writing(run / "checkpoints", wanted, after)
            else:
                moment = _Elapsed(moments.random() * seconds)
            killed += Process(folder / f"run-{number}.txt", *arguments).kill_when(moment)
            half_written += any(run.glob("checkpoints/*.tmp"))
        last = Process(folder / f"run-{number}.txt", *arguments)
        if last.finish() != 0:
            failures.append(f"run {number} does not resume: {last.said.read_text()[-500:]}")
        elif found := difference(whole, run):
            failures.append(f"run {number} differs from the uninterrupted one: {found}")
    return Row(
        drill="runs killed by SIGKILL at random moments, some twice, a third while they write a checkpoint",
        promise="each resumes, and ends with weights, state and metrics of the uninterrupted run, to the bit",
        count=count,
        figures=f"{killed} kills, {half_written} of them left a half-written checkpoint; "
        f"{count - len(failures)} of {count} resumed and identical",
        failures=tuple(failures),
    )


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

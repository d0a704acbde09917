"""Runs killed at random moments, while a checkpoint is written too, and resumed."""

from __future__ import annotations

import os
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.process import Process
from tests.faults.resumed import Left, left_of
from tests.faults.row import Row
from tests.faults.same import difference
from tests.run.command import YAML, write

__all__ = ["drill"]

_SETTINGS = ("num_epochs=8", "checkpoint_every=1", "train_cfg.model.conf={width: 4000}")


def drill(count: int, folder: Path, seed: int = 0) -> Row:
    """Kill that many runs, each once or twice and once after its first checkpoint, and let each end.

    Every third one is killed while a checkpoint is being written.
    """
    config, chance = write(folder, YAML), random.Random(seed)
    whole = folder / "whole"
    seconds = [_whole(folder, config, whole) for _ in range(2)][-1]  # the first one starts the server too
    kills: list[_Kill] = []
    failures = []
    for number in range(count):
        killed = _Killed(folder, config, folder / f"run-{number}", chance, seconds, writing=number % 3 == 0)
        kills += killed.kills(chance.choice((1, 1, 2)))
        killed.end(whole)
        if killed.failure:
            failures.append(f"run {number} does not resume: {killed.failure}")
    over = sum(kill.left.newest is None for kill in kills)
    return Row(
        drill="runs killed by SIGKILL at random moments, some more than once, a third while they write a "
        "checkpoint",
        promise="each resumes from the newest checkpoint that there was, and ends with weights, state and "
        "metrics of the uninterrupted run, to the bit",
        count=count,
        figures=f"{count - len(failures)} of {count} resumed from a checkpoint, and identical; "
        f"{len(kills)} kills: {over} before the first checkpoint (those start over), {len(kills) - over} "
        f"after it; {sum(kill.half_written for kill in kills)} left a half-written one; at most "
        f"{max((kill.left.again for kill in kills), default=0)} batches done again",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kill:
    """What one left behind."""

    left: Left
    half_written: bool


class _Killed:
    """A run that is killed, and resumed.

    Args:
        folder: of what it says.
        config: what it trains.
        run: its folder.
        chance: when it is killed.
        seconds: that it takes without a kill.
        writing: kill it while it writes a checkpoint.
    """

    def __init__(
        self, folder: Path, config: Path, run: Path, chance: random.Random, seconds: float, *, writing: bool
    ) -> None:
        self.failure: str | None = None
        self._folder, self._config, self._run = folder, config, run
        self._chance, self._seconds, self._writing = chance, seconds, writing

    def kills(self, wanted: int) -> list[_Kill]:
        """Kill it so often, and more often if there was no checkpoint yet.

        If it comes to its end before, it is begun anew.
        """
        done: list[_Kill] = []
        while len(done) < wanted or not done[-1].left.newest:
            left = left_of(self._run)
            process = _started(self._folder, self._config, self._run)
            killed = process.kill_when(self._moment(len(done), left))
            if left.has_begun(process.told):
                self._note(left.wrongly_continued(process.told))
            if killed:
                half_written = any(self._run.glob("checkpoints/*.tmp"))
                done.append(_Kill(left=left_of(self._run), half_written=half_written))
            else:
                shutil.rmtree(self._run)
                done.clear()
        return done

    def end(self, whole: Path) -> None:
        """Resume it for the last time."""
        left = left_of(self._run)
        process = _started(self._folder, self._config, self._run)
        if process.finish() != 0:
            self._note(process.told[-500:])
            return
        self._note(left.wrongly_continued(process.told))
        if found := difference(whole, self._run):
            self._note(f"it differs from the uninterrupted one: {found}")

    def _note(self, failure: str | None) -> None:
        """The first one is told."""
        self.failure = self.failure or failure

    def _moment(self, kills: int, left: Left) -> _Elapsed | _Writing:
        """At any time at first; then while there is a checkpoint, and before what is left is done."""
        folder, chance = self._run / "checkpoints", self._chance
        if self._writing:
            return _Writing(folder, chance.randrange(1, 12), chance.random() * 0.01)
        awaited = folder if kills and not left.newest else None
        return _Elapsed(chance.random() * self._seconds / (1 + kills), awaited)


class _Elapsed:
    """So many seconds are over, since now or since there is a checkpoint in a folder."""

    def __init__(self, seconds: float, folder: Path | None) -> None:
        self._seconds, self._folder = seconds, folder
        self._end = time.monotonic() + seconds

    def __call__(self) -> bool:
        if self._folder and left_of(self._folder.parent).newest:
            self._folder, self._end = None, time.monotonic() + self._seconds
        return not self._folder and time.monotonic() > self._end


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

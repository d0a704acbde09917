"""A long run of a tiny model: does it need more and more of anything?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.faults.process import Process
from tests.faults.row import Row
from tests.run.command import YAML, write

__all__ = ["drill"]

_SAMPLES = 100
_POLL = 0.01  # seconds
_MORE_MEMORY = 0.02  # of what it needs at the beginning, what the system gives and takes
_MORE_TIME = 0.10  # the noise of a machine that does other things too


def drill(count: int, folder: Path) -> Row:
    """Train for that many updates, with a checkpoint and a validation now and then.

    Args:
        count: a multiple of 100.
        folder: empty.
    """
    every = count // _SAMPLES
    settings = ["num_epochs=1000000", f"num_steps={count}", f"checkpoint_every={every}", f"log_every={every}"]
    settings += ["train_cfg.model.type=tests.run.tiny.Smooth", f"data_cfg.train.conf.count={every * 8 + 3}"]
    process = Process(folder / "said.txt", "train", write(folder, YAML), *settings, "--out", folder / "run")
    samples = list(_watched(process))
    assert process.finish() == 0, process.said.read_text()[-1000:]
    tenth = len(samples) // 10
    first, last = samples[1 : tenth + 1], samples[-tenth:]  # the first has warmed up
    memory = [median(sample.memory for sample in part) for part in (first, last)]
    files = [min(sample.files for sample in part) for part in (first, last)]  # some are open for a moment
    seconds = [(part[-1].at - part[0].at) / (part[-1].windows - part[0].windows) for part in (first, last)]
    failures = []
    if memory[1] > memory[0] * (1 + _MORE_MEMORY):
        failures.append(f"resident memory grows from {memory[0] / 1e6:.1f} to {memory[1] / 1e6:.1f} MB")
    if files[1] > files[0]:
        failures.append(f"open files grow from {files[0]} to {files[1]}")
    if seconds[1] > seconds[0] * (1 + _MORE_TIME):
        failures.append(
            f"an update takes {seconds[0] * 1e6:.0f} us at first and {seconds[1] * 1e6:.0f} at last"
        )
    return Row(
        drill=f"{count:,} updates of a tiny model, with {len(samples)} checkpoints",
        promise="resident memory, open files and time per update of the last tenth are those of the first",
        count=count,
        figures=f"memory {memory[1] / memory[0]:.3f} times, files {files[1]} and {files[0]}, "
        f"time {seconds[1] / seconds[0]:.2f} times",
        failures=tuple(failures),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """What a process needed at some time: windows it had done, seconds, bytes, open files."""

    windows: int
    at: float
    memory: int
    files: int


def _watched(process: Process) -> Iterator[_Sample]:
    """One sample for each line about a window."""
    seen = 0
    while process.runs:
        time.sleep(_POLL)
        lines = process.said.read_text().splitlines() if process.said.exists() else []
        told = [line for line in lines if line.startswith("window ") and "/" in line]
        if len(told) > seen:
            seen = len(told)
            try:
                yield _sample(process.number, int(told[-1].split()[1].partition("/")[0]))
            except OSError:  # it has just come to its end
                return


def _sample(process: int, windows: int) -> _Sample:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return _Sample(
        windows=windows,
        at=time.monotonic(),
        memory=pages * os.sysconf("SC_PAGE_SIZE"),
        files=len(os.listdir(f"/proc/{process}/fd")),
    )

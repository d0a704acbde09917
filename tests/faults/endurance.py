"""A long run of a tiny model: does it need more and more of anything?"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from tests.faults.process import Process
from tests.faults.row import Row
from tests.run.command import YAML, write

__all__ = ["Need", "Sample", "drill", "grown"]

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
    assert process.finish() == 0, process.told[-1000:]
    tenth = len(samples) // 10
    parts = samples[1 : tenth + 2], samples[-tenth - 1 :]  # the first has warmed up
    first, last = (Need.of(part) for part in parts)
    return Row(
        drill=f"{count:,} updates of a tiny model, with {len(samples)} checkpoints",
        promise="resident memory, open files and time per update of the last tenth are those of the first",
        count=count,
        figures=f"first and last tenth: {first.memory / 1e6:.1f} and {last.memory / 1e6:.1f} MB "
        f"({last.memory / first.memory:.3f} times); {first.files:g} and {last.files:g} open files; "
        f"{first.seconds * 1e6:.0f} and {last.seconds * 1e6:.0f} us per update "
        f"({last.seconds / first.seconds:.2f} times), of which the processor works "
        f"{first.cpu * 1e6:.0f} and {last.cpu * 1e6:.0f} us ({last.cpu / first.cpu:.2f} times)",
        failures=tuple(grown(first, last)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a process needed up to some line of its log.

    Attributes:
        windows: that it had done.
        at: seconds on a clock.
        cpu: seconds that processors worked for it.
        memory: resident bytes.
        files: the fewest that were open at once since the line before; some are open for a moment.
    """

    windows: int
    at: float
    cpu: float
    memory: int
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Medians over a part of a run: a moment at which other jobs take the machine does not move them.

    Attributes:
        memory: resident bytes.
        files: open ones.
        seconds: per update.
        cpu: seconds that processors work for an update; other jobs hardly move it at all.
    """

    memory: float
    files: float
    seconds: float
    cpu: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Need:
        """Those of at least two, one after the other."""
        pairs = list(pairwise(samples))
        return cls(
            memory=median(sample.memory for sample in samples),
            files=median(sample.files for sample in samples),
            seconds=median((b.at - a.at) / (b.windows - a.windows) for a, b in pairs),
            cpu=median((b.cpu - a.cpu) / (b.windows - a.windows) for a, b in pairs),
        )


def grown(first: Need, last: Need) -> Iterator[str]:
    """What a run needs more of at last."""
    if last.memory > first.memory * (1 + _MORE_MEMORY):
        yield f"resident memory grows from {first.memory / 1e6:.1f} to {last.memory / 1e6:.1f} MB"
    if last.files > first.files:
        yield f"open files grow from {first.files:g} to {last.files:g}"
    for what, was, now in (
        ("takes", first.seconds, last.seconds),
        ("takes the processor", first.cpu, last.cpu),
    ):
        if now > was * (1 + _MORE_TIME):
            yield f"an update {what} {was * 1e6:.0f} us at first and {now * 1e6:.0f} at last"


def _watched(process: Process) -> Iterator[Sample]:
    """One sample for each line about a window."""
    seen, files = 0, sys.maxsize
    while process.runs:
        time.sleep(_POLL)
        told = [line for line in process.told.splitlines() if line.startswith("window ") and "/" in line]
        try:
            files = min(files, len(os.listdir(f"/proc/{process.number}/fd")))
            if len(told) > seen:
                yield _sample(process.number, int(told[-1].split()[1].partition("/")[0]), files)
                seen, files = len(told), sys.maxsize
        except OSError:  # it has just come to its end
            return


def _sample(process: int, windows: int, files: int) -> Sample:
    folder = Path(f"/proc/{process}")
    pages = int((folder / "statm").read_text().split()[1])
    user, system = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
    return Sample(
        windows=windows,
        at=time.monotonic(),
        cpu=(int(user) + int(system)) / os.sysconf("SC_CLK_TCK"),
        memory=pages * os.sysconf("SC_PAGE_SIZE"),
        files=files,
    )

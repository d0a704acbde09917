"""Peak memory of training GPT-2's tensors, each loop in a process of its own.

    python -m benchmarks.memory ByHand      # prints bytes

Counted is the largest resident set of the process, less what was resident before the model was built:
weights, gradients, moments, and whatever a loop needs besides.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from statistics import median
from typing import Final

from benchmarks import loops, models
from benchmarks.rows import HAND, Row
from benchmarks.timing import Cost, Measured

STEPS: Final = 5
RUNS: Final = 3

ROW: Final = Row(
    name="peak memory, GPT-2",
    against=HAND,
    top=Cost(of="optimscheduler"),
    bottom=Cost(of=HAND),
    how="largest resident set of a process that takes 5 steps, less that before the model was built",
    bar=1.03,
)


class Whole(models.Tensors):
    """Tensors that a loop takes as they are: a copy would count."""

    def __deepcopy__(self, _memo: dict[int, object]) -> Whole:
        return self


def peak(loop: type[loops.Loop]) -> int:
    """Bytes, in this process."""
    __import__("optimscheduler")  # is resident in either process
    before = _resident()
    one = loop(models.Workload(model=Whole(models.gpt2(), models.UNCLIPPED, "cpu"), batches=[None]))
    for _ in range(STEPS):
        one.step()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def compare(*, quick: bool) -> Measured:
    """The ratio, of a few processes each."""
    pairs = [[_started(name) for name in ("Ours", "ByHand")] for _ in range(1 if quick else RUNS)]
    ratios = [ours / hand for ours, hand in pairs]
    return Measured(median=median(ratios), bound=max(ratios), pairs=len(ratios))


def _started(name: str) -> int:
    command = [sys.executable, "-m", "benchmarks.memory", name]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _resident() -> int:
    """Bytes that are resident now; Linux only."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    print(peak(getattr(loops, sys.argv[1])))

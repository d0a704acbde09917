"""The rows of a CUDA machine: synchronisations, kernels, bandwidth, and the update against best by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import loops, models
from benchmarks.measure import Result, measure
from benchmarks.models import Builder
from benchmarks.rows import OURS, SMALL, Case, Row, traffic, update
from benchmarks.timing import Cost, Measured

SETTLED: Final = 10  # steps after which everything is in place
WATCHED: Final = 100  # steps without a synchronisation
TOGETHER: Final = 20  # steps that are timed as one, so that the host may run ahead
BILLION: Final = [(2000, 2000)] * 250
NEEDED: Final = 64 * 2**30  # bytes, for a billion parameters


class Together:
    """Several steps as one, and the device waited for at their end."""

    def __init__(self, loop: loops.Loop) -> None:
        self._loop = loop

    def before(self) -> None:
        """Nothing is left to do from earlier."""
        torch.cuda.synchronize()

    def step(self) -> None:
        """So many steps."""
        for _ in range(TOGETHER):
            self._loop.before()
            self._loop.step()
        torch.cuda.synchronize()


class Half(loops.Ours):
    """In float16, with a loss scale."""

    use_amp = "fp16"


class Brain(loops.Ours):
    """In bfloat16."""

    use_amp = "bf16"


PRECISIONS: Final = {"fp16": Half, "bf16": Brain, "fp32": loops.Ours}


def measured(pattern: re.Pattern[str], *, quick: bool) -> Iterator[dict[Row, Result]]:
    """One run of every row that was asked for; without a GPU every row says so."""
    for row, one in _counted().items():
        if pattern.search(row.name):
            yield {row: _or_why_not(one)}
    for case in _timed():
        rows = [row for row in case.rows if pattern.search(row.name)]
        short = "1 billion" in case.rows[0].name and _memory() < NEEDED
        if rows and torch.cuda.is_available() and not short:
            yield measure(case, quick=quick, wrap=Together)
            torch.cuda.empty_cache()
        elif rows:
            why = f"needs {NEEDED // 2**30} GiB" if torch.cuda.is_available() else "no CUDA device here"
            yield dict.fromkeys(rows, why)


def synchronisations(loop: type[loops.Loop]) -> int:
    """1 if a step made the host wait for the device in a hundred steps, otherwise 0."""
    one = loop(models.transformer(256, 4, 8, 64, device="cuda")())
    _take(one, SETTLED)
    with _forbidden():
        try:
            _take(one, WATCHED)
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            print(f"      {str(error).splitlines()[0]}")
            return 1
    return 0


def kernels(workload: Builder) -> int:
    """What one update starts on the device: everything in `step` but what its backward starts."""
    one = loops.OursStepAlone(workload())
    for _ in range(SETTLED):
        one.before()
        one.step()
    started = []
    for part in ("whole", "backward"):
        one.before()
        torch.cuda.synchronize()
        watch = profile(activities=[ProfilerActivity.CUDA])
        if part == "whole":
            with watch:
                one.step()
                torch.cuda.synchronize()
        else:
            one.optim.step(one._losses, time_func=_only("loss_backward_time", watch))
        started.append(sum(e.device_type == torch.autograd.DeviceType.CUDA for e in watch.events()))
    return started[0] - started[1]


def _only(name: str, watch: profile) -> Callable[[list[str]], object]:
    """A timer that watches this part."""

    @contextmanager
    def timer(names: list[str]) -> Iterator[None]:
        if names[0] != name:
            yield
            return
        with watch:
            yield
            torch.cuda.synchronize()

    return timer


@contextmanager
def _forbidden() -> Iterator[None]:
    """A synchronisation is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _take(loop: loops.Loop, steps: int) -> None:
    for _ in range(steps):
        loop.step()


def _counted() -> dict[Row, Callable[[], int]]:
    """Rows that are counts, not times."""
    rows: dict[Row, Callable[[], int]] = {}
    for name, loop in PRECISIONS.items():
        told = f"host synchronisations in {WATCHED} steps, {name}"
        rows[_count(told, 0, 'set_sync_debug_mode("error")')] = lambda loop=loop: synchronisations(loop)
    for name, shapes in {
        "10 tensors, 100 M": [(2000, 5000)] * 10,
        "1,000 tensors, 100 M": [(250, 400)] * 1000,
        "1,000 tensors, 1 M": [(32, 32)] * 1000,
    }.items():
        workload = models.tensors(shapes, device="cuda")
        rows[_count(f"kernels per update, {name}", 12, "torch.profiler, `step` less its backward")] = (
            lambda workload=workload: kernels(workload)
        )
    return rows


def _count(name: str, most: int, how: str) -> Row:
    return Row(name=name, against="a number", top=Cost(of=OURS), bottom=Cost(of=OURS), how=how, bar=most)


def _timed() -> list[Case]:
    """Rows that are times."""
    lists = {
        "1,000 tensors of 32 x 32": [(32, 32)] * 1000,
        "conformer of 590 tensors, 29.5 M": models.conformer(),
        "GPT-2, 124 M": models.gpt2(),
        "10 small tensors": [SMALL] * 10,
    }
    updates = [
        update(f"{name}, CUDA", models.tensors(shapes, device="cuda"), None, loops.Unchecked)
        for name, shapes in lists.items()
    ]
    stream = models.tensors([(1_000_000_000,)], device="cuda")
    return [*updates, traffic(models.tensors(BILLION, device="cuda"), stream, "1 billion parameters, CUDA")]


def _memory() -> int:
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0


def _or_why_not(count: Callable[[], int]) -> Result:
    if not torch.cuda.is_available():
        return "no CUDA device here"
    found = count()
    return Measured(median=found, bound=found, pairs=1)

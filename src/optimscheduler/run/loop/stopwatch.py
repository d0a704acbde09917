"""What a window came to, and the seconds spent in its backwards and its update."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optimscheduler.reports.ledger import StepReport

__all__ = ["Stopwatch", "record_of"]


class Stopwatch:
    """Given to `step` as its `time_func`. On an accelerator it measures what the host waits for."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], float] = defaultdict(float)

    @contextmanager
    def __call__(self, names: list[str]) -> Iterator[None]:
        """Add the time that is spent inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[tuple(names)] += time.perf_counter() - began

    def take(self, *names: str) -> float:
        """The seconds since the last time that this was asked."""
        return self._seconds.pop(names, 0.0)


def record_of(report: StepReport, stopwatch: Stopwatch, name: str, *, several: bool) -> dict[str, Any]:
    """What is written down of a closed window.

    Args:
        report: of it, read.
        stopwatch: that was given to `step`; what it has measured of this OptimScheduler is taken.
        name: of the OptimScheduler.
        several: whether there are others.
    """
    member = {"member": name} if several else {}
    return member | {
        "batch": report.batch,
        "real_step": report.real_step,
        "epoch": report.epoch,
        "lr": report.lr,
        "loss": report.loss,
        "grad_norm": report.grad_norm,
        "updated": report.updated,
        "skipped": report.skipped,
        "backward_seconds": round(stopwatch.take("loss_backward_time", name), 6),
        "update_seconds": round(stopwatch.take("optim_time", name), 6),
    }

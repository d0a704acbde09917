"""Seconds spent in the backwards and in the updates, summed up from one window to the next."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Stopwatch"]


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

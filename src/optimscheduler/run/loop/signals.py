"""Ctrl-C and SIGTERM as wishes: the first is noted, a second Ctrl-C acts at once."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType

__all__ = ["Interrupt"]


class Interrupt:
    """A context in which SIGTERM and the first SIGINT set `asked`, and the second raises KeyboardInterrupt.

    SIGTERM is how torchrun and schedulers of clusters ask.
    """

    def __init__(self) -> None:
        self.asked = False
        self.by = ""
        self._at = 0.0

    @property
    def seconds(self) -> float:
        """Since it was asked for; 0 if it was not."""
        return time.monotonic() - self._at if self.asked else 0.0

    def __enter__(self) -> Interrupt:
        self._before = {kind: signal.signal(kind, self._note) for kind in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self.by, self._at = True, signal.Signals(number).name, time.monotonic()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

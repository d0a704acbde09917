"""Ctrl-C and SIGTERM as wishes: the first is noted, a second Ctrl-C acts at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

__all__ = ["Interrupt"]


class Interrupt:
    """A context in which SIGTERM and the first SIGINT set `asked`, and the second raises KeyboardInterrupt.

    SIGTERM is how torchrun and schedulers of clusters ask.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupt:
        self._before = {kind: signal.signal(kind, self._note) for kind in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

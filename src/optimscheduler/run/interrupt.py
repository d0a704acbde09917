"""Ctrl-C as a wish: the first is noted, the second acts at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

__all__ = ["Interrupt"]


class Interrupt:
    """A context in which the first SIGINT sets `asked` and the second raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

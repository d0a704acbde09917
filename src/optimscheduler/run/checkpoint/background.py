"""One piece of work at a time, beside the training."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Background"]


class Background:
    """A thread that does one thing, and says how it went when it is asked."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._work: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin, after what was begun before is finished.

        Raises:
            Exception: what that raised.
        """
        self.finish()
        self._work = self._threads.submit(work)

    @property
    def busy(self) -> bool:
        """Whether something is being done."""
        return self._work is not None and not self._work.done()

    def finish(self) -> None:
        """Wait until nothing is being done.

        Raises:
            Exception: what the work raised; it is raised once.
        """
        work, self._work = self._work, None
        if work is not None:
            work.result()

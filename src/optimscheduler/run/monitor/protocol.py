"""The protocol of a monitor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

__all__ = ["Monitor", "Record", "Several"]

_log = logging.getLogger("optimscheduler")

Record = dict[str, Any]  # Any: plain values


class Monitor(Protocol):
    """Is told what happens in a run, in order."""

    def window(self, record: Record) -> None:
        """A window was closed: batch, real_step, epoch, lr, loss, grad_norm, updated, skipped, seconds.

        Of several OptimSchedulers, `member` is the name.
        """

    def validated(self, record: Record) -> None:
        """The held-out data were gone through: batch, real_step, epoch, and the model's mean outputs."""

    def sampled(self, text: str) -> None:
        """The model wrote something."""

    def drawn(self, epoch: int, picture: Tensor) -> None:
        """The model drew something at an epoch's end: (H, W) or (H, W, 3), floats from 0 to 1."""

    def close(self) -> None:
        """The run is over, or interrupted."""


class Several:
    """Passes everything on to several monitors. One that cannot write is a warning, and no end of a run."""

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self._monitors = monitors
        self._troubled: set[int] = set()

    def window(self, record: Record) -> None:
        """See `Monitor`."""
        self._each(lambda monitor: monitor.window(record))

    def validated(self, record: Record) -> None:
        """See `Monitor`."""
        self._each(lambda monitor: monitor.validated(record))

    def sampled(self, text: str) -> None:
        """See `Monitor`."""
        self._each(lambda monitor: monitor.sampled(text))

    def drawn(self, epoch: int, picture: Tensor) -> None:
        """See `Monitor`."""
        self._each(lambda monitor: monitor.drawn(epoch, picture))

    def close(self) -> None:
        """See `Monitor`."""
        self._each(lambda monitor: monitor.close())

    def _each(self, tell: Callable[[Monitor], None]) -> None:
        for monitor in self._monitors:
            try:
                tell(monitor)
            except OSError as error:
                if id(monitor) not in self._troubled:
                    _log.warning("%s cannot write: %s. The training goes on", type(monitor).__name__, error)
                self._troubled.add(id(monitor))

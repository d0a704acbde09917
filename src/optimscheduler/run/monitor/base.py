"""The protocol of a monitor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

__all__ = ["Monitor", "Record", "Several"]

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
    """Passes everything on to several monitors."""

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self._monitors = monitors

    def window(self, record: Record) -> None:
        """See `Monitor`."""
        for monitor in self._monitors:
            monitor.window(record)

    def validated(self, record: Record) -> None:
        """See `Monitor`."""
        for monitor in self._monitors:
            monitor.validated(record)

    def sampled(self, text: str) -> None:
        """See `Monitor`."""
        for monitor in self._monitors:
            monitor.sampled(text)

    def drawn(self, epoch: int, picture: Tensor) -> None:
        """See `Monitor`."""
        for monitor in self._monitors:
            monitor.drawn(epoch, picture)

    def close(self) -> None:
        """See `Monitor`."""
        for monitor in self._monitors:
            monitor.close()

"""The screen: a live line in a terminal, plain lines in a pipe or a log file."""

from __future__ import annotations

import time

from rich.console import Console as Screen
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from optimscheduler.run.monitor.pictures import SAMPLES
from optimscheduler.run.monitor.protocol import Record

__all__ = ["Console"]


class Console:
    """Shows loss, learning rate, gradient norm, skips, speed and the time that is left.

    Args:
        screen: where to.
        epochs: of the whole run.
        done: windows before the first that will be shown.
        left: windows from there to the end.
        log_every: windows from one plain line to the next.
    """

    def __init__(self, screen: Screen, *, epochs: int, done: int, left: int, log_every: int) -> None:
        self._screen, self._first, self._log_every = screen, done, log_every
        self._windows, self._epochs = done + left, epochs
        self._last: dict[str, int] = {}  # the window last shown of each OptimScheduler
        self._done, self._updates, self._skips, self._began = done, 0, 0, time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )
        self._task = self._bar.add_task("", total=self._windows, completed=done)
        self._bar.start()

    def window(self, record: Record) -> None:
        """A new state of the live line, or now and then a plain one."""
        name = record.get("member", "")
        last, now = self._last.get(name, self._first), record["real_step"]
        self._last[name], self._done = now, max(self._done, now)
        self._updates += bool(record["updated"])
        self._skips += bool(record["skipped"])
        line = self._line(record)
        self._bar.update(self._task, completed=self._done, description=line)
        if not self._screen.is_terminal and (
            now // self._log_every > last // self._log_every or now == self._windows
        ):
            self._print(f"window {now}/{self._windows}  {line}  {self._left()} left")

    def validated(self, record: Record) -> None:
        """A line that stays."""
        outputs = {k: v for k, v in record.items() if k not in ("batch", "real_step", "epoch")}
        told = "  ".join(f"{name} {value:.4f}" for name, value in outputs.items())
        self._print(f"epoch {record['epoch']} done, held-out data: {told}")

    def sampled(self, text: str) -> None:
        """The text, indented."""
        self._print("the model writes:\n  | " + text.replace("\n", "\n  | "))

    def drawn(self, epoch: int, picture: Tensor) -> None:  # noqa: ARG002  # the protocol's
        """Where the picture is."""
        if epoch in (1, self._epochs):
            self._print(f"the model draws: {SAMPLES}/epoch-{epoch:04d}.png in the run folder")

    def close(self) -> None:
        """Take the live line away."""
        self._bar.stop()

    def _print(self, text: str) -> None:
        self._screen.print(escape(text), highlight=False, soft_wrap=True)

    def _seconds(self) -> float:
        return max(time.monotonic() - self._began, 1e-9)

    def _left(self) -> str:
        seconds = round((self._windows - self._done) * self._seconds() / (self._done - self._first))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"

    def _line(self, record: Record) -> str:
        loss, norm = record["loss"], record["grad_norm"]
        told = [
            record.get("member", ""),
            f"epoch {record['epoch']}/{self._epochs}",
            f"loss {loss:.4f}" if loss is not None else "no loss",
            f"lr {record['lr']:.3g}",
            f"grad norm {norm:.3g}" if norm is not None else "",
            f"skips {self._skips}",
            f"{self._updates / self._seconds():.1f} updates/s",
        ]
        return "  ".join(filter(None, told))

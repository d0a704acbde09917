"""The command line in a process of its own that can be killed, without what it takes to start one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.layouts import lay, layout

__all__ = ["Process"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "optimscheduler.run.commands.cli", "tests.run.tiny"])
_POLL = 0.001  # seconds
_PATIENCE = 120.0


class Process:
    """`optimscheduler ARGUMENTS`, with what it says in a file."""

    def __init__(self, said: Path, *arguments: object) -> None:
        self.said = said
        self._before = said.stat().st_size if said.exists() else 0
        told = (str(said), layout(), [str(argument) for argument in arguments])
        self._process: BaseProcess = _CONTEXT.Process(target=_run, args=told, daemon=True)
        self.began = time.monotonic()
        self._process.start()

    def kill_when(self, moment: Callable[[], bool]) -> bool:
        """SIGKILL, as soon as it is true; whether that came before the end."""
        while self._process.is_alive() and not moment():
            time.sleep(_POLL)
        alive = self._process.is_alive()
        if alive and self._process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
        self._process.join(_PATIENCE)
        return alive and self._process.exitcode == -signal.SIGKILL

    @property
    def told(self) -> str:
        """What this process has said so far, without those that wrote to the same file before it."""
        return self.said.read_bytes()[self._before :].decode() if self.said.exists() else ""

    @property
    def number(self) -> int:
        """Of the process."""
        assert self._process.pid
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not come to its end."""
        return self._process.is_alive()

    def finish(self) -> int | None:
        """Its exit code."""
        self._process.join(_PATIENCE)
        return self._process.exitcode


def _run(said: str, layout: str, arguments: list[str]) -> None:

    import typer

    from optimscheduler.run.commands.cli import app

    lay(layout)
    with (
        Path(said).open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            app(arguments, standalone_mode=False)
            code = 0
        except typer.Exit as done:
            code = done.exit_code
    os._exit(code)

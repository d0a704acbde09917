"""How a command speaks: on the screen, from one process of several, and of a mistake in one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import typer
from rich.console import Console as Screen
from rich.markup import escape

from optimscheduler.errors import CheckpointError, ConfigError, NonFiniteError, OptimSchedulerError
from optimscheduler.run.distributed.torchrun import rank_of_process

__all__ = ["INTERRUPTED", "carry_out", "say"]

INTERRUPTED: Final = 130
"""Exit code of a run that was asked to stop, 128 + the number of SIGINT. Torchrun may start such processes
again (`--max-restarts`), so there it is 0.
"""

_WIDTH: Final = 160  # characters of a line in a pipe or a file, where nothing else says it


def say(screen: Screen, text: str) -> None:
    """A line as it is: no markup, no colours, no breaks."""
    screen.print(escape(text), highlight=False, soft_wrap=True)


def carry_out(config: Path, command: Callable[[Screen], int]) -> None:
    """Run a command; a mistake of the user's is one message and exit code 2.

    The configuration's folder is added to the places where Python looks for modules, so that a class beside
    the file can be named in it; of a run's folder, the one that the run was started with. Of several
    processes the first one speaks.
    """
    from optimscheduler.run.commands.run_folder import source_of  # which takes seconds to import

    sys.path.append(str(source_of(config.parent) or config.resolve().parent))
    rank = rank_of_process()
    screen = Screen(quiet=rank > 0) if _is_terminal() else Screen(width=_WIDTH, quiet=rank > 0)
    try:
        with _spoken(screen):
            code = command(screen)
    except OptimSchedulerError as error:
        if rank == 0:
            typer.echo(f"error: {error}", err=True)
        elif not isinstance(error, ConfigError | CheckpointError | NonFiniteError):  # rank 0 says those
            typer.echo(f"error on rank {rank}: {error}", err=True)
        code = 2
    except KeyboardInterrupt:
        typer.echo("stopped at once, by Ctrl-C", err=True)
        code = INTERRUPTED
    raise typer.Exit(code)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


class _OnScreen(logging.Handler):
    """Shows what the package logs, a live line notwithstanding."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.INFO)
        self._screen = screen
        self._notes: set[str] = set()  # what is no warning is said once

    def emit(self, record: logging.LogRecord) -> None:
        kind = "note" if record.levelno < logging.WARNING else record.levelname.lower()
        text = f"{kind:<10} {record.getMessage()}"
        if text not in self._notes:
            self._screen.print(escape(text), highlight=False, soft_wrap=True)
        if kind == "note":
            self._notes.add(text)


@contextmanager
def _spoken(screen: Screen) -> Iterator[None]:
    logger, handler = logging.getLogger("optimscheduler"), _OnScreen(screen)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

"""The command line: `optimscheduler train | explain | plot CONFIG`."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console as Screen
from rich.markup import escape

from optimscheduler import __version__
from optimscheduler.errors import CheckpointError, ConfigError, OptimSchedulerError, ParameterError
from optimscheduler.run.config import RunConfig, read_config
from optimscheduler.run.data import open_data
from optimscheduler.run.explain import show_config, show_plan
from optimscheduler.run.overrides import apply_overrides
from optimscheduler.run.parts import device_named
from optimscheduler.run.plan import make_plan
from optimscheduler.run.plotting import plot_lr
from optimscheduler.run.train import INTERRUPTED
from optimscheduler.run.train import train as train_run
from optimscheduler.run.world import rank_of_process, started_by
from optimscheduler.run.yaml_file import read_file

__all__ = ["app"]

_WIDTH = 160  # characters of a line in a pipe or a file, where nothing else says it

app = typer.Typer(
    help="Train PyTorch models from one YAML file.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file.")]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads it
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, for example num_epochs=3."),
]


class Side(StrEnum):
    """Which configuration wins where a checkpoint has another."""

    error = "error"
    config = "config"
    checkpoint = "checkpoint"


@app.command()
def train(
    config: Config,
    overrides: Overrides = None,
    out: Annotated[Optional[Path], typer.Option(help="Run folder; by default runs/NAME.")] = None,  # noqa: UP045
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    on_mismatch: Annotated[
        Side, typer.Option(help="Whose settings win if a checkpoint has others.")
    ] = Side.error,
) -> None:
    """Train the model that CONFIG describes."""

    def run(screen: Screen) -> int:
        settings = _read(config, overrides or [])
        folder = out or Path("runs") / _name(config)
        again = [*started_by(), "train", str(config), *(overrides or []), "--out", str(folder), "--resume"]
        return train_run(
            settings,
            folder,
            resume=resume,
            on_mismatch=on_mismatch.value,
            screen=screen,
            again=shlex.join(again),
        )

    _carry_out(config, run)


@app.command()
def explain(config: Config, overrides: Overrides = None) -> None:
    """Show what a training would do, without doing it."""

    def run(screen: Screen) -> int:
        settings = _read(config, overrides or [])
        data = open_data(settings)
        show_config(screen, settings, data, device_named(settings.device))
        show_plan(screen, make_plan(settings, data.batches, tokens_per_item=data.tokens_per_item), curve=True)
        return 0

    _carry_out(config, run)


@app.command()
def plot(
    config: Config,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture: .png, .svg or .pdf.")] = Path("lr.png"),
) -> None:
    """Draw the learning rate of a training."""

    def run(screen: Screen) -> int:
        settings = _read(config, overrides or [])
        data = open_data(settings)
        plan = make_plan(settings, data.batches, tokens_per_item=data.tokens_per_item)
        path = plot_lr({name: member.curve for name, member in plan.members.items()}, out)
        screen.print(f"written    {path}", highlight=False, markup=False, soft_wrap=True)
        return 0

    _carry_out(config, run)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"optimscheduler {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it.")
    ] = False,
) -> None:
    """Train PyTorch models from one YAML file."""


def _carry_out(config: Path, command: Callable[[Screen], int]) -> None:
    """Run a command; a mistake of the user's is one message and exit code 2.

    The configuration's folder is added to the places where Python looks for modules, so that a class beside
    the file can be named in it. Of several processes the first one speaks.
    """
    sys.path.append(str(config.resolve().parent))
    rank = rank_of_process()
    screen = Screen(quiet=rank > 0) if _is_terminal() else Screen(width=_WIDTH, quiet=rank > 0)
    try:
        with _spoken(screen):
            code = command(screen)
    except OptimSchedulerError as error:
        if rank == 0:
            typer.echo(f"error: {error}", err=True)
        elif not isinstance(error, ConfigError | CheckpointError | ParameterError):  # rank 0 says those
            typer.echo(f"error on rank {rank}: {error}", err=True)
        code = 2
    except KeyboardInterrupt:
        typer.echo("stopped at once, by Ctrl-C; --resume goes on from the last checkpoint", err=True)
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


def _read(config: Path, overrides: list[str]) -> RunConfig:
    return read_config(apply_overrides(read_file(config), overrides), str(config))


def _name(config: Path) -> str:
    """Of a run: the file's, or its folder's where the file is called after what it is for."""
    stem = config.stem
    return config.resolve().parent.name if stem in ("train", "config") else stem

"""The command line: `optimscheduler train | explain | plot | anneal | verify-resume`."""

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
from optimscheduler.errors import CheckpointError, ConfigError, NonFiniteError, OptimSchedulerError
from optimscheduler.run.commands.anneal import branch_off
from optimscheduler.run.commands.run_folder import CONFIG, source_of
from optimscheduler.run.commands.stop_points import choose_stops
from optimscheduler.run.commands.train import INTERRUPTED
from optimscheduler.run.commands.train import train as train_run
from optimscheduler.run.commands.verify_resume import verify_resume
from optimscheduler.run.config.instantiate import device_named
from optimscheduler.run.config.overrides import apply_overrides
from optimscheduler.run.config.schema import RunConfig, read_config
from optimscheduler.run.config.strict_yaml import read_file
from optimscheduler.run.data.batch_ranges import BatchRanges
from optimscheduler.run.data.batches import open_data
from optimscheduler.run.distributed.world import rank_of_process, started_by
from optimscheduler.run.monitor.plots import plot_lr
from optimscheduler.run.plan.lr_curves import Curve, curve_of_text, curves_of_plan, sorted_out
from optimscheduler.run.plan.plan import make_plan
from optimscheduler.run.plan.report import show_config, show_plan, text_curve
from optimscheduler.schedules import CoolDown

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
AllowJump = Annotated[
    bool, typer.Option("--allow-jump", help="Go on, though the learning rate jumps at the checkpoint.")
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
    allow_jump: AllowJump = False,
    skip_batches: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Batches to leave out, for example 1200-1210,1300.")
    ] = "",
    stop_after: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, metavar="BATCH", help="Stop after that batch, as Ctrl-C would."),
    ] = None,
) -> None:
    """Train the model that CONFIG describes."""

    def run(screen: Screen) -> int:
        skip = BatchRanges.read(skip_batches, "--skip-batches")
        settings = _read(config, overrides or [])
        folder = out or Path("runs") / _name(config)
        again = [*started_by(), "train", str(config), *(overrides or []), "--out", str(folder), "--resume"]
        again += [] if on_mismatch is Side.error else ["--on-mismatch", on_mismatch.value]
        again += ["--allow-jump"] if allow_jump else []
        return train_run(
            settings,
            folder,
            resume=resume,
            on_mismatch=on_mismatch.value,
            screen=screen,
            again=shlex.join(again),
            source=source_of(config.parent) or config.parent,
            allow_jump=allow_jump,
            skip=skip,
            stop_after=stop_after,
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
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT...",
            help="YAML files, schedules like 'Cosine(steps=900)'; KEY=VALUE changes a setting of one file.",
        ),
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="Picture: .png, .svg or .pdf; without it, drawn on the screen."),
    ] = None,
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Real steps to draw of a schedule; by default what its lengths come to."),
    ] = None,
    lr: Annotated[float, typer.Option(help="Base learning rate of a schedule.")] = 1.0,
    at: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(min=1, help="Real step whose value is marked and said; may be given several times."),
    ] = None,
) -> None:
    """Draw learning rates: of configurations, of schedules in one line, or of both over one another."""

    def run(screen: Screen) -> int:
        files, texts, overrides = sorted_out(what)
        curves: list[Curve] = []
        for config in files:
            sys.path.append(str(config.resolve().parent))
            settings = _read(config, overrides)
            data = open_data(settings)
            plan = make_plan(settings, data.batches, tokens_per_item=data.tokens_per_item)
            curves += curves_of_plan(_name(config), plan)
        curves += [curve_of_text(text, steps, lr) for text in dict.fromkeys(texts)]
        for curve in curves:
            if out is None:
                screen.print(curve.label, highlight=False, markup=False, soft_wrap=True)
                for line in text_curve(curve.points):
                    screen.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
            for step in at or ():
                text = f"{curve.value(step):.6g} at {step}   {curve.label}"
                screen.print(text, highlight=False, markup=False, soft_wrap=True)
        if out is not None:
            marks = {curve.label: [(step, curve.value(step)) for step in at or ()] for curve in curves}
            path = plot_lr({curve.label: curve.points for curve in curves}, out, marks)
            screen.print(f"written    {path}", highlight=False, markup=False, soft_wrap=True)
        return 0

    _carry_out(Path(), run)


@app.command()
def anneal(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    at: Annotated[str, typer.Option("--from", metavar="STEP", help="Real step of a checkpoint, or last.")],
    steps: Annotated[int, typer.Option(min=1, help="Windows of the cool-down.")],
    shape: Annotated[str, typer.Option(help="linear, cosine, sqrt or exponential.")] = "linear",
    floor: Annotated[float, typer.Option(help="Share of the learning rate that is left at the end.")] = 0.0,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Run folder; by default RUN-anneal-STEP."),
    ] = None,
) -> None:
    """Branch a cool-down off a checkpoint of RUN into a run of its own."""

    def branch(screen: Screen) -> int:
        fall = CoolDown(steps=steps, floor=floor, shape=shape)
        if rank_of_process() > 0:
            raise ConfigError("anneal runs in one process; go on under torchrun with train --resume")
        settings, folder = branch_off(run, at, steps, fall, out)
        again = ["train", str(folder / CONFIG), "--out", str(folder), "--resume"]
        again += ["--on-mismatch", "config"]  # until there is a checkpoint of its own
        return train_run(
            settings,
            folder,
            resume=True,
            on_mismatch="config",
            screen=screen,
            again=shlex.join([*started_by(), *again]),
            source=source_of(run),
        )

    _carry_out(run / CONFIG, branch)


@app.command("verify-resume")
def verify(
    config: Config,
    overrides: Overrides = None,
    batches: Annotated[int, typer.Option(min=2, help="How many to train.")] = 50,
    at: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, metavar="BATCH", help="Where to stop; by default at one chosen at random."),
    ] = None,
    ranks: Annotated[
        int, typer.Option(min=1, help="Processes, started by torchrun where there are several.")
    ] = 1,
) -> None:
    """Train CONFIG for some batches twice, once stopped and resumed, and compare every bit."""

    def run(screen: Screen) -> int:
        if rank_of_process() > 0 or "torchrun" in started_by():
            raise ConfigError(
                "verify-resume starts its processes itself; leave out torchrun, and say --ranks"
            )
        settings = _read(config, overrides or [])
        data = open_data(settings, ranks=ranks)
        plan = make_plan(settings, data.batches, ranks=ranks, tokens_per_item=data.tokens_per_item)
        stops = choose_stops(plan, ranks, batches, at)
        return verify_resume([str(config), *(overrides or [])], stops, ranks, Path.cwd(), screen)

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
    the file can be named in it; of a run's folder, the one that the run was started with. Of several
    processes the first one speaks.
    """
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


def _read(config: Path, overrides: list[str]) -> RunConfig:
    return read_config(apply_overrides(read_file(config), overrides), str(config))


def _name(config: Path) -> str:
    """Of a run: the file's, or its folder's where the file is called after what it is for."""
    stem = config.stem
    return config.resolve().parent.name if stem in ("train", "config") else stem

"""The command line: `optimscheduler train | explain | plot | anneal | verify-resume`.

What a command needs is imported when it runs: `--help` and `--version` must not wait for torch.
"""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console as Screen

from optimscheduler import __version__
from optimscheduler.errors import ConfigError
from optimscheduler.run.commands.speak import carry_out
from optimscheduler.run.distributed.torchrun import rank_of_process, started_by

__all__ = ["app"]

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
        from optimscheduler.run.commands.run_folder import source_of
        from optimscheduler.run.commands.settings import name_of_run, read_settings
        from optimscheduler.run.commands.train import train as train_run
        from optimscheduler.run.data.batch_ranges import BatchRanges

        skip = BatchRanges.read(skip_batches, "--skip-batches")
        settings = read_settings(config, overrides or [])
        folder = out or Path("runs") / name_of_run(config)
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

    carry_out(config, run)


@app.command()
def explain(config: Config, overrides: Overrides = None) -> None:
    """Show what a training would do, without doing it."""

    def run(screen: Screen) -> int:
        from optimscheduler.run.commands.explain import explain as explain_run
        from optimscheduler.run.commands.settings import read_settings

        return explain_run(read_settings(config, overrides or []), screen)

    carry_out(config, run)


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
        from optimscheduler.run.commands.plot import plot as plot_run

        return plot_run(what, screen, out=out, steps=steps, lr=lr, at=at or ())

    carry_out(Path(), run)


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
        from optimscheduler.run.commands.anneal import branch_off
        from optimscheduler.run.commands.run_folder import source_of
        from optimscheduler.run.commands.train import train as train_run
        from optimscheduler.schedules import CoolDown

        fall = CoolDown(steps=steps, floor=floor, shape=shape)
        if rank_of_process() > 0:
            raise ConfigError("anneal runs in one process; go on under torchrun with train --resume")
        settings, folder = branch_off(run, at, steps, fall, out)
        again = ["train", str(folder / "config.yaml"), "--out", str(folder), "--resume"]
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

    carry_out(run / "config.yaml", branch)


@app.command("verify-resume")
def verify_resume(
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
        from optimscheduler.run.commands.verify_resume import verify

        if rank_of_process() > 0 or "torchrun" in started_by():
            raise ConfigError(
                "verify-resume starts its processes itself; leave out torchrun, and say --ranks"
            )
        return verify([str(config), *(overrides or [])], batches, at, ranks, Path.cwd(), screen)

    carry_out(config, run)


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

"""`optimscheduler train`: find out what to do, say it, do it, say where the results are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console as Screen
from rich.markup import escape

from optimscheduler.errors import ConfigError
from optimscheduler.optim_scheduler import OnMismatch
from optimscheduler.run.checkpoint import Checkpoints
from optimscheduler.run.config import RunConfig, read_config, with_free_of
from optimscheduler.run.data import open_data
from optimscheduler.run.explain import show_config, show_plan
from optimscheduler.run.folder import check_same_configuration, find_run, make_folder
from optimscheduler.run.interrupt import Interrupt
from optimscheduler.run.monitor import Console, JsonLines, Monitor, Several, TensorBoard
from optimscheduler.run.plan import make_plan
from optimscheduler.run.plotting import plot_curves
from optimscheduler.run.runner import Runner, State

__all__ = ["INTERRUPTED", "train"]

_log = logging.getLogger("optimscheduler")

INTERRUPTED = 130
"""Exit code of a run that Ctrl-C has stopped: 128 + the number of SIGINT."""


def train(
    config: RunConfig, folder: Path, *, resume: bool, on_mismatch: OnMismatch, screen: Screen, again: str
) -> int:
    """Train, or go on training.

    Args:
        config: checked.
        folder: the run folder.
        resume: go on with what is there.
        on_mismatch: see `OptimScheduler.load_state_dict`.
        screen: where to speak.
        again: the command that goes on with this run.

    Returns:
        The exit code.

    Raises:
        OptimSchedulerError: the run cannot be built, continued or written.
    """
    checkpoints = Checkpoints(folder / "checkpoints", config.keep)
    newest = find_run(folder, checkpoints, resume=resume)
    state = checkpoints.load(newest) if newest else None
    changed: list[str] = []
    if state:
        changed = check_same_configuration(state["config"], config.plain(), decided=on_mismatch != "error")
        if on_mismatch == "checkpoint":
            config = read_config(with_free_of(state["config"], config.plain()), str(newest))
    if config.threads:
        torch.set_num_threads(config.threads)
    data = open_data(config)
    show_config(screen, config, data)
    plan = make_plan(config, data.batches)
    show_plan(screen, plan, curve=False)
    runner = Runner(config, data, checkpoints, plan.horizon)
    for line in changed:
        _say(screen, f"changed    {line}; the {on_mismatch} wins")
    if state and newest:
        with _unspoken():
            runner.load(state, on_mismatch)
        _say(
            screen, f"resuming   from {newest}, epoch {runner.progress.epoch}, batch {runner.progress.batch}"
        )
    elif resume:
        _say(screen, f"resuming   {folder} has no checkpoint yet, so the run starts over")
    make_folder(folder, config.plain())
    return _run(runner, folder, state, screen, again)


def _run(runner: Runner, folder: Path, state: State | None, screen: Screen, again: str) -> int:
    finished = runner.progress.epoch > runner.config.num_epochs
    monitors: list[Monitor] = []
    if runner.config.tensorboard:
        monitors.append(TensorBoard(folder / "tensorboard", runner.progress.batch))
    lines = JsonLines(folder, state["lengths"] if state else {})
    monitors.append(lines)
    if not finished:
        monitors.append(_console(runner, screen))
    monitor = Several(monitors)
    with Interrupt() as interrupt:
        try:
            done = runner.run(monitor, lines, lambda: interrupt.asked)
        finally:
            monitor.close()
            _draw(folder)
    if finished:
        _say(screen, "finished   this run was at its end already; a larger num_epochs makes it longer")
    _say(
        screen,
        f"written    {folder}/: config.yaml, metrics.jsonl, validation.jsonl, curves.png, checkpoints/",
    )
    if not done:
        _say(screen, f"stopped    by Ctrl-C after batch {runner.progress.batch}. To go on:\n  {again}")
    return 0 if done else INTERRUPTED


def _console(runner: Runner, screen: Screen) -> Console:
    return Console(
        screen,
        epochs=runner.config.num_epochs,
        done=runner.windows_done,
        left=runner.windows_left,
        log_every=runner.config.log_every,
    )


def _draw(folder: Path) -> None:
    """A picture is not worth an error, and must not hide one."""
    try:
        plot_curves(folder)
    except ConfigError as error:
        _log.warning("%s", error)


@contextmanager
def _unspoken() -> Iterator[None]:
    """What the package would warn of inside was said already, with the places of the whole configuration."""
    level = _log.level
    _log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _log.setLevel(level)


def _say(screen: Screen, text: str) -> None:
    screen.print(escape(text), highlight=False, soft_wrap=True)

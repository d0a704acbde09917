"""`optimscheduler train`: find out what to do, say it, do it, say where the results are."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console as Screen

from optimscheduler.errors import ConfigError, NonFiniteError, OptimSchedulerError
from optimscheduler.run.checkpoint.io import told_reading
from optimscheduler.run.checkpoint.reader import content_of
from optimscheduler.run.checkpoint.retention import Retention
from optimscheduler.run.checkpoint.store import Checkpoints
from optimscheduler.run.commands.interrupted import at_once, incident_of
from optimscheduler.run.commands.run_folder import RunFolder, check_folder, check_same_configuration, jobs_of
from optimscheduler.run.commands.speak import INTERRUPTED, say
from optimscheduler.run.config.schema import RunConfig, read_config, with_free_of
from optimscheduler.run.data.batch_ranges import BatchRanges
from optimscheduler.run.data.batches import RunData, open_data
from optimscheduler.run.distributed.torchrun import job_of_process, restarted, would_be_restarted
from optimscheduler.run.distributed.world import World, joined
from optimscheduler.run.loop.run_state import State
from optimscheduler.run.loop.runner import Lengths, Runner
from optimscheduler.run.loop.signals import Interrupt
from optimscheduler.run.monitor import Console, JsonLines, Monitor, Pictures, Several, TensorBoard
from optimscheduler.run.monitor.plots import plot_curves
from optimscheduler.run.plan.lr_continuity import LrChange, lr_changes, refuse_jumps
from optimscheduler.run.plan.plan import Plan, make_plan, plan_of
from optimscheduler.run.plan.report import show_config, show_lr_changes, show_plan
from optimscheduler.written import OnMismatch

__all__ = ["train"]

_log = logging.getLogger("optimscheduler")


def train(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool,
    on_mismatch: OnMismatch,
    screen: Screen,
    again: str,
    source: Path | None = None,
    allow_jump: bool = False,
    skip: BatchRanges | None = None,
    stop_after: int | None = None,
) -> int:
    """Train, or go on training, with the processes that torchrun has started or alone.

    Args:
        config: checked.
        folder: the run folder; all processes see the same.
        resume: go on with what is there.
        on_mismatch: see `OptimScheduler.load_state_dict`.
        screen: where to speak.
        again: the command that goes on with this run.
        source: folder in which modules that the configuration names are found, to be written down.
        allow_jump: go on, though the learning rate jumps where the run was stopped.
        skip: batches that are left out.
        stop_after: the number of a batch after which the run stops, as if it was asked to.

    Returns:
        The exit code.

    Raises:
        OptimSchedulerError: the run cannot be built, continued or written.
    """
    with joined(config.device, config.distributed) as (world, device):
        resume = resume or any(world.gather(_began_here(folder)))
        retention = Retention(
            newest=config.keep, best=config.keep_best, monitor=config.monitor, mode=config.mode
        )
        checkpoints = Checkpoints(folder / "checkpoints", retention, world)
        world.run_on_all_ranks(lambda: check_folder(folder, checkpoints, resume=resume))
        newest = world.run_on_all_ranks(checkpoints.newest)
        prepared = world.run_on_all_ranks(
            lambda: _prepare(
                config,
                newest,
                world,
                device,
                screen,
                on_mismatch=on_mismatch,
                allow_jump=allow_jump,
            )
        )
        world.same("number of training items", prepared.data.items)
        world.same("number of held-out items", prepared.data.valid_items)
        runner = Runner(prepared.config, prepared.data, checkpoints, prepared.plan, device, world, stop_after)
        state = None
        if newest:
            state = checkpoints.load(newest, runner.state.like)
            with _unspoken(), told_reading(newest):
                runner.load(state, on_mismatch)
            p = runner.progress
            say(screen, f"resuming   from {newest}, epoch {p.epoch}, batch {p.batch}")
        elif resume:
            say(screen, f"resuming   {folder} has no checkpoint yet, so the run starts over")
        _pass_over(runner, skip or BatchRanges(), newest, screen)
        jobs = tuple(world.gather(job_of_process()))
        described = RunFolder(folder=folder, config=prepared.config, source=source, jobs=jobs)
        if world.main:
            described.write()
        lengths = state["lengths"] if state else {}
        del state  # the tensors are in the model and the optimizers now
        return _run(runner, described, lengths, screen, again)


def _began_here(folder: Path) -> bool:
    """Whether torchrun has started this process again, in a job that was training in the folder."""
    return restarted() and job_of_process() in jobs_of(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """What is known before anything is built."""

    config: RunConfig
    data: RunData
    plan: Plan


def _prepare(
    config: RunConfig,
    newest: Path | None,
    world: World,
    device: torch.device,
    screen: Screen,
    *,
    on_mismatch: OnMismatch,
    allow_jump: bool,
) -> _Prepared:
    """Find out what to do, and say it.

    Raises:
        OptimSchedulerError: it cannot be done.
    """
    changed: list[str] = []
    state: State = {}
    if newest:
        state = content_of(newest)
        saved = read_config(state["config"], str(newest)).plain()
        changed = check_same_configuration(saved, config.plain(), decided=on_mismatch != "error")
        if on_mismatch == "checkpoint":
            config = read_config(with_free_of(saved, config.plain()), str(newest))
    if config.threads:
        torch.set_num_threads(max(1, config.threads // world.local_count))
    data = open_data(config, world.rank, world.count)
    show_config(screen, config, data, device)
    plan = make_plan(config, data.batches, ranks=world.count, tokens_per_item=data.tokens_per_item)
    show_plan(screen, plan, curve=False)
    for line in changed:
        say(screen, f"changed    {line}; the {on_mismatch} wins")
    if newest and saved != config.plain():
        found = _lr_changes(read_config(saved, str(newest)), plan, state, data)
        show_lr_changes(screen, found)
        refuse_jumps(found, allowed=allow_jump)
    return _Prepared(config=config, data=data, plan=plan)


def _pass_over(runner: Runner, skip: BatchRanges, newest: Path | None, screen: Screen) -> None:
    """Leave out these batches, and those that the run has left out from before."""
    if skipped := runner.progress.skip | skip:
        say(screen, f"skipping   batches {skipped}")
    runner.leave_out(skip, newest)


def _lr_changes(saved: RunConfig, plan: Plan, state: State, data: RunData) -> list[LrChange]:
    """Where the learning rate goes on differently from how it was planned when the checkpoint was made."""
    try:
        was = plan_of(saved, data.items, state["ranks"], data.tokens_per_item)
    except OptimSchedulerError as error:  # its classes may be gone; that is no reason not to go on
        _log.warning(
            "the learning rate is not compared with the checkpoint's, which cannot be built: %s", error
        )
        return []
    done = {name: member["clock"]["closed_windows"] for name, member in state["optim_sches"].items()}
    return lr_changes(was.members, plan.members, done)


def _run(
    runner: Runner,
    described: RunFolder,
    known: Mapping[str, int],
    screen: Screen,
    again: str,
) -> int:
    """Train, watched by the monitors of the main process."""
    finished, folder = runner.is_over, described.folder
    with ExitStack() as stack:
        monitors: list[Monitor] = []
        lengths: Lengths = dict
        if runner.world.main:
            if runner.config.tensorboard:
                monitors.append(TensorBoard(folder / "tensorboard", runner.progress.batch))
            lines = JsonLines(folder, known)
            lengths = partial(_lengths, described, lines)
            monitors += [lines, Pictures(folder)]
            if not finished:
                monitors.append(_console(runner, screen))
            stack.callback(_draw, folder)
        monitor = Several(monitors)
        stack.callback(monitor.close)
        stack.callback(runner.close)
        interrupt = stack.enter_context(Interrupt())
        try:
            done = runner.run(monitor, lengths, lambda: interrupt.asked)
        except NonFiniteError as error:
            raise NonFiniteError(incident_of(runner, folder, again, error)) from error
        except KeyboardInterrupt:
            say(screen, at_once(runner, again))
            raise
        waited = max(runner.world.gather((interrupt.seconds, interrupt.by)))
    if finished:
        say(
            screen,
            "finished   this run was at its end already; a larger num_epochs or num_steps makes it longer",
        )
    say(
        screen,
        f"written    {folder}/: config.yaml, metrics.jsonl, validation.jsonl, curves.png, checkpoints/",
    )
    if not done:
        by = f", safely {waited[0]:.2f} s after {waited[1]}" if waited[1] else ""
        say(screen, f"stopped    as asked, after batch {runner.progress.batch}{by}. To go on:\n  {again}")
    return 0 if done or would_be_restarted() else INTERRUPTED


def _lengths(described: RunFolder, lines: JsonLines) -> Mapping[str, int]:
    """Bytes in the files of metrics, and everything else of the run in its place."""
    described.put_back()
    return lines.lengths()


def _console(runner: Runner, screen: Screen) -> Console:
    return Console(
        screen,
        epochs=runner.config.num_epochs,
        done=runner.progress.windows,
        left=runner.windows_left,
        log_every=runner.config.log_every,
    )


def _draw(folder: Path) -> None:
    """A picture is not worth an error, and must not hide one."""
    try:
        plot_curves(folder)
    except (ConfigError, OSError) as error:
        _log.warning("no curves are drawn: %s", error)


@contextmanager
def _unspoken() -> Iterator[None]:
    """What the package would warn of inside was said already, with the places of the whole configuration."""
    level = _log.level
    _log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _log.setLevel(level)

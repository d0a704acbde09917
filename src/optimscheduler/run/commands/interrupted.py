"""A run that ends before its end: what is left of it, and what to type to go on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from optimscheduler.errors import CheckpointError, NonFiniteError
from optimscheduler.run.loop.nonfinite import in_full, of_all_ranks, stopped_by, told, write_incident
from optimscheduler.run.loop.runner import Runner

__all__ = ["at_once", "incident_of"]

_log = logging.getLogger("optimscheduler")

_NONE: Final = "none yet"


def at_once(runner: Runner, again: str) -> str:
    """What is said of a run that does not finish its window.

    Args:
        runner: of the run.
        again: the command that goes on with it.
    """
    busy = "the checkpoint that is being written is finished first. " if runner.checkpoints.busy else ""
    saved = runner.checkpoints.busy or _newest_name(runner) != _NONE
    how = f"To go on from the newest checkpoint:\n  {again}" if saved else "There is no checkpoint yet"
    return f"stopping   at once, by Ctrl-C; {busy}{how}"


def incident_of(runner: Runner, folder: Path, again: str, error: NonFiniteError) -> str:
    """What stopped a run, on all ranks at the same window; what is written of it, and what to type.

    Args:
        runner: that was stopped.
        folder: of the run.
        again: the command that goes on with it.
        error: by which it was stopped.
    """
    runner.close()
    own = stopped_by(error, [optim.member.ledger for optim in runner.optim_sches.values()])
    refusals = of_all_ranks(runner.world.gather(own))
    newest, path = _newest_name(runner), None
    if runner.world.main:
        try:
            path = write_incident(folder, refusals, runner.recent, newest)
        except OSError as failure:
            _log.warning("no incident file can be written in %s: %s", folder, failure.strerror)
    what = in_full(str(error), own, refusals)
    return f"{what}. {told(refusals, path, newest, again, runner.progress.skip)}"


def _newest_name(runner: Runner) -> str:
    """Of the newest checkpoint, for people."""
    try:
        return next((path.name for path in reversed(runner.checkpoints.all())), _NONE)
    except CheckpointError as error:
        return f"unknown ({error})"

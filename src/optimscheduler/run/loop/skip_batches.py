"""`--skip-batches`, where the run is: what of it is still open, and what is to be said about it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path

from optimscheduler.api.optim_scheduler import OptimScheduler
from optimscheduler.run.checkpoint.manifest import Damage, Manifest
from optimscheduler.run.data.batch_ranges import BatchRanges

__all__ = ["drop_windows", "means_with", "say_what_it_comes_to"]

_log = logging.getLogger("optimscheduler")


def drop_windows(optims: Iterable[OptimScheduler], skip: BatchRanges) -> set[int]:
    """Forget the open windows that hold one of these batches; the clocks go on, as if they had been closed.

    Returns:
        The batches that have moved nothing and never will, as no OptimScheduler holds them any more.
    """
    lost: list[set[int]] = []
    for optim in optims:
        batches = optim.member.window.batches
        lost.append(set())
        if any(batch in skip for batch in batches):
            lost[-1] = set(batches)
            _log.info(
                "--skip-batches: of loss %r, the open window with batches %s is dropped",
                optim.member.loss,
                BatchRanges.of(batches),
            )
            optim.member.drop()
    return set.intersection(*lost)


def say_what_it_comes_to(
    skip: BatchRanges, known: BatchRanges, lost: Collection[int], *, done: int, last: int
) -> None:
    """Warn of batches that are done or do not exist, and where none is left.

    Args:
        skip: what was asked for now.
        known: what the run has left out from before.
        lost: see `drop_windows`.
        done: number of the last batch that is done.
        last: number of the last batch of the run.
    """
    late = (batch for a, b in skip.ranges for batch in range(a, min(b, done) + 1))
    if kept := next((batch for batch in late if batch not in known and batch not in lost), None):
        _log.warning(
            "--skip-batches: batch %d is done already, and stays done; the run goes on with batch %d",
            kept,
            done + 1,
        )
    if beyond := next((max(a, last + 1) for a, b in skip.ranges if b > last), None):
        _log.warning("--skip-batches: batch %d and later do not exist; the run has %d", beyond, last)
    if done < last and any(a <= done + 1 and last <= b for a, b in (known | skip).ranges):
        after = f" after {done}" if done else ""
        _log.warning("--skip-batches: every batch%s is left out, so nothing is trained", after)


def means_with(checkpoint: Path) -> dict[str, float] | None:
    """Means over the held-out data with its weights, for a checkpoint that is to take its place."""
    try:
        return Manifest.read(checkpoint).metrics
    except (Damage, OSError):  # from before there were any
        return None

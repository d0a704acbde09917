"""A run that was stopped by a gradient that is not finite: what is known of it, how to go on without it."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from optimscheduler.api.optim_scheduler import OptimScheduler
from optimscheduler.errors import NonFiniteError
from optimscheduler.reports.forensics import Refusal
from optimscheduler.reports.ledger import Ledger, StepReport
from optimscheduler.run.data.batch_ranges import BatchRanges
from optimscheduler.run.monitor.jsonl import finite

__all__ = [
    "StoppedError",
    "in_full",
    "of_all_ranks",
    "refuse",
    "stop_at_refused",
    "stopped_by",
    "told",
    "write_incident",
]

_log = logging.getLogger("optimscheduler")


class StoppedError(NonFiniteError):
    """A run that was stopped, with the windows that did it: one of each OptimScheduler at the most."""

    def __init__(self, message: str, refusals: Sequence[Refusal]) -> None:
        super().__init__(message)
        self.refusals = list(refusals)


def refuse(optim: OptimScheduler, report: StepReport) -> None:
    """Stop a run whose gradient was refused, because it is not finite.

    A spike is none, and neither is an overflow by which a loss scaler finds its scale. One that has taken the
    scale below 1 is: the loss as it is, not scaled at all, gives gradients that are not finite.

    Args:
        optim: whose window was closed.
        report: of it, read.

    Raises:
        NonFiniteError: it was refused for that.
    """
    if not report.skipped or report.grad_norm is None or math.isfinite(report.grad_norm):
        return
    why = ""
    if optim.scaler is not None and report.loss is not None and math.isfinite(report.loss):
        scale = optim.scaler.get_scale()
        if scale >= 1.0:
            return
        why = f". The loss scale is down to {scale:g}, so it is not the scale that makes it overflow"
    optim.member.ledger.read()
    raise NonFiniteError(f"{optim.member.ledger.refused[-1]}{why}")


def stop_at_refused(optims: Mapping[str, OptimScheduler], reports: Mapping[str, StepReport]) -> None:
    """Stop a run in whose windows a gradient was refused, because it is not finite.

    Args:
        optims: name -> OptimScheduler.
        reports: name -> of those whose window was closed, read.

    Raises:
        StoppedError: at least one was.
    """
    errors: dict[str, NonFiniteError] = {}
    for name, report in reports.items():
        try:
            refuse(optims[name], report)
        except NonFiniteError as error:
            errors[name] = error
    if errors:
        refusals = [optims[name].member.ledger.refused[-1] for name in errors]
        raise StoppedError(str(next(iter(errors.values()))), refusals)


def stopped_by(error: NonFiniteError, ledgers: Sequence[Ledger]) -> list[Refusal]:
    """The windows that stopped a run: those that the error has, or a row that was too long."""
    if isinstance(error, StoppedError):
        return error.refusals
    too_long = [ledger.refused for ledger in ledgers if len(ledger.refused) > ledger.max_skips]
    # after a resume a row may have begun before it, and is not known to its end
    return list(chain(*(too_long or (ledger.refused for ledger in ledgers))))


def of_all_ranks(known: Sequence[Sequence[Refusal]]) -> list[Refusal]:
    """The same refusals with what any rank knows of them; each sees only its own losses and shards.

    Args:
        known: rank by rank.
    """
    return [
        replace(
            each[0],
            bad_batches=tuple(sorted({batch for refusal in each for batch in refusal.bad_batches})),
            parameters=tuple(dict.fromkeys(name for refusal in each for name in refusal.parameters)),
        )
        for each in zip(*known, strict=False)
    ]


def in_full(message: str, own: Sequence[Refusal], refusals: Sequence[Refusal]) -> str:
    """The message of one rank, with what all of them know in the place of what it knew."""
    for mine, everybodys in zip(own, refusals, strict=False):
        message = message.replace(str(mine), str(everybodys))
    return message


def write_incident(
    folder: Path, refusals: Sequence[Refusal], recent: Iterable[Mapping[str, Any]], checkpoint: str
) -> Path:
    """Write `incident-1.json`, or the next number that is free; one that tells the same is kept instead.

    Args:
        folder: of the run.
        refusals: that stopped it.
        recent: records of its last windows.
        checkpoint: the newest there is.

    Raises:
        OSError: it cannot be written.
    """
    number = next(n for n in count(1) if not (folder / f"incident-{n}.json").exists())
    path, before = (folder / f"incident-{n}.json" for n in (number, number - 1))
    content = {
        "checkpoint": checkpoint,
        "refused": [{**finite(asdict(refusal)), "text": str(refusal)} for refusal in refusals],
        "last_windows": [finite(record) for record in recent],
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    if _windows_in(_read(before)) == _windows_in(json.loads(text)):
        _log.warning(
            "the same windows were refused before, after the same checkpoint: starting again does not help"
        )
        return before
    path.write_text(text, encoding="utf-8")
    return path


def _read(incident: Path) -> Any:  # Any: whatever JSON has
    """What is in it; None where that cannot be said."""
    try:
        return json.loads(incident.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _windows_in(content: Any) -> object:
    """What makes two incidents the same; None where it is not there."""
    try:
        windows = [(each["loss"], each["real_step"], each["batches"]) for each in content["refused"]]
        return content["checkpoint"], windows
    except (KeyError, TypeError):
        return None


def told(
    refusals: Sequence[Refusal], incident: Path | None, checkpoint: str, again: str, skip: BatchRanges
) -> str:
    """The end of the message: what was kept, and what to type.

    Args:
        refusals: that stopped the run.
        incident: where they are written down.
        checkpoint: name of the newest.
        again: the command that goes on with the run.
        skip: what it leaves out already.
    """
    refused = BatchRanges.of(batch for refusal in refusals for batch in refusal.batches)
    written = f"What is known of it is in {incident}. " if incident else ""
    saved = re.match(r"batch-(\d+)", checkpoint)
    before = ", from before" if saved and int(saved[1]) < min(chain(*refused.ranges), default=0) else ""
    return (
        f"{written}Newest checkpoint{before}: {checkpoint}. To go on without these batches:\n"
        f"  {again} --skip-batches {skip | refused}"
    )

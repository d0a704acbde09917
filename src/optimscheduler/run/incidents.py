"""A run that was stopped by a gradient that is not finite: what is known of it, how to go on without it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from optimscheduler.errors import NonFiniteError
from optimscheduler.forensics import Refusal
from optimscheduler.ledger import StepReport
from optimscheduler.optim_scheduler import OptimScheduler
from optimscheduler.run.monitor.jsonl import finite
from optimscheduler.run.skipping import BatchRanges

__all__ = ["refuse", "told", "write_incident"]


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


def write_incident(
    folder: Path, refusals: Sequence[Refusal], recent: Iterable[Mapping[str, Any]], checkpoint: str
) -> Path:
    """Write `incident-1.json`, or the next number that is free.

    Args:
        folder: of the run.
        refusals: that stopped it.
        recent: records of its last windows.
        checkpoint: from before, the newest there is.

    Raises:
        OSError: it cannot be written.
    """
    path = next(p for n in count(1) if not (p := folder / f"incident-{n}.json").exists())
    content = {
        "checkpoint": checkpoint,
        "refused": [{**finite(asdict(refusal)), "text": str(refusal)} for refusal in refusals],
        "last_windows": [finite(record) for record in recent],
    }
    path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    return path


def told(refusals: Sequence[Refusal], incident: Path | None, checkpoint: str, again: str) -> str:
    """The end of the message: what was kept, and what to type."""
    without = BatchRanges.of(batch for refusal in refusals for batch in refusal.batches)
    written = f"What is known of it is in {incident}. " if incident else ""
    return (
        f"{written}Newest checkpoint, from before: {checkpoint}. To go on without these batches:\n"
        f"  {again} --skip-batches {without}"
    )

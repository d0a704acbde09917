"""The drill of other hands: random trainings in which somebody else touches optimizer and model."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.faults.row import Row
from tests.other_hands.run import Outcome, run

__all__ = ["drill"]


def drill(count: int, folder: Path, seed: int = 0) -> Row:
    """Train so many times with other hands in between, and compare with a plain loop of torch.

    Args:
        count: trainings.
        folder: those that were wrong are told there in full.
        seed: of the first; the following ones count up.
    """
    start, outcomes = time.monotonic(), [run(s) for s in range(seed, seed + count)]
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    (folder / "other_hands.txt").write_text("\n\n".join(map(str, wrong)) + "\n")
    done = Counter(event for outcome in outcomes for event in outcome.events)
    return Row(
        drill="random trainings with other hands in between: plain steps, schedulers, hooks, state read, "
        "written, reset, stored, loaded, copied; parameters frozen, replaced, moved",
        promise="weights after every event, and the optimizer's state at the end, as in a plain loop of "
        "torch; or a refusal that says what to type",
        count=count,
        figures=f"{len(outcomes) - len(wrong):,} as torch, {sum(o.refused for o in outcomes):,} of them "
        f"until a refusal; {done.total():,} events of {len(done)} kinds; "
        f"{sum(o.updates for o in outcomes):,} updates; {time.monotonic() - start:.0f} s",
        failures=tuple(_line(outcome) for outcome in wrong),
    )


def _line(outcome: Outcome) -> str:
    again = f"python -m tests.other_hands.run {outcome.how}"
    return f"{again}: after '{outcome.events[-1]}': {outcome.wrong[0]}"

"""Every row of the table as data: what is timed against what, and the most (or least) it may come to.

"Update" is the whole step less forward and backward alone (gradients dropped), both timed in the same rounds,
so that nothing can be hidden in the backward. Several rows may come of one case.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks import loops, models
from benchmarks.models import Builder, Shape
from benchmarks.timing import Cost

OURS, HAND, BARE = "optimscheduler", "best by hand", "forward and backward alone"
UPDATE: Final = "medians over 20 blocks of rounds, step less forward and backward alone"
STEP: Final = "whole steps, paired in each round"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: `top / bottom * factor`.

    Args:
        name: what is judged.
        against: what it is held against.
        top: its cost; the names are contestants of the case.
        bottom: the cost of what it is held against.
        how: it is measured.
        bar: the most that the median may be; None has none.
        at_least: the bar is the least.
        factor: what the ratio is multiplied by.
    """

    name: str
    against: str
    top: Cost
    bottom: Cost
    how: str
    bar: float | None = None
    at_least: bool = False
    factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is timed together.

    Args:
        contestants: name -> its loop and what it trains.
        rows: what is read off the times.
    """

    contestants: Mapping[str, tuple[type[loops.Loop], Builder]]
    rows: Sequence[Row]


def update(name: str, workload: Builder, bar: float | None, hand: type[loops.Loop] = loops.ByHand) -> Case:
    """The update alone, against best by hand."""
    top, bottom = Cost(of=OURS, less=BARE), Cost(of=HAND, less=BARE)
    contestants = {OURS: (loops.Ours, workload), HAND: (hand, workload), BARE: (loops.Bare, workload)}
    row = Row(name=f"update, {name}", against=HAND, top=top, bottom=bottom, how=UPDATE, bar=bar)
    return Case(contestants=contestants, rows=[row])


def pieces(many: int, few: int, bar: float) -> Case:
    """The update of a million parameters in many tensors, against the same in few."""
    contestants = {}
    for count in (many, few):
        contestants[f"{OURS}, {count}"] = (loops.Ours, models.million(count))
        contestants[f"{BARE}, {count}"] = (loops.Bare, models.million(count))
    top, bottom = [Cost(of=f"{OURS}, {count}", less=f"{BARE}, {count}") for count in (many, few)]
    name = f"update of 1 M parameters in {many:,} tensors"
    row = Row(name=name, against=f"the same in {few}", top=top, bottom=bottom, how=UPDATE, bar=bar)
    return Case(contestants=contestants, rows=[row])


def whole_step(name: str, workload: Builder, bars: Mapping[str, float | None]) -> Case:
    """A whole step, against each of these contestants."""
    contestants = {OURS: (loops.Ours, workload)} | {other: (PEERS[other], workload) for other in bars}
    rows = [
        Row(
            name=f"whole step, {name}",
            against=other,
            top=Cost(of=OURS),
            bottom=Cost(of=other),
            how=STEP,
            bar=bar,
        )
        for other, bar in bars.items()
    ]
    return Case(contestants=contestants, rows=rows)


def step_alone() -> Case:
    """`step` without its backward: ten small tensors, against a bare AdamW step over one of that size."""
    ten, one = models.tensors([SMALL] * 10), models.tensors([(10 * SMALL[0], SMALL[1])])
    contestants = {
        "step": (loops.OursStepAlone, ten),
        "backward": (loops.BackwardAlone, ten),
        "AdamW": (loops.AdamWAlone, one),
    }
    row = Row(
        name="`step` without its backward, ten small tensors",
        against="bare fused AdamW over one tensor",
        top=Cost(of="step", less="backward"),
        bottom=Cost(of="AdamW"),
        how="medians over 20 blocks of rounds, `optim.step` less `loss.backward`, forward not timed",
        bar=3.0,
    )
    return Case(contestants=contestants, rows=[row])


def traffic(workload: Builder, stream: Builder, name: str) -> Case:
    """Bytes of the update over its time, against those of an in-place stream: 32 and 8 per parameter."""
    contestants = {
        OURS: (loops.Ours, workload),
        BARE: (loops.Bare, workload),
        "stream": (loops.Stream, stream),
    }
    row = Row(
        name=f"memory traffic of the update, {name}",
        against="in-place stream over the same bytes",
        top=Cost(of="stream"),
        bottom=Cost(of=OURS, less=BARE),
        how="norm 4 and AdamW 28 bytes per parameter over the update's time; x.mul_(c) 8 bytes per number",
        bar=0.85,
        at_least=True,
        factor=4.0,
    )
    return Case(contestants=contestants, rows=[row])


def cases() -> list[Case]:
    """Everything that is timed on a CPU."""
    gpt2, conformer = models.gpt2(), models.conformer()
    thousand = [(32, 32)] * 1000
    return [
        update("1,000 tensors of 32 x 32", models.tensors(thousand), 0.12),
        update("conformer of 590 tensors, 29.5 M", models.tensors(conformer), 0.65),
        update("the same, every step clipped", models.tensors(conformer, models.CLIPPED), 0.65),
        update("GPT-2, 124 M", models.tensors(gpt2), 0.95),
        update("GPT-2, every step clipped", models.tensors(gpt2, models.CLIPPED), 0.95),
        update("10 small tensors", models.tensors([SMALL] * 10), 0.70),
        pieces(1000, 10, 1.5),
        pieces(10_000, 10, 3.0),
        whole_step("transformer of width 32, 12 layers", models.transformer(32, 12, 2, 16), NARROW),
        whole_step("transformer of width 256, 12 layers", models.transformer(256, 12, 2, 32), {HAND: 0.97}),
        whole_step("transformer of width 768, 6 layers", models.transformer(768, 6, 2, 20), {HAND: 0.97}),
        whole_step("the main job's character model", models.char_lm, {HAND: None}),
        whole_step("small MLP", models.perceptron, dict.fromkeys(NARROW)),
        step_alone(),
        traffic(models.tensors(gpt2), models.tensors([(elements(gpt2),)]), "GPT-2, 124 M"),
    ]


def elements(shapes: Sequence[Shape]) -> int:
    """How many numbers these are."""
    return sum(math.prod(shape) for shape in shapes)


SMALL: Final[Shape] = (32, 64)

PEERS: Final[Mapping[str, type[loops.Loop]]] = {
    HAND: loops.ByHand,
    "Accelerate": loops.WithAccelerate,
    "Fabric": loops.WithFabric,
    "MMEngine": loops.WithMMEngine,
    "origin's way": loops.Origin,
}

NARROW: Final = dict(zip(PEERS, [0.84, 0.78, 0.82, 0.82, 0.68], strict=True))
"""Bars of the narrow transformer."""

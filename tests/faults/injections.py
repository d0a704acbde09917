"""What is injected into which training: a bad gradient, and everything that may make a difference to it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Final

__all__ = [
    "AXES",
    "BATCHES",
    "FACTORS",
    "OF_THE_LOSS",
    "WARM_UP",
    "Injection",
    "Setting",
    "choose",
    "pairs",
    "possible_pairs",
]

WINDOWS: Final = 60
BATCHES: Final = {1: WINDOWS, 3: 3 * WINDOWS + 2}  # accum_grad -> batches; the last window is short
WARM_UP: Final = 8  # updates until the guard judges

FACTORS: Final[Mapping[str, float]] = {
    "nan loss": math.nan,
    "inf loss": math.inf,
    "-inf loss": -math.inf,
    "overflowing norm": 1e30,  # every gradient is finite, their squares are not
    "spike 1e4": 1e4,
    "spike 1e5": 1e5,
    "spike 1e6": 1e6,
}
"""What the loss is multiplied by."""

OF_THE_LOSS: Final = ("nan data", "nan loss", "inf loss", "-inf loss")
"""The loss itself is not finite."""

AXES: Final[Mapping[str, Sequence[object]]] = {
    "precision": (False, "bf16", "fp16"),
    "members": ("one", "two", "unequal", "shared", "shared unequal"),
    "wrap": ("alone", "ddp", "ddp views", "hand", "fsdp"),
    "layout": ("flat", "loose"),
    "optimizer": ("AdamW", "AdamW fused", "SGD", "SGD fused"),
    "accum_grad": (1, 3),
    "weighted": (False, True),
    "clip": ("2-norm", "largest", "2-norm, only measured", "largest, only measured"),
    "guarded": (False, True),
    "end": ("flushed", "announced"),
    "kind": ("nan data", "nan element", "inf element", *FACTORS),
    "position": ("first", "middle", "last"),
    "time": ("first", "middle", "last"),
    "member": ("first", "last"),
    "on": ("rank 0", "rank 1", "every rank"),
}
"""What is chosen from; a setting is made of the first ten."""

_PARTS: Final = 10


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How it is trained.

    Attributes:
        precision: `use_amp`.
        members: `"one"` OptimScheduler; `"two"`, each with a loss of its own, or `"shared"`, which name the
            same; `"unequal"` are two with other windows and intervals.
        wrap: `"alone"` is one process, `"hand"` two without a wrapper, the others two with one.
        layout: where small parameters lie.
        optimizer: its type, fused or not.
        accum_grad: batches per window.
        weighted: batches have unequal sizes and come with a weight.
        clip: by which norm gradients are clipped, or only measured.
        guarded: spikes are refused.
        end: whether the short window at the end is flushed, or its last batch announced.
    """

    precision: bool | str
    members: str
    wrap: str
    layout: str
    optimizer: str
    accum_grad: int
    weighted: bool
    clip: str
    guarded: bool
    end: str

    def cadences(self) -> dict[str, tuple[int, int]]:
        """Name of a member -> batches per window, and every how many windows one is active."""
        if self.members == "one":
            return {"main": (self.accum_grad, 1)}
        second = (self.accum_grad + 1, 2) if "unequal" in self.members else (self.accum_grad, 1)
        return {"first": (self.accum_grad, 1), "second": second}

    def losses(self) -> dict[str, str]:
        """Name of a member -> the loss that it optimises."""
        shared = self.members == "one" or "shared" in self.members
        names = ["loss", "loss"] if shared else ["left", "right"]
        return dict(zip(self.cadences(), names, strict=False))

    def windows(self, name: str) -> list[range]:
        """The batches of each window in which a member is active, from 1; the last may be short."""
        size, interval = self.cadences()[name]
        last = BATCHES[self.accum_grad]
        starts = range(1 + size * (interval - 1), last + 1, size * interval)
        return [range(start, min(start + size, last + 1)) for start in starts]


@dataclass(frozen=True, kw_only=True)
class Injection:
    """One bad gradient.

    Attributes:
        setting: of the training.
        kind: what is bad.
        position: of the batch in the window.
        time: of the window in the training; a spike's first is the first after the guard's warm-up.
        member: whose loss, or whose parameter.
        on: the rank where it happens.
    """

    setting: Setting
    kind: str
    position: str
    time: str
    member: str
    on: str

    @property
    def name(self) -> str:
        """Of the member that is meant."""
        return list(self.setting.cadences())[0 if self.member == "first" else -1]

    @property
    def loss(self) -> str:
        """That the member optimises."""
        return self.setting.losses()[self.name]

    @property
    def is_spike(self) -> bool:
        """Whether nothing but its size is wrong with it."""
        return self.kind.startswith("spike")

    @property
    def batch(self) -> int:
        """The number of the batch."""
        windows = self.setting.windows(self.name)
        begin = WARM_UP if self.is_spike else 0
        window = windows[_place(self.time, begin, len(windows))]
        return window[_place(self.position, 0, len(window))]

    @property
    def hit(self) -> dict[str, range]:
        """Name of a member -> the batches of its window that is to be refused."""
        losses = self.setting.losses()
        if self.kind == "nan data":
            meant = list(losses)
        elif self.kind in FACTORS:
            meant = [name for name, loss in losses.items() if loss == self.loss]
        else:
            meant = [self.name]
        return {
            name: window for name in meant for window in self.setting.windows(name) if self.batch in window
        }

    @property
    def ranks(self) -> list[int]:
        """Where it happens."""
        if self.setting.wrap == "alone":
            return [0]
        return [0, 1] if self.on == "every rank" else [int(self.on.removeprefix("rank "))]

    def __str__(self) -> str:
        """Everything about it, in a line."""
        facts = {**asdict(self.setting), **{axis: getattr(self, axis) for axis in list(AXES)[_PARTS:]}}
        return ", ".join(f"{axis} {value}" for axis, value in facts.items())


def choose(count: int, seed: int) -> list[Injection]:
    """So many, each the one of a few hundred that brings most pairs of values together for the first time."""
    random, chosen = Random(seed), list[Injection]()
    covered: set[object] = set()
    for _ in range(count):
        chosen.append(max((_drawn(random) for _ in range(100)), key=lambda i: len(pairs(i) - covered)))
        covered |= pairs(chosen[-1])
    return chosen


def pairs(injection: Injection) -> set[object]:
    """The values of any two axes."""
    facts = {**asdict(injection.setting), **{axis: getattr(injection, axis) for axis in list(AXES)[_PARTS:]}}
    return set(itertools.combinations(facts.items(), 2))


def possible_pairs(seed: int) -> set[object]:
    """All that there can be, as a large sample shows them."""
    random = Random(seed)
    return set().union(*(pairs(_drawn(random)) for _ in range(5000)))


def _drawn(random: Random) -> Injection:
    drawn = {axis: random.choice(values) for axis, values in AXES.items()}
    drawn["guarded"] |= str(drawn["kind"]).startswith("spike")  # without a guard a spike is a gradient
    if drawn["wrap"] == "alone":
        drawn["on"] = "rank 0"
    if drawn["members"] == "one":
        drawn["member"] = "first"
    if drawn["members"] == "shared unequal" and str(drawn["kind"]).startswith("spike"):
        drawn["member"] = "last"  # then the guards of both have warmed up
    longer = "unequal" in str(drawn["members"]) and drawn["member"] == "last"
    if drawn["accum_grad"] == 1 and not longer:
        drawn["position"] = "first"  # the only batch
    if drawn["wrap"] == "fsdp":  # which lays nothing side by side, cannot flush, and runs no hooks
        drawn |= {"layout": "loose", "end": "announced"}
        drawn["kind"] = str(drawn["kind"]).replace("element", "loss")
        drawn["optimizer"] = str(drawn["optimizer"]).replace(
            "SGD fused", "SGD"
        )  # torch has it for AdamW only
    setting = {axis: drawn.pop(axis) for axis in list(AXES)[:_PARTS]}
    return Injection(setting=Setting(**setting), **drawn)


def _place(where: str, begin: int, end: int) -> int:
    return {"first": begin, "middle": (begin + end) // 2, "last": end - 1}[where]

"""Fair timing on a noisy machine: interleaved steps, medians of paired ratios, a bootstrap bound.

In every round each contestant makes one step, or a few where a step is short, in an order drawn anew. So what
disturbs the machine for longer than a step disturbs all of them alike, and each ratio is taken within a
round.

A cost may be a difference, "whole step less forward and backward alone". Single differences are noisy and may
be negative, so they are taken between medians over blocks of rounds, and the ratio within a block.
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from time import perf_counter_ns
from typing import Final, Protocol

LONG: Final = 0.1  # seconds; a longer round is timed LONG_ROUNDS times only
ROUNDS, LONG_ROUNDS, QUICK_ROUNDS = 300, 60, 20
BLOCKS: Final = 20  # into which the rounds are cut where a difference is taken
WARM_UP: Final = 5  # rounds
LEAST: Final = 1e-3  # seconds that a contestant is given in a round

Times = Mapping[str, Sequence[float]]
"""Contestant -> seconds per step, one for each round."""


class Steps(Protocol):
    """What is timed."""

    def before(self) -> None:
        """What precedes a step and is not timed."""

    def step(self) -> None:
        """What is timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The time of a contestant's step, less that of another's.

    Args:
        of: the contestant.
        less: the other; None takes the time as it is.
    """

    of: str
    less: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A median, and the bound on it that is exceeded with a probability of 5 % only."""

    median: float
    bound: float
    pairs: int


def seconds(steps: Steps, count: int) -> float:
    """Mean time of a step."""
    total = 0
    for _ in range(count):
        steps.before()
        start = perf_counter_ns()
        steps.step()
        total += perf_counter_ns() - start
    return total * 1e-9 / count


def interleave(contestants: Mapping[str, Steps], *, quick: bool, seed: int = 0) -> dict[str, list[float]]:
    """Time the contestants in rounds, each round in an order of its own.

    Args:
        contestants: name -> steps.
        quick: a few rounds only, to try things out.
        seed: of the orders.

    Returns:
        For each contestant seconds per step, one for each round.
    """
    order, names = random.Random(seed), list(contestants)
    times: dict[str, list[float]] = {name: [] for name in names}
    with _quiet():
        first = [{name: seconds(contestants[name], 1) for name in names} for _ in range(WARM_UP)]
        typical = {name: median(one[name] for one in first) for name in names}
        counts = {name: max(1, min(20, math.ceil(LEAST / typical[name]))) for name in names}
        long = sum(typical[name] * counts[name] for name in names) > LONG
        for _ in range(QUICK_ROUNDS if quick else LONG_ROUNDS if long else ROUNDS):
            for name in order.sample(names, len(names)):
                times[name].append(seconds(contestants[name], counts[name]))
    return times


def costs(times: Times, cost: Cost, blocks: int | None) -> list[float]:
    """The cost in every block of rounds, or in every round.

    >>> costs({"a": [5.0, 7.0, 9.0, 5.0], "b": [1.0, 1.0, 2.0, 2.0]}, Cost(of="a", less="b"), blocks=2)
    [5.0, 5.0]
    """
    of = list(_medians(times[cost.of], blocks))
    if cost.less is None:
        return of
    return [a - b for a, b in zip(of, _medians(times[cost.less], blocks), strict=True)]


def ratio(times: Times, top: Cost, bottom: Cost, *, factor: float = 1.0, at_least: bool = False) -> Measured:
    """The median of the ratios of two costs, times a factor.

    Args:
        times: from `interleave`.
        top: what is judged.
        bottom: what it is held against.
        factor: what each ratio is multiplied by.
        at_least: the bound is the lower one.
    """
    blocks = None if top.less is None and bottom.less is None else BLOCKS
    pairs = zip(costs(times, top, blocks), costs(times, bottom, blocks), strict=True)
    ratios = [factor * a / b for a, b in pairs]
    return Measured(
        median=median(ratios), bound=bound(ratios, at_least=at_least), pairs=len(next(iter(times.values())))
    )


def bound(values: Sequence[float], *, at_least: bool = False, draws: int = 2000) -> float:
    """The 95 % bound of the median by the percentile bootstrap: the upper one, or the lower.

    Reference: Efron 1979, Bootstrap Methods: Another Look at the Jackknife.
    """
    chance = random.Random(0)
    drawn = sorted(median(chance.choices(values, k=len(values))) for _ in range(draws))
    return drawn[int(0.05 * draws)] if at_least else drawn[int(0.95 * draws)]


def _medians(values: Sequence[float], blocks: int | None) -> Iterator[float]:
    """The median of each block; with `None` every value is a block."""
    count = len(values) if blocks is None else min(blocks, len(values) // 2)
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    for first, last in pairwise(edges):
        yield median(values[first:last])


@contextmanager
def _quiet() -> Iterator[None]:
    """No garbage collection meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

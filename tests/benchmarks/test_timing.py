"""The arithmetic of the benchmarks, with times made up."""

from __future__ import annotations

import gc
import random

import pytest

from benchmarks.timing import ROUNDS, Cost, bound, costs, interleave, ratio


class Counter:
    """Steps that are counted, and take no time."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told
        self.collects: list[bool] = []

    def before(self) -> None:
        self.told.append(f"before {self.name}")

    def step(self) -> None:
        self.told.append(self.name)
        self.collects.append(gc.isenabled())


def test_whole_steps_are_compared_round_by_round():
    # the machine is ten times slower in the second round: each pair has the ratio 0.5 all the same
    times = {"a": [1.0, 10.0, 1.5], "b": [2.0, 20.0, 3.0]}
    found = ratio(times, Cost(of="a"), Cost(of="b"))
    assert (found.median, found.bound, found.pairs) == (0.5, 0.5, 3)


def test_a_difference_is_taken_between_medians_of_blocks():
    # two blocks of three; one step of "a" was disturbed, which its block's median does not see
    times = {"a": [3.0, 90.0, 3.0, 5.0, 5.0, 5.0], "bare": [1.0] * 6}
    assert costs(times, Cost(of="a", less="bare"), blocks=2) == [2.0, 4.0]


def test_a_block_has_two_rounds_at_least():
    times = {"a": [1.0, 3.0, 5.0, 7.0, 9.0]}  # five rounds make two blocks: two rounds and three
    assert costs(times, Cost(of="a"), blocks=20) == [2.0, 7.0]


def test_updates_are_compared_less_the_backward():
    times = {"a": [2.0] * 40, "b": [5.0] * 40, "bare": [1.0] * 40}
    found = ratio(times, Cost(of="a", less="bare"), Cost(of="b", less="bare"))
    assert found.median == pytest.approx(0.25)  # (2 - 1) / (5 - 1)


def test_a_factor_multiplies_and_an_at_least_bound_is_below():
    times = {"a": [1.0, 2.0, 3.0] * 20, "b": [1.0] * 60}
    found = ratio(times, Cost(of="a"), Cost(of="b"), factor=4.0, at_least=True)
    assert found.bound <= found.median == 8.0  # the median of 4, 8, 12


def test_the_bound_covers_the_true_median_about_nineteen_times_in_twenty():
    chance = random.Random(1)
    kept = sum(bound([chance.gauss(1.0, 0.2) for _ in range(40)], draws=200) >= 1.0 for _ in range(200))
    assert 180 <= kept <= 198  # 190 are expected, with a deviation of 3


def test_the_bounds_lie_around_the_median():
    values = [float(i) for i in range(101)]
    assert bound(values, at_least=True) < 50.0 < bound(values)


def test_contestants_take_turns_and_no_garbage_is_collected_meanwhile():
    told: list[str] = []
    contestants = {name: Counter(name, told) for name in "abc"}
    times = interleave(contestants, quick=False)
    assert [len(one) for one in times.values()] == [ROUNDS] * 3
    assert told[::2] == [f"before {name}" for name in told[1::2]]
    assert not any(contestants["a"].collects)
    assert gc.isenabled()
    turns = [name for i, name in enumerate(told[1::2]) if i == 0 or told[1::2][i - 1] != name]
    firsts = {name: sum(a == name for a in turns) for name in "abc"}
    assert min(firsts.values()) > ROUNDS / 2  # nobody has all its turns in one go


def test_quick_is_quick():
    assert len(interleave({"a": Counter("a", [])}, quick=True)["a"]) < ROUNDS

"""R43: a method that does not keep its object alive."""

from __future__ import annotations

import copy
import pickle

from optimscheduler.weakly import Weakly


class Counter:
    def __init__(self) -> None:
        self.count = 0
        self.up = Weakly(self.add)

    def add(self, number: int) -> int:
        self.count += number
        return self.count


def test_R43_it_calls_the_method_until_the_object_is_gone() -> None:
    counter = Counter()
    up = counter.up
    assert (up(2), counter.count) == (2, 2)
    del counter
    assert up(2) is None


def test_R43_a_copy_calls_the_copy() -> None:
    counter = Counter()
    for twin in (copy.deepcopy(counter), pickle.loads(pickle.dumps(counter))):
        assert (twin.up(3), twin.count, counter.count) == (3, 3, 0)


def test_R43_a_copy_without_the_object_does_nothing() -> None:
    up = Counter().up
    assert copy.deepcopy(up)(1) is None

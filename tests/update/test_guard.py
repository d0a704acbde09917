"""R23: the guard against spikes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.errors import ConfigError
from optimscheduler.update.guard import FiniteGuard, Guard, SpikeGuard, guard_for
from tests.cases_models import stored


def accepts(guard: Guard, *norms: float) -> list[bool]:
    return [bool(guard.accepts(torch.tensor(norm, dtype=torch.float64))) for norm in norms]


def test_R20_without_a_guard_every_finite_norm_is_accepted() -> None:
    guard = guard_for(None)
    assert isinstance(guard, FiniteGuard)
    assert accepts(guard, 0.0, 1.0, 1e300, math.inf, math.nan) == [True, True, True, False, False]
    guard.load_state_dict(guard.state_dict())
    assert guard.state_dict() == {}
    assert repr(guard) == "None"


def test_R23_the_limit_by_hand() -> None:
    # 1, 2, 3, 4, 100: median 3, deviations 2, 1, 0, 1, 97 with median 1, so 3 + 2 x 1.4826 = 5.9652
    for norm, accepted in [(5.965, True), (5.966, False)]:
        guard = SpikeGuard(z=2.0, window=5, warm_up=5)
        assert all(accepts(guard, 1.0, 2.0, 3.0, 4.0, 100.0))
        assert accepts(guard, norm) == [accepted]


def test_R23_equal_norms_leave_a_hundredth_of_the_median() -> None:
    # the deviation is 0, so the limit is 2 + 5 x 0.01 x 2 = 2.1
    for norm, accepted in [(2.0999, True), (2.1001, False), (0.0, True)]:
        guard = SpikeGuard(z=5.0, window=4, warm_up=2)
        assert accepts(guard, 2.0, 2.0, norm) == [True, True, accepted]


def test_R23_until_it_is_warm_it_refuses_only_what_is_not_finite() -> None:
    guard = SpikeGuard(z=1.0, window=8, warm_up=3)
    assert accepts(guard, 1.0, math.nan, math.inf, 1e9, 1.0) == [True, False, False, True, True]
    # 1, 1e9, 1 were accepted; the median is 1, and so is the limit but for a hundredth
    assert accepts(guard, 1e9, 1.005, 1.02) == [False, True, False]


@given(st.lists(st.floats(1e3, 1e300) | st.just(math.nan) | st.just(math.inf), max_size=12))
def test_R23_refused_values_never_enter_the_statistics(spikes: list[float]) -> None:
    guard, twin = (SpikeGuard(z=3.0, window=6, warm_up=4) for _ in range(2))
    assert accepts(guard, 1.0, 2.0, 3.0, 2.0) == accepts(twin, 1.0, 2.0, 3.0, 2.0) == [True] * 4
    assert accepts(guard, *spikes) == [False] * len(spikes)
    assert repr(guard.state_dict()) == repr(twin.state_dict())


def test_R23_gradients_of_0_say_nothing_about_the_size_of_the_others() -> None:
    guard = SpikeGuard(z=2.0, window=5, warm_up=5)
    assert all(accepts(guard, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 3.0, 4.0, 0.0, 100.0, 0.0))
    assert guard.state_dict() == {"norms": [1.0, 2.0, 3.0, 4.0, 100.0]}
    # the limit by hand, as above
    assert accepts(guard, 5.966, 5.965) == [False, True]


def test_R23_a_loss_with_a_margin_is_not_stopped_by_its_zeros() -> None:
    guard = SpikeGuard()
    assert all(accepts(guard, *[0.0, 0.0, 1.0, 0.0, 1.02] * 40))


def test_R23_only_the_last_norms_count() -> None:
    guard = SpikeGuard(z=3.0, window=3, warm_up=2)
    accepts(guard, 100.0, 100.0, 1.0, 1.0, 1.0)
    assert guard.state_dict() == {"norms": [1.0, 1.0, 1.0]}
    assert accepts(guard, 100.0) == [False]


def test_R23_it_says_what_it_refuses_and_what_to_write_instead() -> None:
    assert guard_for(None).advice() == ""
    guard = SpikeGuard(z=2.0, window=8, warm_up=5)
    assert all(accepts(guard, 1.0, 2.0, 3.0, 4.0))
    assert guard.advice() == "", "it has not begun to judge"
    assert all(accepts(guard, 100.0))
    # the limit by hand, as above
    assert guard.advice() == (
        "The guard refuses gradient norms above 5.965: the median of the last 5 that it accepted is 3, z is "
        "2, and what it refuses changes neither. If gradients are right to be larger from here on, write "
        "guard: null or a larger z; otherwise try a lower learning rate"
    )


def test_R34_a_restored_guard_decides_alike() -> None:
    guard = SpikeGuard(z=3.0, window=6, warm_up=4)
    accepts(guard, 1.0, 2.0, 3.0)
    restored = SpikeGuard(z=3.0, window=6, warm_up=4)
    restored.load_state_dict(stored(guard.state_dict()))
    for norms in [(2.0,), (50.0,), (2.5,), (7.0,), (6.0,)]:
        assert accepts(guard, *norms) == accepts(restored, *norms)
        assert repr(guard.state_dict()) == repr(restored.state_dict())


def test_R35_another_window_takes_the_newest_and_no_state_begins_anew() -> None:
    guard = SpikeGuard(window=4, warm_up=4)
    assert all(accepts(guard, 1.0, 2.0, 3.0, 4.0))
    smaller = SpikeGuard(window=2, warm_up=2)
    smaller.load_state_dict(guard.state_dict())
    assert smaller.state_dict() == {"norms": [3.0, 4.0]}
    larger = SpikeGuard(window=5, warm_up=3)
    larger.load_state_dict(guard.state_dict())
    assert repr(larger.state_dict()) == "{'norms': [nan, 1.0, 2.0, 3.0, 4.0]}"
    larger.load_state_dict({})
    assert accepts(larger, 1.0, 1e9) == [True, True], "cold again"


def test_a_number_is_z_and_a_mapping_has_all() -> None:
    short, long = guard_for(4), guard_for({"z": 4.0, "window": 64, "warm_up": 8})
    assert repr(short) == "{'z': 4.0, 'window': 128, 'warm_up': 20}"
    assert repr(long) == "{'z': 4.0, 'window': 64, 'warm_up': 8}"


@pytest.mark.parametrize(
    ("guard", "message"),
    [
        (0, "guard must be a finite number > 0, got 0"),
        (True, "guard must be a finite number > 0, got True"),
        ("6", "guard must be a finite number > 0, got '6'; write it without quotes"),
        ({"z": -1}, "guard: guard: z must be a finite number > 0, got -1"),
        ({"window": 1}, "guard: guard: window must be a whole number of updates >= 2, got 1"),
        ({"warm_up": 1}, "guard: guard: warm_up must be a whole number of updates >= 2, got 1"),
        ({"window": 4, "warm_up": 5}, "guard: guard: warm_up must be at most window=4, got 5"),
        (
            {"windw": 9},
            "guard: SpikeGuard takes no 'windw'. Did you mean 'window'? Known: warm_up, window, z.",
        ),
    ],
)
def test_a_bad_guard_is_an_error(guard: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        guard_for(guard)
    assert str(caught.value) == message

"""Curves that listen: what they have heard is all that counts, and a checkpoint can hold it."""

from __future__ import annotations

import io
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.schedules import Constant, FeedbackSchedule, NewBob, ReduceOnPlateau, Warmup
from tests.cases import HEARD, Heard, feedback_schedules

METRICS = st.lists(st.floats(-100, 100) | st.just(math.nan), max_size=30)


def after(schedule: FeedbackSchedule[Any], metrics: list[float], state: Any = None) -> Any:
    """The state when these were heard."""
    state = schedule.start() if state is None else state
    for metric in metrics:
        state = schedule.observe(state, metric)
    return state


@pytest.mark.parametrize("case", HEARD, ids=lambda case: case.written)
def test_every_case_gives_the_factors_worked_out_by_hand(case: Heard) -> None:
    listener = case.schedule.listener
    assert listener is not None
    state, got = listener.start(), []
    for metric, _ in case.told:
        state = listener.observe(state, metric)
        got.append(case.schedule.value_at(case.step, state))
    # 0.1 x 0.1 is not the float 0.01
    assert got == pytest.approx([factor for _, factor in case.told], rel=1e-15)


@given(feedback_schedules(), METRICS, st.integers(1, 10**6))
def test_factors_never_rise_and_stay_between_zero_and_one(
    schedule: FeedbackSchedule[Any], metrics: list[float], step: int
) -> None:
    state = schedule.start()
    factors = [schedule(step, state)]
    for metric in metrics:
        state = schedule.observe(state, metric)
        factors.append(schedule(step, state))
    assert factors[0] == 1.0
    assert all(type(factor) is float for factor in factors)
    assert all(0 <= b <= a for a, b in pairwise(factors))
    assert factors[-1] >= getattr(schedule, "floor", 0.0)


@given(feedback_schedules(), METRICS, METRICS)
def test_observing_leaves_the_state_before_it_alone_and_two_copies_agree(
    schedule: FeedbackSchedule[Any], before: list[float], later: list[float]
) -> None:
    state = after(schedule, before)
    kept = repr(state)
    one = after(schedule, later, state)
    assert repr(state) == kept
    assert repr(after(schedule, later, state)) == repr(one)


@given(feedback_schedules(), METRICS, METRICS)
def test_a_state_that_went_through_a_checkpoint_continues_exactly(
    schedule: FeedbackSchedule[Any], before: list[float], later: list[float]
) -> None:
    state, file = after(schedule, before), io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert repr(loaded) == repr(state)
    assert repr(after(schedule, later, loaded)) == repr(after(schedule, later, state))


@given(feedback_schedules(), METRICS, st.integers(2, 100), st.data())
def test_a_warm_up_leads_to_what_was_heard_and_then_is_it(
    schedule: FeedbackSchedule[Any], metrics: list[float], steps: int, data: st.DataObject
) -> None:
    warmup, state = Warmup(steps=steps, then=schedule), after(schedule, metrics)
    assert warmup.listener is schedule
    step = data.draw(st.integers(1, 2 * steps))
    share = min(step / steps, 1)
    assert warmup.value_at(step, state) == pytest.approx(share * schedule(1, state), rel=1e-15)
    assert warmup(step) == warmup.value_at(step, schedule.start()), (
        "asked without a state, it has heard nothing"
    )


def test_other_schedules_have_no_listener() -> None:
    assert Constant().listener is None
    assert Warmup(steps=3, then=Constant()).listener is None
    for schedule in (NewBob(), ReduceOnPlateau()):
        assert schedule.listener is schedule

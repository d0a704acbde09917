"""The plain curves: numbers by hand, and laws."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.errors import ConfigError
from optimscheduler.schedules import (
    CoolDown,
    Cosine,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    Noam,
    Piecewise,
    Polynomial,
    PowerDecay,
    Step,
)
from tests.cases import BAD, CASES, Case

STEPS = st.integers(1, 10_000)
AT = st.integers(1, 20_000)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.written)
def test_every_case_gives_the_numbers_worked_out_by_hand(case: Case) -> None:
    got = {step: case.schedule(step) for step in case.factors}
    assert got == pytest.approx(case.factors, abs=1e-15, rel=1e-15)  # a few roundings of numbers near 1
    assert all(type(factor) is float for factor in got.values())


@pytest.mark.parametrize(("build", "message"), BAD, ids=[message for _, message in BAD])
def test_wrong_arguments_are_refused_at_birth(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert str(caught.value) == message


def test_a_factor_too_large_for_a_float_is_an_error_that_names_the_step() -> None:
    growing = Exponential(gamma=10)
    assert growing(301) == pytest.approx(1e300)
    with pytest.raises(ConfigError) as caught:
        growing(310)  # 10^309 > 1.8e308
    assert str(caught.value) == (
        "Exponential(gamma=10.0): the factor at s = 310 must be a finite number >= 0, got inf"
    )


@given(STEPS, st.floats(0, 1), AT)
def test_cosine_falls_from_one_to_its_floor_and_stays(steps: int, floor: float, step: int) -> None:
    curve = Cosine(steps=steps, floor=floor)
    assert curve(1) == 1.0
    assert floor <= curve(step + 1) <= curve(step) <= 1.0
    assert curve(steps + step) == floor


@given(STEPS, st.floats(0, 10), st.floats(0, 10), AT)
def test_linear_goes_one_way_from_its_start_to_its_end_and_stays(
    steps: int, start: float, end: float, step: int
) -> None:
    curve = Linear(steps=steps, start=start, end=end)
    low, high = min(start, end), max(start, end)
    slack = 1e-15 * high  # start + (end - start) may round past the end
    assert curve(1) == start
    assert low - slack <= curve(step) <= high + slack
    assert (curve(step + 1) - curve(step)) * (1 if end >= start else -1) >= -slack
    assert curve(steps + step) == end


@given(st.floats(0.01, 1), st.integers(1, 100), AT)
def test_exponential_multiplies_by_gamma_every_so_many_steps(gamma: float, every: int, step: int) -> None:
    smooth, stairs = (
        Exponential(gamma=gamma, every=every),
        Exponential(gamma=gamma, every=every, staircase=True),
    )
    # pow is right to 1e-15 of its exponent's rounding, which an exponent of some thousands magnifies
    assert smooth(step + every) == pytest.approx(gamma * smooth(step), rel=1e-10, abs=1e-300)
    assert stairs(step) >= smooth(step)
    first_of_stair = (step - 1) // every * every + 1
    assert stairs(step) == stairs(first_of_stair) == smooth(first_of_stair)


@given(st.floats(1e-3, 1e6), AT)
def test_inverse_sqrt_falls_for_ever_and_stays_above_zero(shift: float, step: int) -> None:
    curve = InverseSqrt(shift=shift)
    assert curve(1) == 1.0
    assert 0 < curve(step + 1) <= curve(step) <= 1.0


@given(STEPS, AT)
def test_noam_is_the_published_formula_and_peaks_at_exactly_one(warmup: int, step: int) -> None:
    curve = Noam(warmup_steps=warmup)
    published = math.sqrt(warmup) * min(step**-0.5, step * warmup**-1.5)
    assert curve(step) == pytest.approx(published, rel=1e-14)  # five roundings
    assert curve(warmup) == 1.0
    assert curve(step) <= 1.0


@given(STEPS, st.floats(1e-3, 1e3), st.floats(0, 1), AT)
def test_polynomial_falls_from_one_to_its_floor_and_stays(
    steps: int, power: float, floor: float, step: int
) -> None:
    curve = Polynomial(steps=steps, power=power, floor=floor)
    assert curve(1) == pytest.approx(1.0, abs=1e-15)
    assert floor <= curve(step + 1) <= curve(step) <= 1 + 1e-15
    assert curve(steps + step) == floor


@given(STEPS, st.floats(1e-3, 1), st.sampled_from(["linear", "cosine", "sqrt", "exponential"]), AT)
def test_a_cool_down_falls_from_one_to_its_floor_and_stays(
    steps: int, floor: float, shape: str, step: int
) -> None:
    curve = CoolDown(steps=steps, floor=floor, shape=shape)
    slack = 1e-15  # pow is not exactly monotone
    assert curve(1) == pytest.approx(1.0, abs=slack)
    assert floor - slack <= curve(step + 1) <= curve(step) + slack <= 1 + 2 * slack
    assert curve(steps + step) == floor


@given(STEPS, st.floats(0, 1))
def test_the_curves_that_have_two_names_are_one(steps: int, floor: float) -> None:
    straight = CoolDown(steps=steps, floor=floor)
    cosine = CoolDown(steps=steps, floor=floor, shape="cosine")
    for step in (1, 1 + steps // 3, 1 + steps // 2, steps, steps + 1):
        assert straight(step) == pytest.approx(Linear(steps=steps, end=floor)(step), abs=1e-15)
        assert straight(step) == Polynomial(steps=steps, power=1, floor=floor)(step)
        assert cosine(step) == Cosine(steps=steps, floor=floor)(step)


@given(STEPS, st.floats(1e-3, 1), AT)
def test_step_multiplies_when_so_many_steps_are_done(every: int, gamma: float, step: int) -> None:
    curve = Step(every=every, gamma=gamma)
    done = step - 1
    assert curve(step) == math.pow(gamma, done // every)
    assert curve(step) == Exponential(gamma=gamma, every=every, staircase=True)(step)
    assert 0 <= curve(step + every) <= curve(step) <= 1


@given(st.lists(STEPS, max_size=6, unique=True).map(sorted), st.floats(1e-3, 1), AT)
def test_multi_step_multiplies_once_for_each_that_is_done(at: list[int], gamma: float, step: int) -> None:
    assert MultiStep(at=at, gamma=gamma)(step) == math.pow(gamma, sum(step - 1 >= m for m in at))


@given(st.dictionaries(STEPS, st.floats(0, 1e6), min_size=1, max_size=6), AT)
def test_piecewise_goes_through_its_points_and_stays_between_neighbours(
    factors: dict[int, float], step: int
) -> None:
    points = sorted(factors.items())
    curve = Piecewise(points)
    for at, factor in points:
        assert curve(at) == factor
    before = [factor for at, factor in points if at <= step] or [points[0][1]]
    after = [factor for at, factor in points if at >= step] or [points[-1][1]]
    low, high = sorted([before[-1], after[0]])
    assert low * (1 - 1e-15) - 1e-9 <= curve(step) <= high * (1 + 1e-15) + 1e-9  # of numbers up to 10^6


@given(STEPS, st.floats(1e-3, 100), AT)
def test_power_decay_holds_then_falls_for_ever(hold: int, exponent: float, step: int) -> None:
    curve = PowerDecay(hold=hold, exponent=exponent)
    assert curve(min(step, hold)) == 1.0
    assert 0 <= curve(step + 1) <= curve(step) <= 1
    # twice as many steps, the same share again
    assert curve(4 * hold) == pytest.approx(curve(2 * hold) ** 2, rel=1e-12, abs=1e-300)

"""One cycle, restarts, triangles: their ranges, their joints, and that they repeat."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.errors import ConfigError
from optimscheduler.schedules import Cosine, CosineRestarts, Cyclic, OneCycle

STEPS = st.integers(1, 10_000)
AT = st.integers(1, 20_000)
SHAPES = st.sampled_from(["cosine", "linear"])
SLACK = 1e-14  # a few roundings of numbers near 1


@given(STEPS, st.floats(0.01, 0.5), st.floats(1, 1e6), st.floats(1, 1e6), SHAPES, st.booleans(), AT)
def test_one_cycle_stays_between_its_end_and_the_peak_and_ends(
    steps: int, warm: float, div: float, final_div: float, shape: str, three_phase: bool, step: int
) -> None:
    curve = OneCycle(
        steps=steps, warm=warm, div=div, final_div=final_div, shape=shape, three_phase=three_phase
    )
    end = 1 / div / final_div
    assert end - SLACK <= curve(step) <= 1 + SLACK
    assert curve(steps) == pytest.approx(end, abs=SLACK)
    assert curve(steps + step) == curve(steps)


@given(st.integers(100, 10_000), st.floats(0.1, 0.5), SHAPES, st.booleans(), st.data())
def test_one_cycle_rises_to_its_peak_and_falls_after_it(
    steps: int, warm: float, shape: str, three_phase: bool, data: st.DataObject
) -> None:
    curve = OneCycle(steps=steps, warm=warm, shape=shape, three_phase=three_phase)
    step = data.draw(st.integers(1, steps - 1))
    top = warm * steps - 1  # in steps that are done
    here, after = curve(step), curve(step + 1)
    if step <= top:
        assert here <= after + SLACK
    elif step - 1 >= top:
        assert after <= here + SLACK


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
def test_the_phases_of_a_long_one_cycle_join_without_a_jump(shape: str, three_phase: bool) -> None:
    steps, warm = 10**8, 0.3
    curve = OneCycle(steps=steps, warm=warm, shape=shape, three_phase=three_phase)
    top = int(warm * steps)  # as a real step: t = top - 1
    lr_changes = [top, 2 * top - 1, steps] if three_phase else [top, steps]
    for joint in lr_changes:
        for near in (joint - 1, joint + 1):
            # straight lines are the steepest: no more than 1 in 0.3e8 steps
            assert curve(near) == pytest.approx(curve(joint), abs=4e-8)
    assert curve(top) == pytest.approx(1.0, abs=1e-12)
    if three_phase:
        assert curve(2 * top - 1) == pytest.approx(1 / 25, abs=1e-12)


@given(
    st.floats(1e-6, 1e4),
    st.floats(1, 1e6),
    st.none() | st.integers(1, 10),
    st.floats(0, 1),
    st.floats(1e-3, 1),
    AT | st.integers(1, 2**63 - 1),
)
def test_restarts_stay_between_the_floor_and_one(
    first: float, mult: float, cycles: int | None, floor: float, decay: float, step: int
) -> None:
    curve = CosineRestarts(first=first, mult=mult, cycles=cycles, floor=floor, decay=decay)
    assert curve(1) == pytest.approx(1.0, abs=1e-16)
    assert floor - SLACK <= curve(step) <= 1 + SLACK


@given(
    st.integers(1, 100), st.integers(1, 4), st.integers(0, 5), st.floats(0, 1), st.floats(0.1, 1), st.data()
)
def test_every_cycle_is_a_cosine_of_its_own_length_and_peak(
    first: int, mult: int, cycle: int, floor: float, decay: float, data: st.DataObject
) -> None:
    curve = CosineRestarts(first=first, mult=mult, floor=floor, decay=decay)
    begin, length = sum(first * mult**i for i in range(cycle)), first * mult**cycle
    t = data.draw(st.integers(0, length - 1))
    peak = max(decay**cycle, floor)
    alone = Cosine(steps=length)
    # cos is steepest where a rounding of p, some 1e-16 of the steps before it, counts pi / 2 times
    assert curve(begin + t + 1) == pytest.approx(floor + (peak - floor) * alone(t + 1), abs=1e-11)
    if t:
        assert curve(begin + t + 1) <= curve(begin + t) + SLACK


@given(st.floats(1, 100), st.floats(1, 3), st.integers(1, 5), AT)
def test_after_its_cycles_it_stays_at_the_floor(first: float, mult: float, cycles: int, step: int) -> None:
    curve = CosineRestarts(first=first, mult=mult, cycles=cycles, floor=0.125)
    done = math.fsum(first * mult**i for i in range(cycles))
    assert curve(math.ceil(done) + 1 + step) == 0.125
    assert curve(max(math.floor(done), 1)) >= 0.125


@given(STEPS, st.none() | STEPS, st.floats(0, 1), AT)
def test_triangles_repeat_and_stay_between_low_and_one(
    up: int, down: int | None, low: float, step: int
) -> None:
    curve = Cyclic(up=up, down=down, low=low)
    period = up + (down or up)
    assert low <= curve(step) <= 1
    assert curve(step + period) == curve(step)
    assert curve(1) == curve(1 + period) == low
    assert curve(1 + up) == 1.0


@given(STEPS, STEPS, st.floats(0, 1), st.floats(0.5, 1), AT)
def test_the_other_modes_are_the_triangle_scaled(
    up: int, down: int, low: float, gamma: float, step: int
) -> None:
    height = Cyclic(up=up, down=down)(step)
    halved = Cyclic(up=up, down=down, low=low, mode="triangular2")(step)
    damped = Cyclic(up=up, down=down, low=low, mode="exp_range", gamma=gamma)(step)
    cycle = (step - 1) // (up + down)
    assert halved == pytest.approx(low + (1 - low) * height * 2.0**-cycle, abs=SLACK)
    assert damped == pytest.approx(low + (1 - low) * height * gamma ** (step - 1), abs=SLACK)


def test_a_cycle_too_high_for_a_float_is_an_error_that_names_the_step() -> None:
    growing = Cyclic(up=1, mode="exp_range", gamma=10)
    assert growing(308) == pytest.approx(1e307)
    with pytest.raises(ConfigError) as caught:
        growing(400)  # 10^399 > 1.8e308
    assert str(caught.value) == (
        'Cyclic(up=1, mode="exp_range", gamma=10.0): the factor at s = 400 '
        "must be a finite number >= 0, got inf"
    )

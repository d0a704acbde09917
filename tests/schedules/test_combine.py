"""Curves made of curves: their clocks, their joints, and functions of one's own."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from optimscheduler.errors import ConfigError
from optimscheduler.schedules import (
    Clamp,
    Constant,
    Cosine,
    Custom,
    Exponential,
    Linear,
    PerEpoch,
    Product,
    Schedule,
    Sequence,
    Shift,
    Warmup,
)
from tests import cases
from tests.cases import schedules

SHAPES = ["linear", "cosine", "exponential", "power", "one_minus_sqrt"]
AT = st.integers(1, 3000)


@given(schedules(), AT | st.integers(1, 10**12))
def test_every_combination_is_finite_and_never_negative(schedule: Schedule, step: int) -> None:
    factor = schedule(step)
    assert type(factor) is float
    assert math.isfinite(factor)
    assert factor >= 0


@given(st.integers(0, 1000), schedules(), st.floats(0, 1), st.sampled_from(["linear", "cosine", "power"]), AT)
@example(steps=3, then=Constant(0.9), start=0.2, shape="linear", later=1)  # 0.2 + (0.9 - 0.2) is not 0.9
def test_warmup_hands_over_to_the_first_step_of_the_next_curve(
    steps: int, then: Schedule, start: float, shape: str, later: int
) -> None:
    warmup = Warmup(steps=steps, then=then, start=start, shape=shape)
    joint = max(steps, 1)
    assert warmup(joint) == then(1)  # exactly, not nearly
    assert warmup(joint + later) == then(1 + later)


@given(st.integers(2, 1000), st.floats(0.01, 1), st.sampled_from(SHAPES), st.data())
def test_warmup_rises_all_the_way_in_every_shape(
    steps: int, start: float, shape: str, data: st.DataObject
) -> None:
    warmup = Warmup(steps=steps, then=Constant(2.0), start=start, shape=shape)
    step = data.draw(st.integers(1, steps - 1))
    slack = 1e-15 * 2  # pow is not exactly monotone
    assert start - slack <= warmup(step) <= warmup(step + 1) + slack <= 2.0 + 2 * slack


@pytest.mark.parametrize("shape", SHAPES)
def test_a_long_warmup_has_no_jump_at_either_end(shape: str) -> None:
    steps = 10**8
    warmup = Warmup(steps=steps, then=Cosine(steps=steps), start=0.25, shape=shape)
    near = 2e-4  # the steepest end is 1 - sqrt(1 - p): sqrt(1e-8) = 1e-4 in its last step
    assert warmup(1) == pytest.approx(0.25, abs=near)
    assert warmup(steps - 1) == pytest.approx(warmup(steps), abs=near)
    assert warmup(steps + 1) == pytest.approx(warmup(steps), abs=near)


@given(schedules(), st.integers(0, 1000), schedules(), st.integers(0, 1000), schedules(), AT)
def test_every_phase_of_a_sequence_runs_on_its_own_clock(
    a: Schedule, first: int, b: Schedule, second: int, last: Schedule, step: int
) -> None:
    sequence = Sequence([(a, first), (b, second)], last)
    if step <= first:
        assert sequence(step) == a(step)
    elif step <= first + second:
        assert sequence(step) == b(step - first)
    else:
        assert sequence(step) == last(step - first - second)


@given(st.integers(1, 100), st.integers(1, 100))
def test_phases_that_meet_join_without_a_jump(up: int, down: int) -> None:
    sequence = Sequence([(Linear(steps=up, start=0.0, end=1.0), up)], Linear(steps=down))
    assert sequence(up + 1) == 1.0  # where the rise would end and the fall begins
    assert sequence(up) == pytest.approx(1 - 1 / up, abs=1e-15)
    assert sequence(up + 2) == pytest.approx(1 - 1 / down, abs=1e-15)


@given(schedules(), schedules(), AT)
def test_a_product_is_the_product_and_multiplication_builds_it(a: Schedule, b: Schedule, step: int) -> None:
    assert Product(a, b)(step) == a(step) * b(step)
    assert a * b == Product(a, b)
    assert a * 0.5 == Product(a, Constant(0.5))
    assert 2 * a == Product(Constant(2), a)


def test_a_product_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^Product: the factor at s = 7 must be a finite number >= 0, got inf$"
    ):
        Product(Constant(1e200), Constant(1e200))(7)


def test_multiplying_by_what_is_no_curve_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^Product: b must be a schedule, got None$"):
        Constant() * None  # type: ignore[operator]


@given(schedules(), st.floats(0, 1), st.floats(0, 1), AT)
def test_clamp_moves_only_what_is_outside(inner: Schedule, low: float, more: float, step: int) -> None:
    factor, clamped = inner(step), Clamp(inner=inner, low=low, high=low + more)(step)
    assert low <= clamped <= low + more
    assert clamped == factor or not low <= factor <= low + more


@given(schedules(), st.integers(1, 100), AT)
def test_per_epoch_counts_epochs(inner: Schedule, length: int, step: int) -> None:
    epoch = math.ceil(step / length)  # steps 1 .. length are epoch 1
    assert PerEpoch(inner=inner, steps_per_epoch=length)(step) == inner(epoch)


@given(schedules(), st.integers(-3000, 3000), AT)
def test_a_shift_moves_the_clock_and_stops_at_the_beginning(inner: Schedule, by: int, step: int) -> None:
    assert Shift(inner, by)(step) == (inner(step + by) if step + by >= 1 else inner(1))


def test_custom_takes_a_function_its_path_or_a_lambda() -> None:
    assert Custom("math.sqrt")(9) == Custom(math.sqrt)(9) == Custom(lambda s: s**0.5)(9) == 3.0
    assert Custom("math.sqrt") == Custom(math.sqrt)
    assert Custom(lambda s: s)(3) == 3.0  # whole numbers become floats


def test_a_path_names_what_may_be_called_and_an_object_is_the_callers_own_affair() -> None:
    assert Custom(float)(3) == 3.0
    for path in ("builtins.float", "os._exit", "os.removedirs"):
        with pytest.raises(ConfigError, match=rf"^Custom: fn: '{path}' may not be called from here\. Name a"):
            Custom(path)


def test_custom_refuses_what_is_no_factor() -> None:
    message = (
        r'^Custom\("tests\.cases\.negative"\): the factor at s = 3 must be a finite number >= 0, got -3\.0$'
    )
    with pytest.raises(ConfigError, match=message):
        Custom(cases.negative)(3)
    with pytest.raises(ConfigError, match=r'^Custom\("builtins\.len"\): at s = 3 it failed: object of type'):
        Custom(len)(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"at s = 3 it failed: ZeroDivisionError: "):
        Custom(lambda s: s // 0)(3)


def test_lists_become_tuples_at_birth_so_that_nothing_changes_later() -> None:
    phases = [(Constant(0.5), 3)]
    sequence = Sequence(phases, Constant())
    phases[0] = (Constant(0.25), 3)
    assert sequence.phases == ((Constant(0.5), 3),)
    assert sequence == Sequence(((Constant(0.5), 3),), Constant())
    listed = [[Constant(0.5), 3.0]]  # as YAML gives it
    assert sequence == Sequence(listed, Constant())  # type: ignore[arg-type]


def test_a_warmup_over_exponential_decay_reads_as_one_would_draw_it() -> None:
    curve = Warmup(steps=2, then=PerEpoch(inner=Exponential(gamma=0.5), steps_per_epoch=2))
    # up in two steps; the decay's own clock starts at the peak, so its first epoch is steps 2 and 3
    assert [curve(s) for s in range(1, 7)] == [0.5, 1.0, 1.0, 0.5, 0.5, 0.25]


def test_a_whole_run_sums_to_its_triangle_and_its_half_wave() -> None:
    curve = Warmup(steps=100, then=Cosine(steps=9900))
    # 1/100 + ... + 100/100 = 50.5; then 9900 cosines that would sum to 0 if their first, a 1, were among them
    assert math.fsum(curve(s) for s in range(1, 10_001)) == pytest.approx(50.5 + 9900 / 2 - 0.5, rel=1e-12)

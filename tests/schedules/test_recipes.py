"""Names for combinations: the combination itself, its joints, and what is left of it when it is printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.schedules import (
    Constant,
    CoolDown,
    Cosine,
    InfiniteCosine,
    Linear,
    Product,
    Schedule,
    Sequence,
    TriStage,
    Warmup,
    WarmupStableDecay,
)

SHORT = st.integers(0, 1000)
STEPS = st.integers(1, 1000)
AT = st.integers(1, 5000)
SHAPES = ["linear", "cosine", "sqrt", "exponential"]
LONG = 10**8
# The steepest is sqrt: 1 - sqrt(1e-8) is 1e-4 below 1.
NEAR = 2e-4


@given(SHORT, SHORT, STEPS, st.floats(1e-3, 1), st.sampled_from(SHAPES), AT)
def test_warmup_stable_decay_is_its_combination(
    warmup: int, stable: int, decay: int, floor: float, shape: str, step: int
) -> None:
    curve = WarmupStableDecay(warmup=warmup, stable=stable, decay=decay, floor=floor, shape=shape)
    hold_and_fall = Sequence([(Constant(), stable)], CoolDown(steps=decay, floor=floor, shape=shape))
    assert curve(step) == Warmup(steps=warmup, then=hold_and_fall, start=floor)(step)
    assert floor - 1e-15 <= curve(step) <= 1
    assert curve(max(warmup, 1)) == 1.0
    assert curve(max(warmup, 1) + stable) == 1.0
    assert curve(max(warmup, 1) + stable + decay) == floor


@given(SHORT, SHORT, STEPS, st.floats(0, 1), st.floats(1e-3, 1), AT)
def test_tri_stage_is_its_combination(
    warmup: int, hold: int, decay: int, start: float, end: float, step: int
) -> None:
    curve = TriStage(warmup=warmup, hold=hold, decay=decay, start=start, end=end)
    rise = [(Linear(steps=warmup, start=start, end=1), warmup)] if warmup else []
    fall = CoolDown(steps=decay, floor=end, shape="exponential")
    assert curve(step) == Sequence([*rise, (Constant(), hold)], fall)(step)
    assert min(start, end) - 1e-15 <= curve(step) <= 1
    assert curve(warmup + 1) == curve(warmup + hold + 1) == 1.0
    assert curve(warmup + hold + decay + step) == end


@given(SHORT, STEPS, SHORT, STEPS, st.floats(0.1, 1), st.floats(1e-3, 0.1), AT)
def test_infinite_cosine_is_its_combination(
    warmup: int, cosine: int, hold: int, decay: int, level: float, floor: float, step: int
) -> None:
    curve = InfiniteCosine(warmup=warmup, cosine=cosine, hold=hold, decay=decay, level=level, floor=floor)
    last = Product(Constant(level), CoolDown(steps=decay, floor=floor / level, shape="exponential"))
    stages = [(Cosine(steps=cosine, floor=level), cosine), (Constant(level), hold)]
    assert curve(step) == Warmup(steps=warmup, then=Sequence(stages, last))(step)
    first = max(warmup, 1)
    assert 0 <= curve(step) <= 1
    assert curve(first) == pytest.approx(1.0, abs=1e-15)
    assert curve(first + cosine) == curve(first + cosine + hold) == level
    assert curve(first + cosine + hold + decay) == pytest.approx(floor, rel=1e-15)


RECIPES: list[tuple[Schedule, list[int], list[float]]] = [
    *(
        (
            WarmupStableDecay(warmup=LONG, stable=LONG, decay=LONG, floor=0.125, shape=shape),
            [LONG, 2 * LONG, 3 * LONG],
            [1.0, 1.0, 0.125],
        )
        for shape in SHAPES
    ),
    (
        TriStage(warmup=LONG, hold=LONG, decay=LONG),
        [LONG + 1, 2 * LONG + 1, 3 * LONG + 1],
        [1.0, 1.0, 0.01],
    ),
    (
        InfiniteCosine(warmup=LONG, cosine=LONG, hold=LONG, decay=LONG),
        [LONG, 2 * LONG, 3 * LONG, 4 * LONG],
        [1.0, 0.5, 0.5, 0.01],
    ),
]


@pytest.mark.parametrize(("curve", "joints", "factors"), RECIPES, ids=[repr(row[0]) for row in RECIPES])
def test_the_stages_of_a_long_run_join_without_a_jump(
    curve: Schedule, joints: list[int], factors: list[float]
) -> None:
    assert [curve(joint) for joint in joints] == pytest.approx(factors, rel=1e-15)
    for joint, factor in zip(joints, factors, strict=True):
        assert curve(joint - 1) == pytest.approx(factor, abs=NEAR)
        assert curve(joint + 1) == pytest.approx(factor, abs=NEAR)


@given(st.sampled_from([row[0] for row in RECIPES]), st.integers(1, 5 * LONG), st.integers(0, LONG))
def test_after_the_warm_up_nothing_rises(curve: Schedule, step: int, more: int) -> None:
    if step > LONG:
        assert curve(step + more) <= curve(step)
    else:
        assert curve(max(step - more, 1)) <= curve(step)


def test_the_combination_behind_a_name_counts_for_nothing() -> None:
    a = TriStage(warmup=2, hold=1, decay=2)
    b = TriStage(warmup=2, hold=1, decay="20%")  # type: ignore[arg-type]
    assert a != b
    assert "_curve" not in repr(a)
    assert hash(a) == hash(TriStage(warmup=2, hold=1, decay=2))

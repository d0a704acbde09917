"""The plain curves: numbers by hand, laws, and torch's own schedulers as witnesses."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LinearLR, LRScheduler

from optimscheduler.errors import ConfigError
from optimscheduler.schedules import Cosine, Exponential, InverseSqrt, Linear, Noam, Schedule
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


def torch_factors(build: Callable[[SGD], LRScheduler], runs: int) -> list[float]:
    """The learning rates of torch's scheduler over a base of 1: before its first step, after one, ..."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler = build(optimizer)
    factors = []
    for _ in range(runs):
        factors.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return factors


PARITY: list[tuple[str, Callable[[int], Schedule], Callable[[SGD, int], LRScheduler]]] = [
    (
        "Cosine",
        lambda n: Cosine(steps=n, floor=0.1),
        lambda optimizer, n: CosineAnnealingLR(optimizer, T_max=n, eta_min=0.1),
    ),
    (
        "Linear",
        lambda n: Linear(steps=n, start=1.0, end=0.2),
        lambda optimizer, n: LinearLR(optimizer, start_factor=1.0, end_factor=0.2, total_iters=n),
    ),
    (
        "Exponential",
        lambda n: Exponential(gamma=1 - 1 / n if n > 1 else 0.5),
        lambda optimizer, n: ExponentialLR(optimizer, gamma=1 - 1 / n if n > 1 else 0.5),
    ),
]


@pytest.mark.parametrize("horizon", [1, 10, 1000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("ours", "theirs"), [row[1:] for row in PARITY], ids=[row[0] for row in PARITY])
def test_parity_with_torch(
    ours: Callable[[int], Schedule], theirs: Callable[[SGD, int], LRScheduler], horizon: int
) -> None:
    curve = ours(horizon)
    expected = torch_factors(lambda optimizer: theirs(optimizer, horizon), horizon + 1)
    worst = max(abs(curve(s) - factor) for s, factor in enumerate(expected, start=1))
    assert worst <= 1e-12  # torch's own recursions are off by up to 5e-13 after 100,000 steps

"""Curves of libraries that are not installed, from their published formulas; the origin's, from itself.

Their index i counts updates that are done, so that ours(s) is theirs at i = s - 1. Where theirs begins with a
learning rate of 0, `Warmup` leaves that update out, and its s is their i.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from torch import nn

from optimscheduler.origin import ExponentDecayLr, Noamlr
from optimscheduler.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Custom,
    Exponential,
    InverseSqrt,
    Linear,
    NewBob,
    Noam,
    PerEpoch,
    Polynomial,
    PowerDecay,
    Product,
    Schedule,
    Sequence,
    Shift,
    TriStage,
    Warmup,
)

ROOT_HALF = math.sqrt(0.5)
FOURTH_ROOT = math.sqrt(math.sqrt(0.05))


def tanh(step: int) -> float:
    """TanhLRScheduler of timm, lb = -7, ub = 3, over 10 steps."""
    done = min((step - 1) / 10, 1.0)
    return 0.5 * (1 - math.tanh(-7 * (1 - done) + 3 * done))


def warm_cosine(warmup: int, decay: int, *, start: float = 0.0, end: float = 0.0) -> Sequence:
    """warmup_cosine_decay_schedule of optax, as a share of its peak_value."""
    return Sequence(
        [(Linear(steps=warmup, start=start, end=1), warmup)], Cosine(steps=decay - warmup, floor=end)
    )


# name -> (ours, {their index: the factor worked out by hand}, the working); at s = i + 1
FROM_0: dict[str, tuple[Schedule, dict[int, float], str]] = {
    "fairseq tri_stage": (
        TriStage(warmup=4, hold=2, decay=4, start=0.01, end=0.05),
        {
            0: 0.01,
            1: 0.2575,
            2: 0.505,
            3: 0.7525,
            4: 1.0,
            5: 1.0,
            6: 1.0,
            7: FOURTH_ROOT,
            8: math.sqrt(0.05),
            9: FOURTH_ROOT**3,
            10: 0.05,
            11: 0.05,
        },
        "init_lr_scale + i 0.99 / 4; held for i = 4, 5; exp(-(i - 6) (-log 0.05) / 4); final_lr_scale",
    ),
    "fairseq inverse_sqrt": (
        Sequence([(Constant(0.2), 1)], Warmup(steps=4, then=InverseSqrt(shift=4), start=0.2)),
        {0: 0.2, 1: 0.4, 2: 0.6, 3: 0.8, 4: 1.0, 9: 2 / 3, 16: 0.5, 400: 0.1},
        "warmup_init_lr + i 0.8 / 4; then sqrt(4) / sqrt(i)",
    ),
    "fairseq inverse_sqrt, by Shift": (
        Shift(Warmup(steps=4, then=InverseSqrt(shift=4)), -1),
        {1: 0.25, 2: 0.5, 4: 1.0, 9: 2 / 3, 16: 0.5},
        "a Shift by -1 is theirs from the second update on, where the first has 0",
    ),
    "fairseq polynomial_decay": (
        Sequence([(Constant(0), 1)], Warmup(steps=4, then=Polynomial(steps=8, power=2, floor=0.1))),
        {0: 0.0, 1: 0.25, 2: 0.5, 4: 1.0, 6: 0.60625, 8: 0.325, 12: 0.1, 20: 0.1},
        "i / 4; then 0.1 + 0.9 (1 - (i - 4) / 8)^2: squares of 1, 3/4, 1/2, 0",
    ),
    "timm cosine with cycles": (
        CosineRestarts(first=4, mult=2, cycles=2, floor=0.1, decay=0.5),
        {0: 1.0, 2: 0.55, 4: 0.5, 6: 0.1 + 0.2 * (1 + ROOT_HALF), 8: 0.3, 12: 0.1, 20: 0.1},
        "t_initial 4, cycle_mul 2, cycle_decay 0.5, cycle_limit 2: peaks 1 and 1/2, lengths 4 and 8",
    ),
    "timm tanh": (
        Custom(tanh),
        {0: 1 / (1 + math.exp(-14)), 7: 0.5, 10: 1 / (1 + math.exp(6)), 99: 1 / (1 + math.exp(6))},
        "(1 - tanh x) / 2 = 1 / (1 + e^2x) at x = -7, -7 x 0.3 + 3 x 0.7 = 0, and 3",
    ),
    "optax warmup_cosine_decay": (
        warm_cosine(4, 12, start=0.2, end=0.1),
        {0: 0.2, 1: 0.4, 2: 0.6, 3: 0.8, 4: 1.0, 8: 0.55, 12: 0.1, 99: 0.1},
        "decay_steps counts the warm-up too: 8 steps of cosine, half way at i = 8",
    ),
    "optax sgdr": (
        Sequence([(warm_cosine(2, 6), 6)], Product(Constant(0.5), warm_cosine(2, 10))),
        {0: 0.0, 1: 0.5, 2: 1.0, 4: 0.5, 6: 0.0, 7: 0.25, 8: 0.5, 12: 0.25, 16: 0.0, 99: 0.0},
        "peaks 1 at i = 2 and 1/2 at i = 6 + 2; half way down at i = 4 and i = 8 + 4",
    ),
    "optax join": (
        Sequence([(Linear(steps=4, start=0, end=1), 4), (Constant(0.5), 3)], Exponential(gamma=0.5)),
        {0: 0.0, 2: 0.5, 3: 0.75, 4: 0.5, 6: 0.5, 7: 1.0, 8: 0.5, 9: 0.25},
        "boundaries 4 and 7; every part counts from its own boundary",
    ),
    "optax exponential_decay": (
        Shift(Exponential(gamma=0.25, every=2), -3),
        {0: 1.0, 3: 1.0, 4: 0.5, 5: 0.25, 7: 0.0625},
        "transition_begin 3, transition_steps 2, decay_rate 1/4",
    ),
}

# The same at s = i.
FROM_1: dict[str, tuple[Schedule, dict[int, float], str]] = {
    "ESPnet WarmupLR": (
        Noam(warmup_steps=4),
        {1: 0.25, 2: 0.5, 4: 1.0, 16: 0.5, 400: 0.1},
        "sqrt(4) min(i^-1/2, i 4^-3/2)",
    ),
    "T5": (
        PowerDecay(hold=4, exponent=0.5),
        {1: 1.0, 4: 1.0, 8: ROOT_HALF, 16: 0.5},
        "1 / sqrt(max(i, 4)), as a share of 1/2",
    ),
    "optax warmup_cosine_decay, by Warmup": (
        Warmup(steps=4, then=Cosine(steps=8, floor=0.1), start=0.2),
        {1: 0.4, 2: 0.6, 3: 0.8, 4: 1.0, 8: 0.55, 12: 0.1, 99: 0.1},
        "as above, without its index 0",
    ),
}


@pytest.mark.parametrize("name", FROM_0)
def test_published_formulas_at_the_index_of_updates_that_are_done(name: str) -> None:
    ours, expected, why = FROM_0[name]
    got = {i: ours(i + 1) for i in expected}
    assert got == pytest.approx(expected, abs=1e-15, rel=1e-15), why


@pytest.mark.parametrize("name", FROM_1)
def test_published_formulas_at_the_number_of_the_update(name: str) -> None:
    ours, expected, why = FROM_1[name]
    assert {i: ours(i) for i in expected} == pytest.approx(expected, abs=1e-15, rel=1e-15), why


def test_newbob_as_speechbrain_documents_it() -> None:
    # NewBobScheduler(initial_value=1.0) is told 10, 2 and 2.5: (10 - 2) / 10 is enough, (2 - 2.5) / 2 is not
    schedule, rates = NewBob(), []
    state = schedule.start()
    for metric in (10.0, 2.0, 2.5):
        state = schedule.observe(state, metric)
        rates.append(schedule(1, state))
    assert rates == [1.0, 1.0, 0.5]


# ---- the origin ----

LENGTHS = [1, 10, 1000, pytest.param(100_000, marks=pytest.mark.slow)]
LR = 2e-3


def origin(cls: type[Any], **conf: Any) -> Any:
    return cls("Adam", {"lr": LR}, nn.Linear(2, 1), use_amp=False, **conf)


@pytest.mark.parametrize("warmup", [1, 7, 4000])
@pytest.mark.parametrize("steps", LENGTHS)
def test_noam_is_the_origins_in_both_forms(steps: int, warmup: int) -> None:
    ours = Noam(warmup_steps=warmup)
    relative, absolute = (
        origin(Noamlr, warmup_steps=warmup),
        origin(Noamlr, warmup_steps=warmup, d_model=512),
    )
    peak = 512**-0.5 * warmup**-0.5  # of the form that has no base
    for s in range(1, steps + 1):
        assert abs(LR * ours(s) - relative.update_lr(real_step=s, epoch_num=1)) <= 1e-12 * LR
        assert abs(peak * ours(s) - absolute.update_lr(real_step=s, epoch_num=1)) <= 1e-12 * peak


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("steps", LENGTHS)
def test_exponential_per_epoch_is_the_origins(steps: int, every: int) -> None:
    ours = PerEpoch(inner=Exponential(gamma=0.999), steps_per_epoch=every)
    theirs = origin(ExponentDecayLr, decay_factor=0.999)
    for s in range(1, steps + 1):
        epoch = 1 + (s - 1) // every
        assert abs(LR * ours(s) - theirs.update_lr(real_step=s, epoch_num=epoch)) <= 1e-12 * LR

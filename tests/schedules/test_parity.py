"""The same numbers as other libraries, at every step of runs of 1, 10, 1,000 and 100,000 steps.

Torch's schedulers count calls of `step` and ours real steps: ours(s) is theirs after s - 1 calls. Those of
transformers are functions of an index that begins at 0.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from optimscheduler.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Product,
    ReduceOnPlateau,
    Schedule,
    Step,
    Warmup,
    WarmupStableDecay,
    from_transformers,
    to_lambda,
)
from optimscheduler.schedules import (
    Sequence as Phases,
)

LENGTHS = [1, 10, 1000, pytest.param(100_000, marks=pytest.mark.slow)]
CLOSE = 1e-12  # of the peak, which is 1: torch's own recursions are off by up to 5e-13

Torch = Callable[[Optimizer], LRScheduler]


def an_optimizer() -> SGD:
    return SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)


def factors_of_torch(make: Torch, steps: int) -> list[float]:
    """The learning rates of steps 1, 2, ... where the base is 1."""
    optimizer, found = an_optimizer(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer stepped
        scheduler = make(optimizer)
        for s in range(1, steps + 1):
            found.append(float(optimizer.param_groups[0]["lr"]))
            if s < steps:
                scheduler.step()
    return found


def check(schedule: Schedule, theirs: Sequence[float]) -> None:
    worst = max(range(1, len(theirs) + 1), key=lambda s: abs(schedule(s) - theirs[s - 1]))
    assert abs(schedule(worst) - theirs[worst - 1]) <= CLOSE, (
        f"s = {worst}: {schedule(worst)!r}, theirs {theirs[worst - 1]!r}"
    )


def against_torch() -> list[Any]:
    def of(n: int) -> list[tuple[str, Schedule, Torch]]:
        third, half = max(n // 3, 1), max(n // 2, 1)
        return [
            ("constant", Constant(), lambda o: LambdaLR(o, lambda t: 1.0)),
            (
                "constant then full",
                Phases([(Constant(0.5), third)], Constant()),
                lambda o: ConstantLR(o, 0.5, total_iters=third),
            ),
            ("linear", Linear(steps=n, start=0.25), lambda o: LinearLR(o, 0.25, 0.0, total_iters=n)),
            ("cosine", Cosine(steps=n, floor=0.1), lambda o: CosineAnnealingLR(o, n, eta_min=0.1)),
            ("polynomial", Polynomial(steps=n, power=2), lambda o: PolynomialLR(o, n, power=2.0)),
            ("exponential", Exponential(gamma=0.9999), lambda o: ExponentialLR(o, 0.9999)),
            ("step", Step(every=third, gamma=0.3), lambda o: StepLR(o, third, 0.3)),
            (
                "multi-step",
                MultiStep(at=[third, third + half], gamma=0.3),
                lambda o: MultiStepLR(o, [third, third + half], 0.3),
            ),
            ("restarts", CosineRestarts(first=third, floor=0.1), lambda o: restarts(o, third, 1)),
            ("longer restarts", CosineRestarts(first=3, mult=2, floor=0.1), lambda o: restarts(o, 3, 2)),
            ("tripled restarts", CosineRestarts(first=1, mult=3, floor=0.1), lambda o: restarts(o, 1, 3)),
            ("cyclic", Cyclic(up=third, down=half, low=0.2), lambda o: cyclic(o, third, half, "triangular")),
            ("cyclic, up alone", Cyclic(up=7, low=0.2), lambda o: cyclic(o, 7, None, "triangular")),
            (
                "cyclic 2",
                Cyclic(up=third, down=half, low=0.2, mode="triangular2"),
                lambda o: cyclic(o, third, half, "triangular2"),
            ),
            (
                "cyclic exp",
                Cyclic(up=5, down=3, low=0.2, mode="exp_range", gamma=0.9999),
                lambda o: cyclic(o, 5, 3, "exp_range"),
            ),
            (
                "sequential",
                Phases([(Linear(steps=third, start=0.1, end=1), third)], Exponential(gamma=0.999)),
                lambda o: SequentialLR(
                    o, [LinearLR(o, 0.1, 1.0, total_iters=third), ExponentialLR(o, 0.999)], [third]
                ),
            ),
            (
                "sequential, to a cosine",
                Phases([(Linear(steps=third, start=0.1, end=1), third)], Cosine(steps=2 * third, floor=0.05)),
                lambda o: SequentialLR(
                    o,
                    [LinearLR(o, 0.1, 1.0, total_iters=third), CosineAnnealingLR(o, 2 * third, eta_min=0.05)],
                    [third],
                ),
            ),
            (
                "multiplicative",
                Exponential(gamma=0.9999),
                lambda o: MultiplicativeLR(o, lambda t: 0.9999),
            ),
            (
                "chained",
                Product(Linear(steps=half, start=0.1, end=1), Exponential(gamma=0.9999)),
                lambda o: ChainedScheduler(
                    [LinearLR(o, 0.1, 1.0, total_iters=half), ExponentialLR(o, 0.9999)], optimizer=o
                ),
            ),
            ("lambda", InverseSqrt(shift=5), lambda o: LambdaLR(o, to_lambda(InverseSqrt(shift=5)))),
        ]

    return [
        pytest.param(schedule, make, n, id=f"{name}-{n}", marks=[pytest.mark.slow] if n > 1000 else [])
        for n in (1, 10, 1000, 100_000)
        for name, schedule, make in of(n)
    ]


def restarts(optimizer: Optimizer, first: int, mult: int) -> LRScheduler:
    return CosineAnnealingWarmRestarts(optimizer, first, mult, eta_min=0.1)


def cyclic(optimizer: Optimizer, up: int, down: int | None, mode: Any) -> LRScheduler:
    return CyclicLR(optimizer, 0.2, 1.0, up, down, mode=mode, gamma=0.9999, cycle_momentum=False)


@pytest.mark.parametrize(("schedule", "make", "steps"), against_torch())
def test_torch(schedule: Schedule, make: Torch, steps: int) -> None:
    check(schedule, factors_of_torch(make, steps))


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("warm", [0.3, 0.5, 0.123])
@pytest.mark.parametrize("steps", LENGTHS)
def test_torch_one_cycle(steps: int, warm: float, shape: str, three_phase: bool) -> None:
    def make(optimizer: Optimizer) -> LRScheduler:
        return OneCycleLR(
            optimizer,
            1.0,
            total_steps=steps,
            pct_start=warm,
            anneal_strategy="cos" if shape == "cosine" else "linear",
            div_factor=10.0,
            final_div_factor=100.0,
            three_phase=three_phase,
            cycle_momentum=False,
        )

    ours = OneCycle(steps=steps, warm=warm, div=10, final_div=100, shape=shape, three_phase=three_phase)
    check(ours, factors_of_torch(make, steps))


METRICS = st.lists(st.floats(-10, 10) | st.sampled_from([math.nan, 0.0, 1.0, 1.0001]), max_size=60)


@given(
    METRICS,
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(["rel", "abs"]),
    st.sampled_from(["min", "max"]),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.sampled_from([0.0, 0.05]),
)
def test_torch_reduce_on_plateau(
    metrics: list[float],
    patience: int,
    cooldown: int,
    threshold_mode: Any,
    mode: Any,
    threshold: float,
    floor: float,
) -> None:
    optimizer = an_optimizer()
    theirs = ReduceLROnPlateau(
        optimizer,
        mode=mode,
        factor=0.5,
        patience=patience,
        threshold=threshold,
        threshold_mode=threshold_mode,
        cooldown=cooldown,
        min_lr=floor,
    )
    ours = ReduceOnPlateau(
        mode=mode,
        factor=0.5,
        patience=patience,
        threshold=threshold,
        threshold_mode=threshold_mode,
        cooldown=cooldown,
        floor=floor,
    )
    state = ours.start()
    for metric in metrics:
        theirs.step(metric)
        state = ours.observe(state, metric)
        assert ours(1, state) == optimizer.param_groups[0]["lr"]


# ---- transformers ----


def factors_of_transformers(
    name: str, warmup: int, total: int, indices: Sequence[int], **specific: Any
) -> list[float]:
    """Their function itself, without the scheduler that counts around it."""
    from transformers import get_scheduler

    needs_total = name not in ("constant", "constant_with_warmup", "inverse_sqrt")
    arguments = {"num_warmup_steps": warmup, "num_training_steps": total if needs_total else None}
    scheduler = get_scheduler(name, an_optimizer(), **arguments, scheduler_specific_kwargs=specific)
    (function,) = scheduler.lr_lambdas
    return [float(function(i)) for i in indices]


KINDS: list[Any] = [
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("linear", {}),
    ("cosine", {}),
    ("cosine_with_restarts", {"num_cycles": 1}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("cosine_with_restarts", {"num_cycles": 7}),
    ("polynomial", {"lr_end": 0.05, "power": 2.0}),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 50}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
    ("cosine_with_min_lr", {"min_lr": 0.2}),
    ("warmup_stable_decay", {"num_decay_steps": 3, "min_lr_ratio": 0.1}),
    ("warmup_stable_decay", {"num_decay_steps": 3, "decay_type": "linear"}),
    ("warmup_stable_decay", {"num_decay_steps": 3, "decay_type": "1-sqrt"}),
]


@pytest.mark.parametrize("warmup", [0, 1, 4, 300])
@pytest.mark.parametrize("total", LENGTHS)
@pytest.mark.parametrize(("name", "specific"), KINDS, ids=lambda value: str(value))
def test_transformers(name: str, specific: dict[str, Any], total: int, warmup: int) -> None:
    if warmup >= total or (name == "warmup_stable_decay" and warmup + 3 > total):
        pytest.skip("a warm-up longer than the run")
    if name == "constant" and warmup:
        pytest.skip("has no warm-up")
    given_lr = {"lr": 1.0} if {"lr_end", "min_lr"} & set(specific) else {}
    ours = from_transformers(name, num_warmup_steps=warmup, num_training_steps=total, **specific, **given_lr)
    indices = range(total)
    theirs = factors_of_transformers(name, warmup, total, indices, **specific)
    worst = max(abs(ours(i + 1) - value) for i, value in zip(indices, theirs, strict=True))
    assert worst <= CLOSE
    if warmup and isinstance(ours, Phases):
        shifted = max(abs(ours.last(i) - value) for i, value in zip(indices, theirs, strict=True) if i)
        assert shifted <= CLOSE, "Warmup(w, then)(s) is theirs at index s"


def test_transformers_by_name() -> None:
    assert from_transformers("cosine", num_warmup_steps=5, num_training_steps=15) == Phases(
        [(Constant(0.0), 1)], Warmup(steps=5, then=Cosine(steps=10))
    )
    assert from_transformers("constant", num_warmup_steps=0) == Constant()
    stable = from_transformers(
        "warmup_stable_decay",
        num_warmup_steps=2,
        num_training_steps=10,
        num_decay_steps=3,
        decay_type="1-sqrt",
    )
    assert stable == Phases(
        [(Constant(0.0), 1)], WarmupStableDecay(warmup=2, stable=5, decay=3, shape="sqrt")
    )

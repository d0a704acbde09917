"""Schedules in other people's trainers, and other people's here: what is refused, and with which words.

That the numbers are theirs is in `test_parity.py`.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from optimscheduler.errors import ConfigError
from optimscheduler.schedules import (
    Constant,
    Cosine,
    InverseSqrt,
    NewBob,
    ReduceOnPlateau,
    Schedule,
    Sequence,
    Warmup,
    WarmupStableDecay,
    from_transformers,
    to_lambda,
)
from tests.cases import schedules


@given(schedules())
def test_a_function_for_torch_counts_from_0(schedule: Schedule) -> None:
    factor = to_lambda(schedule)
    assert [factor(t) for t in (0, 1, 2, 999)] == [schedule(s) for s in (1, 2, 3, 1000)]


def test_in_a_trainer_of_torch_the_first_update_has_the_first_factor() -> None:
    schedule = Warmup(steps=3, then=Cosine(steps=4))
    optimizer = SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.5)
    scheduler, rates = LambdaLR(optimizer, to_lambda(schedule)), []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(8):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    assert rates == [0.5 * schedule(s) for s in range(1, 9)]


@pytest.mark.parametrize(
    "value", [ReduceOnPlateau(), Warmup(steps=3, then=NewBob()), "Cosine(steps=3)", Cosine]
)
def test_a_function_for_torch_is_made_of_a_deaf_schedule(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        to_lambda(value)
    assert str(caught.value) == f"to_lambda takes a schedule that does not listen to a metric, got {value!r}"


STEPS = {"num_training_steps": 10}
WSD = {**STEPS, "num_decay_steps": 2}

MADE: list[tuple[str, dict[str, Any], Schedule]] = [
    ("constant", {}, Constant()),
    (
        "constant_with_warmup",
        {"num_warmup_steps": 2},
        Sequence([(Constant(0), 1)], Warmup(steps=2, then=Constant())),
    ),
    ("cosine_with_min_lr", {**STEPS, "min_lr": 1e-4, "lr": 1e-3}, Cosine(steps=10, floor=0.1)),
    ("inverse_sqrt", {}, InverseSqrt(shift=10_000)),
    (
        "inverse_sqrt",
        {"num_warmup_steps": 5},
        Sequence([(Constant(0), 1)], Warmup(steps=5, then=InverseSqrt(shift=5))),
    ),
    (
        "warmup_stable_decay",
        {"num_warmup_steps": 2, "num_stable_steps": 3, "num_decay_steps": 4, "min_lr_ratio": 0.1},
        # their index 0 has min_lr_ratio itself
        Sequence(
            [(Constant(0.1), 1)], WarmupStableDecay(warmup=2, stable=3, decay=4, floor=0.1, shape="cosine")
        ),
    ),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), MADE, ids=[f"{n} {a}" for n, a, _ in MADE])
def test_what_a_kind_of_theirs_is_here(name: str, arguments: dict[str, Any], expected: Schedule) -> None:
    assert from_transformers(name, **arguments) == expected


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "cosin",
        STEPS,
        "name: 'cosin' is not known. Did you mean 'cosine'? Known: constant, constant_with_warmup, cosine, "
        "cosine_with_min_lr, cosine_with_restarts, inverse_sqrt, linear, polynomial, warmup_stable_decay.",
    ),
    ("cosine", {}, "num_training_steps must be a whole number of real steps >= 1, got None"),
    (
        "linear",
        {"num_training_steps": 0},
        "num_training_steps must be a whole number of real steps >= 1, got 0",
    ),
    (
        "cosine",
        {**STEPS, "num_warmup_steps": -1},
        "num_warmup_steps must be a whole number of real steps >= 0, got -1",
    ),
    (
        "cosine",
        {**STEPS, "num_cycles": 1},
        "cosine with num_cycles other than 0.5 has no counterpart here",
    ),
    (
        "cosine",
        {**STEPS, "num_cycle": 0.5},
        "cosine takes no 'num_cycle'. Did you mean 'num_cycles'? Known: num_cycles.",
    ),
    ("linear", {**STEPS, "power": 2}, "linear takes no 'power'. There are none."),
    (
        "cosine_with_restarts",
        {**STEPS, "num_cycles": 0.5},
        "num_cycles must be a whole number >= 1, got 0.5",
    ),
    ("polynomial", STEPS, "lr must be a finite number > 0, got None"),
    (
        "cosine_with_min_lr",
        {**STEPS, "min_lr_rate": 0.1, "num_cycles": 2},
        "cosine_with_min_lr with num_cycles other than 0.5 has no counterpart here",
    ),
    ("cosine_with_min_lr", STEPS, "min_lr must be a finite number >= 0, got None"),
    ("warmup_stable_decay", STEPS, "num_decay_steps must be a whole number of real steps >= 1, got None"),
    (
        "warmup_stable_decay",
        {**STEPS, "num_decay_steps": 20},
        "num_stable_steps must be a whole number of real steps >= 0, got -10",
    ),
    (
        "warmup_stable_decay",
        {**WSD, "decay_type": "sqrt"},
        "decay_type: 'sqrt' is not known. Did you mean '1-sqrt'? Known: 1-sqrt, cosine, linear.",
    ),
    (
        "warmup_stable_decay",
        {**WSD, "warmup_type": "cosine"},
        "warmup_type 'cosine' has no counterpart here, only 'linear'",
    ),
    (
        "warmup_stable_decay",
        {**WSD, "num_cycles": 1},
        "num_cycles 1 has no counterpart here, only 0.5",
    ),
]


@pytest.mark.parametrize(("name", "arguments", "message"), REFUSED, ids=[f"{n} {a}" for n, a, _ in REFUSED])
def test_what_has_no_counterpart_is_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_transformers(name, **arguments)
    assert str(caught.value) == f"from_transformers: {message}"

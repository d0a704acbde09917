"""R03: the numbers of every group: the learning rate in its proportion, whatever else moves from its base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from optimscheduler.errors import ConfigError
from optimscheduler.optimizer.hyperparameters import Hyperparameters
from optimscheduler.optimizer.scheduled_numbers import scheduled_numbers
from optimscheduler.schedules import Constant, Cosine, Linear, Run, Schedule

HALF = Constant(0.5)
DOWN = Linear(steps=4)


def an_optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates], lr=1.0)


def adam(*groups: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Of one parameter per group, with settings of its own."""
    return torch.optim.AdamW(
        [{"params": [nn.Parameter(torch.zeros(1))], **group} for group in groups], lr=1.0, weight_decay=0.5
    )


def values_of(
    optimizer: torch.optim.Optimizer,
    schedules: Mapping[str, Schedule],
    of_groups: Sequence[Mapping[str, Schedule]] | None = None,
    ft_factor: float = 1.0,
) -> Hyperparameters:
    own = of_groups or [{}] * len(optimizer.param_groups)
    return Hyperparameters(optimizer, 1.0, ft_factor, scheduled_numbers(optimizer, schedules, own))


def refusal(optimizer: torch.optim.Optimizer, schedules: Mapping[str, Schedule]) -> str:
    with pytest.raises(ConfigError) as caught:
        values_of(optimizer, schedules)
    return str(caught.value)


def told(optimizer: torch.optim.Optimizer, key: str) -> list[Any]:
    return [group[key] for group in optimizer.param_groups]


# ---- the learning rate ----


def test_R03_every_group_keeps_its_ratio() -> None:
    optimizer = an_optimizer(0.5, 0.25, 2.0, 0.0)
    values = Hyperparameters(optimizer, 0.5, 0.1)
    assert values.lr == 0.5, "before the first update the base"
    for step in (1, 2):  # again and again: ratios are to the base, not to what was written last
        values.write(8.0, step)
        # 0.1 x 8 x (1, 1/2, 4, 0)
        assert told(optimizer, "lr") == [0.8, 0.4, 3.2, 0.0]
    assert values.lr == 0.8


def test_R03_a_rate_of_0_is_a_rate() -> None:
    optimizer = an_optimizer(0.5, 0.25)
    values = Hyperparameters(optimizer, 0.5, 1.0)
    values.write(0.0, 1)
    assert told(optimizer, "lr") == [0.0, 0.0]
    values.write(0.5, 2)
    assert told(optimizer, "lr") == [0.5, 0.25]


# ---- other numbers ----


def test_a_number_is_its_base_times_its_factor_whatever_was_written_last() -> None:
    optimizer = adam({}, {"weight_decay": 0.25})
    values = values_of(optimizer, {"weight_decay": DOWN})
    assert told(optimizer, "weight_decay") == [0.5, 0.25], "before the first update the base"
    for step, share in ((1, 1.0), (2, 0.75), (3, 0.5), (3, 0.5), (5, 0.0), (1, 1.0)):
        values.write(1.0, step)
        assert told(optimizer, "weight_decay") == [0.5 * share, 0.25 * share]


def test_one_of_several_numbers_moves_and_the_others_stay() -> None:
    optimizer = adam({"betas": (0.8, 0.96)})
    values = values_of(optimizer, {"betas[0]": HALF})
    values.write(1.0, 1)
    assert told(optimizer, "betas") == [(0.4, 0.96)]
    values = values_of(adam({"betas": (0.8, 0.96)}), {"betas[1]": HALF})
    values.write(1.0, 1)
    assert [d.value(1) for d in values.driven] == [0.48]


def test_a_group_with_a_schedule_of_its_own_follows_that_alone() -> None:
    optimizer = adam({}, {"lr": 0.25}, {"weight_decay": 0.125})
    values = values_of(
        optimizer,
        {"weight_decay": DOWN},
        [{}, {"lr": DOWN}, {"weight_decay": HALF}],
        ft_factor=0.5,
    )
    values.write(0.75, 3)  # what the schedule of all groups has come to
    # 1/2 x (0.75, its own base 1/4 x its own 1/2, 0.75); weight decay knows no ft_factor
    assert told(optimizer, "lr") == [0.375, 0.0625, 0.375]
    assert told(optimizer, "weight_decay") == [0.25, 0.25, 0.0625]


def test_a_base_of_0_stays_0_where_another_group_has_one() -> None:
    optimizer = adam({}, {"weight_decay": 0.0})
    values_of(optimizer, {"weight_decay": HALF}).write(1.0, 1)
    assert told(optimizer, "weight_decay") == [0.25, 0.0]


def test_lengths_are_resolved_for_each() -> None:
    optimizer = adam({}, {})
    text: Any = "50%"
    values = values_of(optimizer, {"weight_decay": Cosine(steps=text)}, [{}, {"lr": Linear(steps=text)}])
    values.resolve(Run(steps=8))
    assert [driven.schedule for driven in values.driven] == [
        Cosine(steps=4),
        Cosine(steps=4),
        Linear(steps=4),
    ]
    values.write(1.0, 3)
    assert told(optimizer, "weight_decay") == pytest.approx([0.25, 0.25])
    assert told(optimizer, "lr") == [1.0, 0.5]


# ---- what is refused ----

ADAM = "Known: betas[0], betas[1], eps, weight_decay."


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("weight_decy", f"AdamW has no number 'weight_decy'. Did you mean 'weight_decay'? {ADAM}"),
        ("betas[2]", f"AdamW has no number 'betas[2]'. Did you mean 'betas[1]'? {ADAM}"),
        ("amsgrad", f"AdamW has no number 'amsgrad'. {ADAM}"),
        ("fused", f"AdamW has no number 'fused'. {ADAM}"),
        ("params", f"AdamW has no number 'params'. {ADAM}"),
        ("lr", "'lr' is what `schedule` moves; a group's own is in its rule"),
    ],
)
def test_only_numbers_of_the_optimizer_move(place: str, message: str) -> None:
    assert refusal(adam({}), {place: HALF}) == f"schedules: {message}"


def test_a_number_that_is_0_in_every_group_would_stay_0() -> None:
    optimizer = adam({"weight_decay": 0.0}, {"weight_decay": 0.0})
    assert refusal(optimizer, {"weight_decay": HALF}) == (
        "schedules: weight_decay is 0 in every group, and a schedule multiplies it; "
        "give it a value in optim_conf"
    )


@pytest.mark.parametrize(("base", "told"), [(None, "None"), (float("inf"), "inf")])
def test_what_is_no_number_in_one_group_cannot_be_multiplied(base: Any, told: str) -> None:
    assert refusal(adam({}, {"weight_decay": base}), {"weight_decay": HALF}) == (
        f"schedules: weight_decay, whose base is {told}, must be a finite number, got {told}"
    )


@pytest.mark.parametrize(("place", "factor"), [("betas[0]", 1.25), ("betas[1]", 2.0)])
def test_a_beta_stays_below_1(place: str, factor: float) -> None:
    optimizer = adam({"betas": (0.8, 0.5)})
    values = values_of(optimizer, {place: Constant(factor)})
    with pytest.raises(ConfigError) as caught:
        values.write(1.0, 7)
    assert str(caught.value) == (f"schedules: {place} at s = 7 must be a finite number >= 0 and < 1, got 1.0")


def test_what_is_too_large_for_a_float_is_refused_with_its_step() -> None:
    values = values_of(adam({"eps": 1e300}), {"eps": Constant(1e300)})
    with pytest.raises(ConfigError, match=r"^schedules: eps at s = 3 must be a finite number >= 0, got inf$"):
        values.write(1.0, 3)

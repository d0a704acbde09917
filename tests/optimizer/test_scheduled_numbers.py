"""Schedules of other numbers than the learning rate, of single groups, and of a metric; lengths of a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from optimscheduler import ConfigError, OptimScheduler
from optimscheduler.schedules import (
    Constant,
    Cosine,
    Linear,
    NewBob,
    ReduceOnPlateau,
    Run,
    Schedule,
    Warmup,
    WarmupStableDecay,
)
from tests.cases_models import (
    a_model,
    assert_close,
    assert_same,
    batches,
    mse,
    optim_of,
    refused,
    stored,
    take,
    train,
    weights,
)

DATA = batches(20, dtype=torch.float64)
WARM = Warmup(steps=4, then=Cosine(steps=16, floor=0.1))
DOWN = Linear(steps=20, start=1.0, end=0.25)
UP = Linear(steps=20, start=0.5, end=1.0)
BETA = Linear(steps=10, start=1.0, end=0.9)
RULES: list[dict[str, Any]] = [
    {"name": "0", "lr": 0.02, "schedule": str(UP)},
    {"ndim": "<2", "weight_decay": 0.05, "schedules": {"weight_decay": "Constant(0.5)"}},
]


def by_the_loop(ft_factor: float) -> nn.Module:
    """The same written out: one group for the rest, one for layer 0, one for what has one dimension."""
    model = a_model(dtype=torch.float64)
    named = dict(model.named_parameters())
    first = [named["0.weight"], named["0.bias"]]
    thin = [p for n, p in named.items() if p.ndim < 2 and not n.startswith("0.")]
    rest = [p for n, p in named.items() if p.ndim >= 2 and not n.startswith("0.")]
    groups = [{"params": rest}, {"params": first}, {"params": thin}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.2, foreach=False, fused=False)
    for s, batch in enumerate(DATA, start=1):
        mse(model, batch).backward()  # type: ignore[no-untyped-call]
        lr = ft_factor * 0.1 * WARM(s)
        rates = [lr, ft_factor * 0.02 * UP(s), lr]
        decays = [0.2 * DOWN(s), 0.2 * DOWN(s), 0.05 * 0.5]
        for group, rate, decay in zip(optimizer.param_groups, rates, decays, strict=True):
            group["lr"], group["weight_decay"] = rate, decay
            group["betas"] = (0.9 * BETA(s), 0.999)
        optimizer.step()
        optimizer.zero_grad()
    return model


def driven(layout: str, ft_factor: float = 1.0, **more: Any) -> OptimScheduler:
    return optim_of(
        a_model(dtype=torch.float64),
        "AdamW",
        lr=0.1,
        conf={"weight_decay": 0.2},
        schedule=WARM,
        schedules={"weight_decay": DOWN, "betas[0]": repr(BETA)},
        param_groups=RULES,
        ft_factor=ft_factor,
        layout=layout,
        **more,
    )


@pytest.mark.parametrize("ft_factor", [1.0, 0.5])
@pytest.mark.parametrize("layout", ["flat", "loose"])
def test_every_number_moves_as_in_a_loop_by_hand(layout: str, ft_factor: float) -> None:
    optim = driven(layout, ft_factor)
    train(optim, DATA)
    assert_close(optim.model, weights(by_the_loop(ft_factor)))
    decays = [group["weight_decay"] for group in optim.optimizer.param_groups]
    assert decays == [0.2 * DOWN(20), 0.2 * DOWN(20), 0.025]


@pytest.mark.parametrize("layout", ["flat", "loose"])
def test_B20_R34_resumed_they_go_on_from_their_bases(layout: str) -> None:
    whole = driven(layout)
    train(whole, DATA[:7])
    state = stored({"model": whole.model.state_dict(), "optim": whole.state_dict()})
    second = driven(layout)
    second.model.load_state_dict(state["model"])
    second.load_state_dict(state["optim"])
    for optim in (whole, second):
        train(optim, DATA[7:])
    assert_same(weights(second.model), weights(whole.model))
    assert_same(second.state_dict(), whole.state_dict())


def test_R35_another_schedule_of_another_number_is_a_mismatch() -> None:
    states = [
        optim_of(a_model(), "AdamW", schedules={"weight_decay": schedule}).state_dict()
        for schedule in (UP, DOWN)
    ]
    other = optim_of(a_model(), "AdamW", schedules={"weight_decay": UP})
    other.load_state_dict(states[0])
    assert refused(other, states[1]).endswith(
        f"schedules.weight_decay: {str(DOWN)!r} in the checkpoint, {str(UP)!r} in the configuration"
    )


def test_R35_the_same_schedule_written_otherwise_is_no_mismatch() -> None:
    forms: list[Any] = [
        DOWN,
        repr(DOWN),
        "Linear( steps = 20, start=1.0, end=0.25 )",
        {"type": "Linear", "conf": {"steps": 20, "end": 0.25}},
    ]
    optims = [optim_of(a_model(), "AdamW", schedules={"weight_decay": form}) for form in forms]
    for saved in optims:
        for optim in optims:
            optim.load_state_dict(stored(saved.state_dict()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"schedules": {"weight_decy": "Constant()"}},
            "schedules: AdamW has no number 'weight_decy'. Did you mean 'weight_decay'? "
            "Known: betas[0], betas[1], eps, weight_decay.",
        ),
        (
            {"schedules": {"betas": "Constant()"}},
            "schedules: AdamW has no number 'betas'. Did you mean 'betas[1]'? "
            "Known: betas[0], betas[1], eps, weight_decay.",
        ),
        (
            {"schedules": {"lr": "Constant()"}},
            "schedules: 'lr' is what `schedule` moves; a group's own is in its rule",
        ),
        (
            {"schedules": {"weight_decay": "Constant()"}, "conf": {"weight_decay": 0}},
            "schedules: weight_decay is 0 in every group, and a schedule multiplies it; give it a value in "
            "optim_conf",
        ),
        (
            {"schedules": {"weight_decay": "ReduceOnPlateau()"}},
            "schedules: weight_decay cannot be ReduceOnPlateau, which listens to a metric: a feedback "
            "schedule stands alone, or as `then` of a Warmup",
        ),
        (
            {"schedules": "Constant()"},
            "schedules must be a mapping like {'weight_decay': 'Linear(steps=100)'}, got 'Constant()'",
        ),
        (
            {"param_groups": [{"ndim": "<2", "schedule": "Cosin(steps=3)"}]},
            "param_groups: 'ndim <2': lr: there is no Schedule or FeedbackSchedule 'Cosin'. "
            "Did you mean 'Cosine'?",
        ),
        (
            {"param_groups": [{"ndim": "<2", "schedules": ["Constant()"]}]},
            "param_groups: schedules must be a mapping like {weight_decay: 'Linear(steps=100)'}, got "
            "['Constant()']",
        ),
    ],
)
def test_what_cannot_be_moved_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        optim_of(a_model(), "AdamW", **arguments)
    assert str(caught.value).startswith(message)


def test_a_beta_of_1_is_refused_when_it_comes_to_that() -> None:
    optim = optim_of(a_model(dtype=torch.float64), "AdamW", schedules={"betas[0]": Linear(steps=2, end=2.0)})
    take(optim, DATA[0])
    with pytest.raises(
        ConfigError, match=r"betas\[0\] at s = 2 must be a finite number >= 0 and < 1, got 1.35"
    ):
        take(optim, DATA[1])


# ---- a metric ----

LISTENERS: list[Any] = [
    ReduceOnPlateau(factor=0.5, patience=1),
    ReduceOnPlateau(factor=0.5, patience=0, cooldown=2),
    NewBob(patience=1),
    Warmup(steps=6, then=ReduceOnPlateau(factor=0.5, patience=0)),
    Warmup(steps=30, then=NewBob()),
]
HEARD = [3.0, 2.0, 2.5, 2.4, 1.0, 1.0, 1.1, 0.9, 0.9, 0.9]


@pytest.mark.parametrize("schedule", LISTENERS, ids=repr)
@pytest.mark.parametrize("stopped", [1, 3, 6])
def test_B21_R34_a_schedule_that_listens_goes_on_exactly(schedule: Any, stopped: int) -> None:
    def hear(optim: OptimScheduler, first: int, end: int) -> list[float]:
        rates = []
        for metric, pair in zip(HEARD[first:end], range(first, end), strict=True):
            train(optim, DATA[2 * pair : 2 * pair + 2])
            rates.append(optim.get_lr())
            optim.observe(metric)
        return rates

    def make() -> OptimScheduler:
        return optim_of(a_model(dtype=torch.float64), "Adam", schedule=schedule)

    whole = make()
    hear(whole, 0, stopped)
    state = stored({"model": whole.model.state_dict(), "optim": whole.state_dict()})
    second = make()
    second.model.load_state_dict(state["model"])
    second.load_state_dict(state["optim"])
    rates = [hear(optim, stopped, len(HEARD)) for optim in (whole, second)]
    assert rates[0] == rates[1]
    assert len(set(rates[0])) > 1, "it did listen"
    assert_same(second.state_dict(), whole.state_dict())
    assert_same(weights(second.model), weights(whole.model))


def test_a_warm_up_leads_to_what_its_listener_has_become() -> None:
    schedule = Warmup(steps=4, then=ReduceOnPlateau(factor=0.5, patience=0))
    optim = optim_of(a_model(dtype=torch.float64), schedule=schedule, lr=1.0)
    rates = []
    for batch in DATA[:6]:
        take(optim, batch)
        rates.append(optim.get_lr())
        optim.observe(1.0)  # the first is the best; every other one is not better
    # quarters of 1 (s = 1, 2), of 1/2 and 1/4 (s = 3, 4), then halves
    assert rates == [0.25, 0.5, 0.375, 0.25, 0.125, 0.0625]


# ---- lengths of a run ----


def test_lengths_that_depend_on_the_run_are_resolved_for_all_schedules() -> None:
    optim = optim_of(
        a_model(),
        "AdamW",
        schedule='WarmupStableDecay(warmup="5%", stable="rest", decay="1ep")',
        schedules={"weight_decay": 'Cosine(steps="rest")'},
        param_groups=[{"ndim": "<2", "schedule": 'Linear(steps="400tok")'}],
    )
    optim.resolve(Run(steps=200, steps_per_epoch=50, tokens_per_step=4))
    assert optim.schedule == WarmupStableDecay(warmup=10, stable=140, decay=50)
    found = {(d.group, d.place): d.schedule for d in optim.member.values.driven}
    assert found == {
        (0, "weight_decay"): Cosine(steps=200),
        (1, "weight_decay"): Cosine(steps=200),
        (1, "lr"): Linear(steps=100),
    }
    assert optim.state_dict()["config"]["schedule"] == (
        'WarmupStableDecay(warmup="5%", stable="rest", decay="1ep")'
    ), "what was written is what is compared"


def test_a_length_that_was_not_resolved_is_an_error_that_moves_nothing() -> None:
    optim = optim_of(a_model(dtype=torch.float64), schedule='Cosine(steps="10%")')
    before = weights(optim.model)
    with pytest.raises(ConfigError, match="the length '10%' depends on the run"):
        take(optim, DATA[0])
    assert_same(weights(optim.model), before)


def test_resolved_again_after_the_checkpoints_configuration_has_won() -> None:
    def make(decay: str) -> OptimScheduler:
        optim = optim_of(
            a_model(dtype=torch.float64),
            schedule=f'WarmupStableDecay(warmup=0, stable="rest", decay="{decay}")',
        )
        optim.resolve(Run(steps=20))
        return optim

    first, second = make("50%"), make("10%")
    train(first, DATA[:5])
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(stored(first.state_dict()), on_mismatch="checkpoint")
    assert second.schedule == first.schedule == WarmupStableDecay(warmup=0, stable=10, decay=10)
    for optim in (first, second):
        train(optim, DATA[5:])
    assert_same(weights(first.model), weights(second.model))


def test_a_schedule_without_such_lengths_is_left_as_it_is() -> None:
    schedules: list[Schedule] = [WARM, Constant(), WarmupStableDecay(warmup=1, stable=2, decay=3)]
    for schedule in schedules:
        assert schedule.resolved(Run(steps=7)) == schedule

"""Modes of schedule-free optimizers: `train()` and `eval()` are passed on, and a step needs the first."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from optimscheduler import Average, ConfigError, OptimScheduler, OptimSchedulerDict
from tests.cases_models import (
    TwoParts,
    a_model,
    assert_same,
    batches,
    frozen,
    mse,
    optim_of,
    stored,
    take,
    train,
    weights,
)
from tests.strangers import ScheduleFree


def ours(model: nn.Module, **arguments: object) -> OptimScheduler:
    told = {"use_amp": False, "grad_clip": None, **arguments}
    return OptimScheduler("tests.strangers.ScheduleFree", {"lr": 0.1}, model, **told)  # type: ignore[arg-type]


def test_the_weights_of_both_modes_are_those_of_the_class_in_a_plain_loop() -> None:
    data, model = batches(6), a_model()
    theirs = ScheduleFree(model.parameters())
    optim = ours(a_model())
    for batch in data:
        theirs.train()
        mse(model, batch).backward()  # type: ignore[no-untyped-call]
        theirs.step()
        theirs.zero_grad()
        optim.train()
        take(optim, batch)
        assert_same(weights(optim.model), weights(model))
        theirs.eval()
        optim.eval()
        assert_same(weights(optim.model), weights(model))
    optim.eval()  # twice is once
    assert_same(weights(optim.model), weights(model))


def test_a_step_in_the_mode_of_validation_is_refused_and_changes_nothing() -> None:
    data, optim = batches(4), ours(a_model(), accum_grad=2)
    told = (
        r"ScheduleFree of OptimScheduler 'main' is not in its training mode, so the weights are not those "
        r"that it trains\. Call train\(\)"
    )
    with pytest.raises(ConfigError, match=told):
        take(optim, data[0])
    optim.train()
    train(optim, data[:3])
    optim.eval()
    before = frozen(optim)
    with pytest.raises(ConfigError, match=told):
        take(optim, data[3])
    with pytest.raises(ConfigError, match=told):
        optim.flush()
    assert_same(frozen(optim), before)
    optim.train()
    assert take(optim, data[3]).updated


def test_a_state_remembers_the_mode() -> None:
    data, optim = batches(6), ours(a_model())
    optim.train()
    train(optim, data[:3])
    optim.eval()
    saved = stored({"model": optim.model.state_dict(), "optim": optim.state_dict()})
    again = ours(a_model(seed=3))
    again.train()
    again.model.load_state_dict(saved["model"])
    again.load_state_dict(saved["optim"])
    for one in (optim, again):
        with pytest.raises(ConfigError, match="not in its training mode"):
            take(one, data[3])
        one.train()
        train(one, data[3:])
    assert_same(frozen(again), frozen(optim))


def test_a_dict_passes_them_on_to_those_that_have_modes() -> None:
    model = TwoParts()
    free = OptimScheduler(ScheduleFree, {"lr": 0.1}, model, updated_modules="encoder", use_amp=False)
    plain = optim_of(model, optim_loss="other", updated_modules="decoder", conf={"momentum": 0.9})
    optims = OptimSchedulerDict({"free": free, "plain": plain})
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    def step(**told: object) -> None:
        with optims.forward():
            losses = model(x)
        optims.step(losses, **told)  # type: ignore[arg-type]

    optims.train()
    for _ in range(3):
        step()
    decoder, encoder = copy.deepcopy(model.decoder), copy.deepcopy(model.encoder)
    optims.eval()
    assert_same(weights(model.decoder), weights(decoder))
    assert not torch.equal(model.encoder[0].weight, encoder[0].weight)
    step(only=["plain"])
    with pytest.raises(ConfigError, match="OptimScheduler 'free' is not in its training mode"):
        step()
    optims.train()
    step()


def test_an_optimizer_without_modes_is_left_alone() -> None:
    optim, other = optim_of(a_model(), "Adam"), optim_of(a_model(), "Adam")
    for batch in batches(4):
        optim.train()
        take(optim, batch)
        take(other, batch)
        optim.eval()
    assert_same(frozen(optim), frozen(other))


def test_an_average_of_what_averages_by_itself_is_refused() -> None:
    optim = OptimScheduler(ScheduleFree, {"lr": 0.1}, nn.Linear(2, 1), use_amp=False)
    with pytest.raises(
        ConfigError, match=r"^ScheduleFree averages the weights by itself: leave Average \(in"
    ):
        Average(optim)

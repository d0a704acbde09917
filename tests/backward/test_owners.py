"""R42: who trains which parameters in this process, without keeping anybody alive."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from optimscheduler import OptimScheduler, OptimSchedulerDict
from optimscheduler.backward.owners import Claim
from tests.cases_models import TwoParts, optim_of


@pytest.fixture(autouse=True)
def _nobody_else() -> None:
    gc.collect()  # what other tests have left behind


def test_R42_others_are_known_as_long_as_they_live() -> None:
    one, two = nn.Linear(2, 2), nn.Linear(3, 3)
    first = Claim(one, [1])
    assert not first.has_others()
    second = Claim(two, [2])
    assert first.has_others()
    assert [id(p) for p in first.of_others()] == [id(p) for p in two.parameters()]
    del second
    assert not first.has_others()
    assert first.of_others() == []


def test_R42_a_claim_keeps_no_model_alive() -> None:
    model = nn.Linear(2, 2)
    claim, there = Claim(model, [1]), weakref.ref(model.weight)
    other = Claim(nn.Linear(1, 1), [2])
    assert other.has_others()
    del model, claim
    gc.collect()
    assert there() is None
    assert not other.has_others()


def test_R42_members_over_one_model_are_no_others() -> None:
    model = TwoParts()
    optims = [optim_of(model, updated_modules=part) for part in ("encoder", "decoder")]
    both = OptimSchedulerDict(dict(zip("ab", optims, strict=True)))
    assert not both._line._claim.has_others()
    assert not both._line._claim.is_shared()
    assert optims[0]._line._claim.is_shared()
    assert not optims[0]._line._claim.has_others()


def test_R42_who_waits_for_the_collector_shares_nothing() -> None:
    model = nn.Linear(1, 1)
    claim, gone = Claim(model, [1]), Claim(model, [2])
    assert claim.is_shared()
    gone.itself = gone  # type: ignore[attr-defined]
    del gone
    assert not claim.is_shared()


def test_R42_the_trainers_of_another_model_share_nothing() -> None:
    claim, other = Claim(nn.Linear(1, 1), [1]), Claim(nn.Linear(1, 1), [2])
    assert (claim.is_shared(), other.is_shared()) == (False, False)


def test_R42_a_copy_has_parameters_of_its_own() -> None:
    optim = optim_of(TwoParts())
    twin = copy.deepcopy(optim)
    assert optim._line._claim.has_others()
    del optim
    gc.collect()
    assert not twin._line._claim.has_others()


def test_R43_an_object_is_freed_by_counting_references() -> None:
    torch.optim.Adam([torch.zeros(1)])  # torch's first one leaves a traceback behind
    gc.collect()
    gc.disable()
    try:
        optim = optim_of(TwoParts(), schedule="Linear(steps=3)", optim_type="Adam")
        with optim.forward():
            losses = optim.model(torch.ones(1, 3))
        optim.step(losses)
        there = weakref.ref(optim)
        del optim, losses
        assert there() is None
    finally:
        gc.enable()


def test_a_copy_writes_values_of_its_own() -> None:
    class Told(OptimScheduler):
        def update_lr(self, real_step: int, epoch_num: int) -> float:
            self.told = real_step
            return 0.5

    optim = Told("SGD", {"lr": 0.1}, TwoParts(), use_amp=False)
    twin = copy.deepcopy(optim)
    twin.step(twin.model(torch.ones(1, 3)))
    assert (twin.told, twin.get_lr()) == (1, 0.5)
    assert (hasattr(optim, "told"), optim.get_lr()) == (False, 0.1)


def test_an_object_beside_another_one_can_be_pickled() -> None:
    models = [nn.Linear(2, 1), nn.Linear(2, 1)]
    optims = [OptimScheduler(optim_type="Adam", optim_conf={"lr": 0.1}, model=model) for model in models]
    for model, optim in zip(models, optims, strict=True):
        optim.step(model(torch.ones(1, 2)).sum())
    assert pickle.loads(pickle.dumps(optims[0])).get_lr() == 0.1

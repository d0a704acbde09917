"""R33, R34: what is saved, and what goes on from it bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from optimscheduler import Noamlr, OptimScheduler
from optimscheduler.plain_config import differences, plain
from tests.cases import HalvedWhenWorse
from tests.cases_models import a_model, assert_same, batches, frozen, optim_of, stored, take, train, weights

DATA = batches(12)
Make = Callable[[nn.Module], OptimScheduler]


def adam(model: nn.Module, **arguments: Any) -> OptimScheduler:
    return optim_of(model, "Adam", 0.01, grad_clip=0.5, **arguments)


MAKES: dict[str, Make] = {
    "plain": lambda m: adam(m, conf={"fused": False}),
    "momentum": lambda m: optim_of(m, "SGD", 0.01, conf={"momentum": 0.9}, accum_grad=2),
    "accumulation": lambda m: adam(m, accum_grad=3, step_per_update=2),
    "guard": lambda m: adam(m, guard={"z": 2.0, "window": 4, "warm_up": 2}),
    "feedback": lambda m: adam(m, schedule=HalvedWhenWorse(), accum_grad=2),
    "first skipped": lambda m: Noamlr("Adam", {"lr": 0.01}, m, use_amp=False, accum_grad=3, warmup_steps=3),
    "noam": lambda m: Noamlr("Adam", {"lr": 0.01}, m, use_amp=False, accum_grad=2, warmup_steps=3),
    "applied clock": lambda m: adam(m, schedule="Cosine(steps=9)", lr_clock="applied"),
    "bf16": lambda m: adam(m, use_amp="bf16", accum_grad=2),
    "fp16": lambda m: adam(m, use_amp="fp16", accum_grad=3),
    "groups": lambda m: adam(m, param_groups=[{"ndim": "<2", "lr": 0.1, "weight_decay": 0.1}]),
    "part": lambda m: adam(m, updated_modules=["3"], exclude="3.bias", accum_grad=2),
}


def go(optim: OptimScheduler, data: list[Any], first: int = 0, weighted: bool = False) -> list[Any]:
    """Train, with a NaN in every fifth batch and a metric after every third."""
    reports = []
    for number, batch in enumerate(data, start=first):
        times = float("nan") if number % 5 == 2 else 1.0
        reports.append(take(optim, batch, times, **({"weight": number + 1} if weighted else {})))
        if number % 3 == 2:
            optim.observe(float(number % 4))
    return reports


def resumed(make: Make, optim: OptimScheduler) -> OptimScheduler:
    """Another object over another model, gone through a file."""
    saved = stored({"model": optim.model.state_dict(), "optim": optim.state_dict()})
    model = a_model(seed=99)
    model.load_state_dict(saved["model"])
    other = make(model)
    other.load_state_dict(saved["optim"])
    return other


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize("stop", [0, 1, 4, 6])
@pytest.mark.parametrize("weighted", [False, True])
def test_R34_two_copies_continue_in_mid_window_and_stay_equal_bit_for_bit(
    make: Make, stop: int, weighted: bool
) -> None:
    optim = make(a_model())
    if optim.scaler is not None:
        optim.scaler.growth_interval = 2
        optim.scaler.value.fill_(256.0)  # the default overflows with so small a model
    go(optim, DATA[:stop], weighted=weighted)
    other = resumed(make, optim)
    assert_same(frozen(other), frozen(optim))
    for number, batch in enumerate(DATA[stop:], start=stop):
        one, two = (go(o, [batch], number, weighted)[0] for o in (optim, other))
        assert repr(one) == repr(two)
        assert_same(frozen(other), frozen(optim))
    assert optim.state_dict()["ledger"]["applied"] > 0


@pytest.mark.parametrize("use_amp", [False, "fp16"])
def test_R34_a_window_of_weight_0_so_far_is_resumed_as_well(use_amp: Any) -> None:
    def make(model: nn.Module) -> OptimScheduler:
        return adam(model, use_amp=use_amp, accum_grad=2)

    optim = make(a_model())
    take(optim, DATA[0], float("nan"), weight=0)
    other = resumed(make, optim)
    for one in (optim, other):
        take(one, DATA[1], weight=3)
    assert_same(frozen(other), frozen(optim))


def test_R33_the_state_is_a_plain_nested_dict() -> None:
    optim = MAKES["fp16"](a_model())
    go(optim, DATA[:4])
    state = stored(optim.state_dict())
    assert set(state) == {
        "version",
        "config",
        "parameters",
        "optimizer",
        "scaler",
        "clock",
        "ledger",
        "guard",
        "feedback",
        "values",
        "layout",
        "window",
    }
    assert state["version"] == 1
    assert state["clock"] == {"batch": 4, "epoch": 1, "closed_windows": 1, "inside": 1}
    assert state["parameters"]["0.weight"] == [6, 4]
    assert set(state["window"]["gradients"]) == {name for name, _ in optim.model.named_parameters()}
    assert state["config"]["optim_conf"] == {"lr": 0.01}
    assert_same(state, optim.state_dict())


def test_R33_a_closed_window_saves_no_gradients() -> None:
    optim = adam(a_model())
    go(optim, DATA[:2])
    assert optim.state_dict()["window"]["gradients"] == {}


def test_R33_wrapped_or_not_the_names_are_the_same() -> None:
    class Wrapped(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.module = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.module(x)
            return out

    optim, other = adam(a_model(), accum_grad=2), adam(Wrapped(a_model()), accum_grad=2)
    train(optim, DATA[:3])
    other.model.load_state_dict({f"module.{k}": v for k, v in optim.model.state_dict().items()})
    other.load_state_dict(stored(optim.state_dict()))
    for o in (optim, other):
        train(o, DATA[3:6])
    assert_same(list(weights(other.model).values()), list(weights(optim.model).values()))


def test_R01_resumed_with_another_accum_grad_the_real_step_goes_on() -> None:
    optim = adam(a_model(), accum_grad=2)
    train(optim, DATA[:6])
    other = adam(a_model(), accum_grad=3)
    other.load_state_dict(stored(optim.state_dict()), "config")
    reports = train(other, DATA[6:12])
    assert [(r.batch, r.real_step) for r in reports] == [(7, 4), (8, 4), (9, 4), (10, 5), (11, 5), (12, 5)]


def test_plain_is_what_yaml_would_hold() -> None:
    value = {
        "a": (1, 2.5),
        3: {"b": None, "c": True},
        "t": torch.tensor(2.0),
        "s": frozenset({1}),
        "m": nn.ReLU(),
        "v": torch.ones(2),
    }
    kept = copy.copy(value)
    assert plain(value) == {
        "a": [1, 2.5],
        "3": {"b": None, "c": True},
        "t": 2.0,
        "s": [1],
        "m": "ReLU()",
        "v": "tensor([1., 1.])",
    }
    assert value == kept


def test_differences_name_the_place() -> None:
    nan = float("nan")
    saved = {"a": {"b": 1, "c": [1, 2]}, "gone": 2, "same": nan}
    now = {"a": {"b": 2, "c": [1, 3]}, "same": nan, "new": None}
    assert list(differences(saved, now)) == [
        "a.b: 1 in the checkpoint, 2 in the configuration",
        "a.c: [1, 2] in the checkpoint, [1, 3] in the configuration",
        "gone: 2 in the checkpoint, missing in the configuration",
        "new: missing in the checkpoint, None in the configuration",
    ]
    assert list(differences(saved, saved)) == []

"""R33, R34: what optimizers of other packages keep comes back as it was, and in its own dtype."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from optimscheduler import OptimScheduler
from optimscheduler.state.first_step import FirstStep
from tests.cases_models import (
    Batch,
    a_model,
    assert_same,
    batches,
    frozen,
    mse,
    refused,
    stored,
    train,
    weights,
)
from tests.strangers import (
    Gathering,
    GlobalCount,
    Keywords,
    LazyStep,
    Master,
    Nested,
    Quantised,
    Recent,
    ScheduleFree,
    Sided,
    Told,
    Wrapped,
    parts,
)

Make = Callable[[nn.Module], Optimizer]

MAKES: dict[str, Make] = {
    "lazy step": lambda m: LazyStep(m.parameters(), second=True),
    "schedule-free": lambda m: ScheduleFree(m.parameters()),
    "keywords": lambda m: Keywords(m.parameters(), decay=0.1),
    "told": lambda m: Told(parts(m)),
    "master": lambda m: Master(m.parameters()),
    "nested": lambda m: Nested(m.parameters()),
    "global": lambda m: GlobalCount(m.parameters()),
    "flag": lambda m: Sided(m.parameters()),
    "gathering": lambda m: Gathering(m.parameters()),
}


def in_training(optimizer: Optimizer) -> Optimizer:
    if isinstance(optimizer, ScheduleFree):
        optimizer.train()
    return optimizer


def ours(make: Make, model: nn.Module, **arguments: Any) -> OptimScheduler:
    optimizer = in_training(make(model))
    return OptimScheduler.from_optimizer(
        optimizer, model, **{"use_amp": False, "grad_clip": None, **arguments}
    )


def plain_steps(model: nn.Module, optimizer: Optimizer, data: Sequence[Batch]) -> None:
    for batch in data:
        mse(model, batch).backward()  # type: ignore[no-untyped-call]
        in_training(optimizer).step()
        optimizer.zero_grad()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", ["error", "config", "plain"])
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_R34_resumed_it_goes_on_as_if_never_stopped(make: Make, how: str, dtype: torch.dtype) -> None:
    """`plain`: from a plain optimizer's state. The reference was never stopped: torch's load casts."""
    data = batches(15, dtype=dtype)
    model = a_model(dtype=dtype)
    reference = make(model)
    plain_steps(model, reference, data[:5])
    first = ours(make, a_model(dtype=dtype), accum_grad=1 if how != "config" else "host")
    if how == "config":
        for batch in data[:5]:
            with first.forward(last=True):
                loss = mse(first.model, batch)
            first.step(loss)
    else:
        train(first, data[:5])
    assert_same(weights(first.model), weights(model))
    saved = stored(reference.state_dict() if how == "plain" else first.state_dict())
    again = a_model(seed=7, dtype=dtype)
    again.load_state_dict(first.model.state_dict())
    optim = ours(make, again)
    kept = copy.deepcopy(saved)
    optim.load_state_dict(saved, "config" if how == "config" else "error")
    plain_steps(model, reference, data[5:])
    train(optim, data[5:])
    assert_same(weights(again), weights(model))
    assert_same(saved, kept)


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_R34_loaded_into_one_that_has_stepped_it_goes_on_from_the_state(make: Make) -> None:
    data = batches(12)
    optim, other = ours(make, a_model()), ours(make, a_model(), ft_factor=0.5)
    train(optim, data[:3])
    train(other, data[3:8])
    other.model.load_state_dict(optim.model.state_dict())
    saved = stored(optim.state_dict())
    other.load_state_dict(saved, "config")
    twin = ours(make, a_model(), ft_factor=0.5)
    twin.model.load_state_dict(optim.model.state_dict())
    twin.load_state_dict(saved, "config")
    states = [one.optimizer.state_dict() for one in (other, twin)]
    for state in states:
        for group in state["param_groups"]:
            del group["lr"]  # the configuration's, and the twin has not written it yet
    assert_same(*states)


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_R36_one_that_has_stepped_goes_back_to_a_plain_state(make: Make) -> None:
    data, model = batches(12), a_model()
    reference = make(model)
    plain_steps(model, reference, data[:5])
    saved, there = stored(reference.state_dict()), stored(model.state_dict())
    optim = ours(make, a_model())
    train(optim, data[:8])
    optim.model.load_state_dict(there)
    optim.load_state_dict(saved)
    plain_steps(model, reference, data[5:])
    train(optim, data[5:])
    assert_same(weights(optim.model), weights(model))


def test_R35_the_config_has_the_settings_and_the_checkpoint_the_state_of_groups() -> None:
    data = batches(4)

    def of(conf: dict[str, Any], cls: type[Optimizer]) -> OptimScheduler:
        optim = OptimScheduler(cls, conf, a_model(), use_amp=False, grad_clip=None)
        in_training(optim.optimizer)
        train(optim, data)
        return optim

    cases: list[tuple[type[Optimizer], dict[str, Any], dict[str, Any], set[str]]] = [
        (LazyStep, {"lr": 0.1}, {"lr": 0.3, "beta": 0.5}, {"step"}),
        (ScheduleFree, {"lr": 0.1}, {"lr": 0.3, "beta": 0.5}, {"k", "weight_sum", "lr_max", "train_mode"}),
        (Keywords, {"lr": 0.1, "decay": 0.1}, {"lr": 0.3, "decay": 0.2}, {"count", "late", "step"}),
    ]
    for cls, before, now, of_state in cases:
        old = of(before, cls)
        optim = OptimScheduler(cls, now, a_model(), use_amp=False, grad_clip=None)
        optim.load_state_dict(stored(old.state_dict()), "config")
        (there,), (here,) = old.optimizer.param_groups, optim.optimizer.param_groups
        assert {key: here[key] for key in now} == now, cls
        assert {key: here[key] for key in of_state} == {key: there[key] for key in of_state}, cls


def test_R35_settings_that_only_groups_know_are_the_configs() -> None:
    old = ours(MAKES["told"], a_model())
    train(old, batches(2))
    model = a_model()
    groups = parts(model)
    groups[1]["momentum"] = 0.3
    optim = OptimScheduler.from_optimizer(Told(groups), model, use_amp=False, ft_factor=0.5)
    optim.load_state_dict(stored(old.state_dict()), "config")
    assert [group["momentum"] for group in optim.optimizer.param_groups] == [0.5, 0.3]


def test_R33_entries_come_back_in_the_dtype_in_which_the_class_keeps_them() -> None:
    data = batches(3, dtype=torch.bfloat16)
    optim = ours(MAKES["master"], a_model(dtype=torch.bfloat16))
    train(optim, data)
    other = ours(MAKES["master"], a_model(dtype=torch.bfloat16))
    other.load_state_dict(stored(optim.state_dict()))
    p = other.model.get_parameter("0.weight")
    found = {key: value.dtype for key, value in other.optimizer.state[p].items()}
    kept = {"master": torch.float32, "mean": torch.bfloat16, "signs": torch.int8, "scale": torch.float64}
    assert found == kept


@pytest.mark.parametrize(
    ("before", "now"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)]
)
def test_R33_what_torch_casts_is_cast_where_the_weights_have_another_dtype(before: Any, now: Any) -> None:
    optim = ours(MAKES["master"], a_model(dtype=before))
    train(optim, batches(2, dtype=before))
    other = ours(MAKES["master"], a_model(dtype=now))
    other.load_state_dict(stored(optim.state_dict()))
    p = other.model.get_parameter("0.weight")
    assert other.optimizer.state[p]["mean"].dtype is now
    assert other.optimizer.state[p]["master"].dtype is torch.float32


def test_R33_tensors_made_of_others_are_copied_and_come_back() -> None:
    data = batches(6)
    optim = ours(lambda m: Quantised(m.parameters()), a_model())
    train(optim, data[:3])
    other = ours(lambda m: Quantised(m.parameters()), a_model(seed=4))
    other.model.load_state_dict(optim.model.state_dict())
    other.load_state_dict(optim.state_dict())
    p, q = (one.model.get_parameter("0.weight") for one in (optim, other))
    assert isinstance(other.optimizer.state[q]["mean"], Wrapped)
    assert other.optimizer.state[q]["mean"].inner is not optim.optimizer.state[p]["mean"].inner
    for one in (optim, other):
        train(one, data[3:])
    assert_same(weights(other.model), weights(optim.model))


class Closed(Wrapped):
    """One that says nothing of what it is made of."""

    def __tensor_flatten__(self) -> Any:
        raise AttributeError("inner")


def test_R33_tensors_that_cannot_be_copied_are_refused() -> None:
    optim = ours(lambda m: Quantised(m.parameters()), a_model())
    train(optim, batches(1))
    state = optim.state_dict()
    state["optimizer"]["state"]["0.weight"]["mean"] = Closed(torch.zeros(6, 4, dtype=torch.bfloat16))
    other = ours(lambda m: Quantised(m.parameters()), a_model())
    assert "mean is a Closed, which cannot be loaded: Closed cannot be copied" in refused(other, state)


# ---- the first step ----


class Careless(LazyStep):
    """Leaves traces wherever it steps."""

    trace: list[int]

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.trace = []
        self.known = list(self.param_groups[0]["params"])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        print("stepped")
        self.trace.append(random.randrange(9))
        torch.rand(3)
        for p in self.known:
            p.add_(1)
        super().step()


def test_a_load_leaves_no_trace_of_the_first_step_that_it_tries(capsys: pytest.CaptureFixture[str]) -> None:
    model = a_model()
    optimizer = Careless(model.parameters())
    optim = OptimScheduler.from_optimizer(optimizer, model, use_amp=False)
    calls: list[Any] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append(1))
    before, drawn, drawn_here = weights(model), torch.get_rng_state(), random.getstate()
    made = FirstStep(optimizer).state(model.get_parameter("0.weight"))
    assert made is not None
    assert set(made) == {"mean"}
    optim.load_state_dict(stored(optim.state_dict()))
    assert_same(weights(model), before)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert random.getstate() == drawn_here
    assert (calls, optimizer.trace, capsys.readouterr().out) == ([], [], "")
    assert "step" not in optimizer.param_groups[0]


class Untried(LazyStep):
    """Cannot be copied, so nobody can say what its first step makes."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.base = torch.optim.SGD(self.param_groups[0]["params"], lr=0.1)


def test_where_nobody_can_say_what_a_class_keeps_it_is_taken_as_it_is() -> None:
    data = batches(6)
    optim, other = (ours(lambda m: Untried(m.parameters()), a_model()) for _ in range(2))
    assert FirstStep(optim.optimizer).state(optim.model.get_parameter("0.weight")) is None
    train(optim, data[:3])
    other.model.load_state_dict(optim.model.state_dict())
    other.load_state_dict(stored(optim.state_dict()))
    for one in (optim, other):
        train(one, data[3:])
    assert_same(weights(other.model), weights(optim.model))


def test_R35_an_option_that_was_switched_in_a_class_of_somebody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def of(**conf: Any) -> OptimScheduler:
        return OptimScheduler(LazyStep, {"lr": 0.1, **conf}, a_model(), use_amp=False)

    old, optim = of(), of(second=True)
    train(old, batches(2))
    with caplog.at_level(logging.WARNING, "optimscheduler"):
        optim.load_state_dict(stored(old.state_dict()), "config")
    assert (
        "square (0.weight, 0.bias, 2.weight and 3 more) is not in the checkpoint; LazyStep begins it anew"
        in caplog.text
    )
    train(optim, batches(2))


def test_R34_what_is_loaded_is_a_copy_also_inside_of_objects() -> None:
    data, optim = batches(8), ours(lambda m: Recent(m.parameters()), a_model())
    train(optim, data[:4])
    saved = copy.deepcopy({"model": optim.model.state_dict(), "optim": optim.state_dict()})
    ends = []
    for _ in range(2):  # the second starts from what the first was given
        again = ours(lambda m: Recent(m.parameters()), a_model())
        again.model.load_state_dict(saved["model"])
        again.load_state_dict(saved["optim"])
        train(again, data[4:])
        ends.append(weights(again.model))
    assert_same(*ends)


@pytest.mark.parametrize("how", ["error", "config"])
def test_R36_a_plain_state_of_another_class_is_refused(how: str) -> None:
    model = a_model()
    theirs = torch.optim.Adam(model.parameters())
    plain_steps(model, theirs, batches(2))
    optim = ours(MAKES["lazy step"], a_model())
    assert "missing: mean" in refused(optim, stored(theirs.state_dict()), how)


def test_R35_numbers_of_groups_survive_where_the_first_parameter_is_new() -> None:
    model = a_model()
    old = ours(MAKES["lazy step"], model)
    train(old, batches(3))
    state = stored(old.state_dict())
    grown = nn.Sequential(nn.Linear(4, 4), *a_model())
    optim = ours(MAKES["lazy step"], grown)
    moved = {name: f"{int(name[0]) + 1}{name[1:]}" for name in state["parameters"]}
    state["parameters"] = {moved[name]: shape for name, shape in state["parameters"].items()}
    state["optimizer"]["state"] = {moved[n]: kept for n, kept in state["optimizer"]["state"].items()}
    state["optimizer"]["present"] = [moved[name] for name in state["optimizer"]["present"]]
    state["optimizer"]["groups"][0]["params"] = list(state["parameters"])
    state["layout"] = None
    optim.load_state_dict(state, "config")
    assert optim.optimizer.param_groups[0]["step"] == 3
    assert frozen(optim)["optim"]["ledger"]["applied"] == 3

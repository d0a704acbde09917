"""R33, R36: optimizer state by name, whoever saved it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from optimscheduler import OptimScheduler
from optimscheduler.errors import CheckpointError
from optimscheduler.parameters.group_rules import GroupRule
from optimscheduler.parameters.owned import OwnedParameters, own
from optimscheduler.state.first_step import FirstStep
from optimscheduler.state.optimizer_state import load_optimizer, optimizer_by_name
from optimscheduler.state.other_formats import named_from_torch
from tests.cases_models import TwoParts, a_model, assert_same, stored


def same_shapes() -> nn.Sequential:
    """Three layers that only their values tell apart."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))


def groups_of(owned: OwnedParameters) -> list[dict[str, Any]]:
    return [{"params": list(g.parameters.values()), **g.settings} for g in owned.groups]


def trained(optimizer: Optimizer) -> Optimizer:
    """Two updates with gradients that differ from element to element."""
    torch.manual_seed(3)
    for _ in range(2):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.randn_like(p)
        optimizer.step()
    return optimizer


def moments(optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    return {name: dict(optimizer.state[p]) for name, p in model.named_parameters() if optimizer.state[p]}


def test_R33_the_state_is_keyed_by_name() -> None:
    model = a_model()
    owned = own(model, rules=[GroupRule(ndim="<2", settings={"weight_decay": 0.0})])
    optimizer = trained(torch.optim.AdamW(groups_of(owned), lr=0.1))
    saved = optimizer_by_name(optimizer, list(owned.by_name))
    assert set(saved["state"]) == {name for name, _ in model.named_parameters()}
    assert (
        saved["state"]["2.bias"]["exp_avg"]
        is optimizer.state[dict(model.named_parameters())["2.bias"]]["exp_avg"]
    )
    assert [group["params"] for group in saved["groups"]] == [
        ["0.weight", "3.weight"],
        ["0.bias", "2.weight", "2.bias", "3.bias"],
    ]
    assert [group["weight_decay"] for group in saved["groups"]] == [0.01, 0.0]


def test_B23_R33_it_survives_regrouping_and_is_copied() -> None:
    model, other = a_model(), a_model()
    owned = own(model, rules=[GroupRule(ndim="<2", settings={"weight_decay": 0.0})])
    optimizer = trained(torch.optim.AdamW(groups_of(owned), lr=0.1))
    saved = stored(optimizer_by_name(optimizer, list(owned.by_name)))
    kept = copy.deepcopy(saved)
    fresh = torch.optim.AdamW(other.parameters(), lr=0.1)
    load_optimizer(fresh, list(own(other).by_name), saved, settings=False)
    assert_same(moments(fresh, other), moments(optimizer, model))
    trained(fresh)
    assert_same(saved, kept)


@pytest.mark.parametrize("settings", [True, False])
def test_R35_settings_come_along_if_asked_for_but_never_the_implementation(settings: bool) -> None:
    model, other = a_model(), a_model()
    names = list(own(model).by_name)
    optimizer = trained(torch.optim.Adam(model.parameters(), lr=0.5, betas=(0.1, 0.2), fused=True))
    fresh = torch.optim.Adam(other.parameters(), lr=0.1, foreach=False)
    load_optimizer(fresh, names, optimizer_by_name(optimizer, names), settings=settings)
    (group,) = fresh.param_groups
    assert (group["lr"], tuple(group["betas"])) == ((0.5, (0.1, 0.2)) if settings else (0.1, (0.9, 0.999)))
    assert group["fused"] is None
    assert group["foreach"] is False


def test_R33_what_the_saved_state_lacks_stays_fresh_and_what_is_not_here_is_left_out() -> None:
    optimizer = torch.optim.Adam(a_model().parameters(), lr=0.1)
    names = list(own(a_model()).by_name)
    one = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    saved = {"state": {"3.bias": one, "gone": one}, "groups": [{"params": ["gone"], "lr": 9.0}]}
    load_optimizer(optimizer, names, saved, settings=True)
    assert len(optimizer.state) == 1
    assert optimizer.param_groups[0]["lr"] == 0.1


def adam(parameters: Any, **conf: Any) -> Optimizer:
    return trained(torch.optim.Adam(parameters, lr=0.1, **conf))


def reloaded(raw: Any, model: nn.Module, owned: OwnedParameters) -> dict[str, Any]:
    fresh = torch.optim.Adam(groups_of(owned), lr=0.1)
    named, _ = named_from_torch(stored(raw), owned, FirstStep(fresh))
    load_optimizer(fresh, list(owned.by_name), named, settings=False)
    return moments(fresh, model)


NO_DECAY = GroupRule(ndim="<2", settings={"weight_decay": 0.0})
FIRST = GroupRule(name=("0",), settings={"lr": 0.01})


@pytest.mark.parametrize("rules", [[], [NO_DECAY]], ids=["one group", "two groups"])
@pytest.mark.parametrize("kind", ["params", "named", "wrapped names", "same groups", "trainable"])
def test_R36_a_plain_optimizers_moments_land_on_the_right_names(kind: str, rules: list[GroupRule]) -> None:
    model, twin = same_shapes(), same_shapes()
    for one in (model, twin):
        one[1].bias.requires_grad_(False)
    trainable = [p for p in model.parameters() if p.requires_grad]
    theirs = adam(
        {
            "params": list(model.parameters()),
            "named": list(model.named_parameters())[::-1],  # any order will do
            "wrapped names": [(f"module._orig_mod.{name}", p) for name, p in model.named_parameters()],
            "same groups": groups_of(own(model, rules=rules)),
            "trainable": trainable,
        }[kind]
    )
    assert_same(reloaded(theirs.state_dict(), twin, own(twin, rules=rules)), moments(theirs, model))


def test_R36_one_group_over_the_model_is_in_the_models_order_whatever_our_groups_are() -> None:
    model, twin = same_shapes(), same_shapes()
    theirs = adam(list(model.parameters()))
    assert_same(reloaded(theirs.state_dict(), twin, own(twin, rules=[FIRST])), moments(theirs, model))


@pytest.mark.parametrize("listed", [["encoder", "decoder"], ["decoder", "encoder"]])
def test_R36_the_origins_order_is_that_of_updated_modules(listed: list[str]) -> None:
    model, twin = TwoParts(), TwoParts()
    theirs = adam([p for name in listed for p in getattr(model, name).parameters()])
    assert_same(reloaded(theirs.state_dict(), twin, own(twin, listed)), moments(theirs, model))


@pytest.mark.parametrize(
    ("parameters", "count"),
    [
        (lambda: list(same_shapes().parameters())[:5], 5),  # one too few
        (lambda: list(same_shapes().parameters())[::-1], 6),  # shapes do not fit in this order
        (lambda: [(f"x{n}", p) for n, p in same_shapes().named_parameters()], 6),  # names that are not here
    ],
)
def test_R36_what_fits_in_no_order_is_an_error(parameters: Any, count: int) -> None:
    owned = own(same_shapes())
    first = FirstStep(torch.optim.Adam(owned.by_name.values()))
    with pytest.raises(CheckpointError) as caught:
        named_from_torch(adam(parameters()).state_dict(), owned, first)
    assert str(caught.value).startswith(
        f"this optimizer state ({count} parameters, groups: 1) does not fit the 6 parameters owned here"
    )


def test_R35_a_moment_of_a_matrix_with_one_element_is_no_counter() -> None:
    model = nn.Linear(1, 1, bias=False)
    optim = OptimScheduler("Muon", {"lr": 0.1}, model, use_amp=False)
    optim.step(-model(torch.ones(1, 1)).sum())  # the momentum is below 0
    state = optim.state_dict()
    assert state["optimizer"]["state"]["weight"]["momentum_buffer"].item() < 0
    optim.load_state_dict(state)

"""R35, R36: the state of every class of torch.optim in every other, with every option that shapes a state.

Accepted means that the next ten steps are those after torch's own load, refused that nothing has changed.
What each class keeps is written down here by hand.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler import OptimScheduler
from tests.cases_models import assert_same, frozen, refused, stored, weights
from tests.layouts import layout

State = dict[str, Any]  # Any: a tree of plain values and tensors

ADAM = {"step", "exp_avg", "exp_avg_sq"}

KINDS: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "Adadelta": ("Adadelta", {}, {"step", "square_avg", "acc_delta"}),
    "Adafactor": ("Adafactor", {}, {"step", "row_var", "col_var"}),
    "Adagrad": ("Adagrad", {}, {"step", "sum"}),
    "Adam": ("Adam", {}, ADAM),
    "Adam, amsgrad": ("Adam", {"amsgrad": True}, ADAM | {"max_exp_avg_sq"}),
    "AdamW": ("AdamW", {}, ADAM),
    "AdamW, amsgrad": ("AdamW", {"amsgrad": True}, ADAM | {"max_exp_avg_sq"}),
    "Adamax": ("Adamax", {}, {"step", "exp_avg", "exp_inf"}),
    "ASGD": ("ASGD", {}, {"step", "eta", "mu", "ax"}),
    "Muon": ("Muon", {}, {"momentum_buffer"}),
    "NAdam": ("NAdam", {}, ADAM | {"mu_product"}),
    "RAdam": ("RAdam", {}, ADAM),
    "RMSprop": ("RMSprop", {}, {"step", "square_avg"}),
    "RMSprop, momentum": ("RMSprop", {"momentum": 0.9}, {"step", "square_avg", "momentum_buffer"}),
    "RMSprop, centered": ("RMSprop", {"centered": True}, {"step", "square_avg", "grad_avg"}),
    "RMSprop, both": (
        "RMSprop",
        {"momentum": 0.9, "centered": True},
        {"step", "square_avg", "momentum_buffer", "grad_avg"},
    ),
    "Rprop": ("Rprop", {}, {"step", "prev", "step_size"}),
    "SGD": ("SGD", {}, set()),
    "SGD, momentum": ("SGD", {"momentum": 0.9}, {"momentum_buffer"}),
    "SGD, dampening": ("SGD", {"momentum": 0.9, "dampening": 0.5}, {"momentum_buffer"}),
    "SGD, nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}, {"momentum_buffer"}),
    "SparseAdam": ("SparseAdam", {}, ADAM),
}
COUNTS = {"step", "eta", "mu", "mu_product", "row_var", "col_var"}  # all others have an element for each


class Tables(nn.Module):
    """Two tables whose rows are added; their gradients are sparse where the class wants that."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.one, self.two = nn.Embedding(6, 4, sparse=sparse), nn.Embedding(5, 4, sparse=sparse)

    def loss(self, number: int) -> Tensor:
        at = torch.tensor([number % 5, (number + 2) % 5, 4])
        wanted = torch.linspace(-1, 1, 12).reshape(3, 4)
        return (self.one(at) + self.two(at) - wanted).square().mean()


def test_no_class_of_torch_is_left_out() -> None:
    named = {n for n, c in vars(torch.optim).items() if isinstance(c, type) and issubclass(c, Optimizer)}
    assert named - {name for name, _, _ in KINDS.values()} == {"Optimizer", "LBFGS"}, "which need a closure"


def plain(kind: str) -> tuple[Tables, Optimizer]:
    name, conf, _ = KINDS[kind]
    model = Tables(sparse=name == "SparseAdam")
    return model, getattr(torch.optim, name)(model.parameters(), lr=0.05, **conf)


def plain_steps(model: Tables, optimizer: Optimizer, numbers: range) -> None:
    for number in numbers:
        model.loss(number).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


def ours(kind: str, model: Tables | None = None) -> OptimScheduler:
    """In the loose layout with torch's plain kernel, in the others with what the library chooses."""
    name, conf, _ = KINDS[kind]
    plainly = {"fused": False} if layout() == "loose" and _has_fused(name) else {}
    model = model or Tables(sparse=name == "SparseAdam")
    return OptimScheduler(name, {"lr": 0.05, **conf, **plainly}, model, use_amp=False, grad_clip=None)


def _has_fused(name: str) -> bool:
    return name in ("Adagrad", "Adam", "AdamW", "SGD")


def our_steps(optim: OptimScheduler, numbers: range) -> None:
    for number in numbers:
        with optim.forward():
            loss = optim.model.loss(number)  # type: ignore[operator]  # of Tables
        optim.step(loss)


def same(optim: OptimScheduler, model: Tables) -> None:
    """Bit for bit, or to the roundings of the fused kernels and of sums in another order over ten steps."""
    for name, weight in weights(optim.model).items():
        theirs = model.get_parameter(name).detach()
        if layout() == "loose":
            assert torch.equal(weight, theirs), name
        else:
            torch.testing.assert_close(weight, theirs, rtol=2e-5, atol=2e-6)


def check_refused(optim: OptimScheduler, twin: OptimScheduler, state: State, how: Any) -> str:
    """Nothing has changed, seen and unseen: the next steps are those of one that was never asked."""
    message = refused(optim, state, how)
    for one in (optim, twin):
        our_steps(one, range(3, 5))
    assert_same(frozen(optim), frozen(twin))
    return message


def edited(state: State, target: str) -> State:
    """By hand: without what the class does not keep, and with zeros for what it keeps and was not there."""
    keeps = KINDS[target][2]

    def entries(kept: Mapping[str, Any]) -> State:
        some = next((v for v in kept.values() if isinstance(v, Tensor) and v.ndim), torch.zeros(()))
        new = {key: torch.zeros_like(some) for key in keeps - set(kept)}
        return {key: value for key, value in kept.items() if key in keeps} | new

    return {i: found for i, kept in state.items() if (found := entries(kept))}


def expected(source: str, target: str, how: str) -> bool:
    """Whether a plain optimizer's state is to be taken."""
    has, keeps = KINDS[source][2], KINDS[target][2]
    if has == keeps or not has:
        return True
    missing, extra = keeps - has, has - keeps
    one_class = KINDS[source][0] == KINDS[target][0]
    return how == "config" and not missing & COUNTS and (one_class or not (missing and extra))


@pytest.mark.parametrize("how", ["error", "config"])
@pytest.mark.parametrize("source", KINDS)
def test_R36_a_plain_state_of_any_class_is_stepped_as_after_torchs_load_or_changes_nothing(
    source: str, how: Any
) -> None:
    old_model, old = plain(source)
    plain_steps(old_model, old, range(5))
    saved = stored(old.state_dict())
    for target in KINDS:
        optim, twin = ours(target), ours(target)
        for one in (optim, twin):
            our_steps(one, range(3))
        if not expected(source, target, how):
            message = check_refused(optim, twin, saved, how)
            assert "cannot go on with this optimizer state" in message or "does not fit" in message
            continue
        model, reference = plain(target)
        model.load_state_dict(optim.model.state_dict())
        theirs = {
            "state": edited(saved["state"], target),
            "param_groups": reference.state_dict()["param_groups"],
        }
        reference.load_state_dict(copy.deepcopy(theirs))
        optim.load_state_dict(saved, how)
        plain_steps(model, reference, range(5, 15))
        our_steps(optim, range(5, 15))
        same(optim, model)


@pytest.mark.parametrize("source", KINDS)
def test_R35_with_the_config_an_option_that_was_switched_begins_what_is_new_and_leaves_out_the_rest(
    source: str, caplog: pytest.LogCaptureFixture
) -> None:
    old = ours(source)
    our_steps(old, range(5))
    saved = stored(old.state_dict())
    for target in [kind for kind in KINDS if KINDS[kind][0] == KINDS[source][0]]:
        has, keeps = KINDS[source][2], KINDS[target][2]
        optim, twin = ours(target), ours(target)
        for one in (optim, twin):
            our_steps(one, range(3))
        if KINDS[source][1] != KINDS[target][1]:
            check_refused(optim, twin, saved, "error")
        model, reference = plain(target)
        model.load_state_dict(optim.model.state_dict())
        by_index = {
            i: saved["optimizer"]["state"].get(f"{n}.weight", {}) for i, n in enumerate(("one", "two"))
        }
        theirs = {
            "state": edited(by_index, target) if has else {},
            "param_groups": reference.state_dict()["param_groups"],
        }
        reference.load_state_dict(copy.deepcopy(theirs))
        caplog.clear()
        with caplog.at_level(logging.WARNING, "optimscheduler"):
            optim.load_state_dict(saved, "config")
        for key in keeps - has if has else ():
            assert (
                f"{key} (one.weight, two.weight) is not in the checkpoint; {KINDS[target][0]} begins it anew"
                in caplog.text
            )
        for key in has - keeps:
            assert f"{key} (one.weight, two.weight) is of no use to {KINDS[target][0]} here" in caplog.text
        assert ("all of it begins anew" in caplog.text) == bool(keeps and not has)
        plain_steps(model, reference, range(5, 15))
        our_steps(optim, range(5, 15))
        same(optim, model)


def test_the_message_lists_what_is_missing_and_too_much() -> None:
    model, theirs = plain("Adam, amsgrad")
    plain_steps(model, theirs, range(2))
    assert refused(ours("Adam"), stored(theirs.state_dict())) == (
        "Adam with the settings it has here cannot go on with this optimizer state:\n"
        "  too much: max_exp_avg_sq (one.weight, two.weight)\n"
        "on_mismatch='config' begins anew what is missing, and leaves out what is too much"
    )
    assert refused(ours("RMSprop"), stored(theirs.state_dict()), "config") == (
        "RMSprop with the settings it has here cannot go on with this optimizer state:\n"
        "  missing: square_avg (one.weight, two.weight)\n"
        "  too much: exp_avg (one.weight, two.weight)\n"
        "  too much: exp_avg_sq (one.weight, two.weight)\n"
        "  too much: max_exp_avg_sq (one.weight, two.weight)"
    )

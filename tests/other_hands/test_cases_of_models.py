"""R35, R42, R44, R46: models and settings that people bring, each of which torch's default takes."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import (
    GraphError,
    OptimScheduler,
    OptimSchedulerDict,
    OptimSchedulerError,
)
from tests.other_hands.cases import LAYOUTS, apart

pytestmark = pytest.mark.parametrize("layout", LAYOUTS)

CLOSE = 1e-6  # sums in another order, and a fused kernel; float32
PLAIN: dict[str, Any] = {"use_amp": False, "grad_clip": None}


def step(optim: OptimScheduler, loss_of: Any, *inputs: Any) -> None:  # Any: models take what they take
    with optim.forward():
        loss = loss_of(*inputs)
    optim.step({"loss": loss})


def refusal(do: Callable[[], object]) -> str:
    """What the library answers, if it refuses; otherwise nothing."""
    try:
        do()
    except OptimSchedulerError as error:
        return str(error)
    return ""


# ---- two modules, one OptimScheduler each ----


def _actor_critic(layout: str | None) -> nn.Module:
    """Three rounds; None is torch."""
    torch.manual_seed(0)
    critic, actor = nn.Linear(2, 1).double(), nn.Linear(1, 1).double()
    for_each = [critic, actor]
    optims: list[Any] = (
        [OptimScheduler("SGD", {"lr": 0.1}, m, layout=layout, **PLAIN) for m in for_each]
        if layout
        else [torch.optim.SGD(m.parameters(), lr=0.1) for m in for_each]
    )
    for round_ in range(1, 4):
        s = torch.full((4, 1), float(round_), dtype=torch.float64)
        losses = [
            lambda s=s: (critic(torch.cat([s, s], 1)) - 1).square().mean(),
            lambda s=s: -critic(torch.cat([s, actor(s)], 1)).mean(),
        ]
        for optim, loss_of in zip(optims, losses, strict=True):
            if layout:
                step(optim, loss_of)
            else:
                optim.zero_grad()
                loss_of().backward()
                optim.step()
    return nn.ModuleList(for_each)


def test_R42_the_actors_loss_leaves_no_gradient_in_the_critic(layout: str) -> None:
    assert apart(_actor_critic(layout), _actor_critic(None)) < 1e-9


# ---- parameters that are replaced, frozen, not there yet ----


class Points(nn.Module):
    """As many as there are."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(2, 3))
        self.c = nn.Parameter(torch.ones(3))

    def forward(self) -> Tensor:
        loss: Tensor = (self.c * self.x - 2).square().mean()
        return loss


def _grow(model: Points, optimizer: torch.optim.Optimizer) -> None:
    old, own = model.x, optimizer.param_groups[0]["params"]
    at = next(i for i, p in enumerate(own) if p is old)
    state = optimizer.state.pop(old)
    model.x = own[at] = nn.Parameter(torch.cat([old.detach(), old.detach()[:1]]))
    optimizer.state[model.x] = {k: torch.cat([v, 0 * v[:1]]) if v.ndim else v for k, v in state.items()}


def test_R44_a_parameter_replaced_in_model_and_optimizer(layout: str) -> None:
    """It is trained as by torch, or the next step says what to do."""
    model, other = Points(), Points()
    optim = OptimScheduler("Adam", {"lr": 0.1}, model, layout=layout, **PLAIN)
    optimizer = torch.optim.Adam(other.parameters(), lr=0.1)
    for number in range(8):
        if number == 3:
            _grow(model, optim.optimizer)
            _grow(other, optimizer)
        if told := refusal(lambda: step(optim, model)):
            assert number == 3
            assert "x" in told
            return
        other().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert model.x.grad is None
    assert apart(model, other) < CLOSE


def test_R44_a_member_with_everything_frozen_stands_still(layout: str) -> None:
    """As one side of a GAN does while the other is trained; or an error names it, and `only`."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"G": nn.Linear(2, 3), "D": nn.Linear(3, 1)})
    optims = OptimSchedulerDict(
        {
            name: OptimScheduler(
                "Adam", {"lr": 0.01}, model, optim_loss=name, updated_modules=name, layout=layout, **PLAIN
            )
            for name in "GD"
        }
    )
    for still, moving in ("DG", "GD"):
        model[moving].requires_grad_(True)
        model[still].requires_grad_(False)
        before = {name: model[name].weight.detach().clone() for name in "GD"}
        with optims.forward():
            score = model["D"](model["G"](torch.ones(4, 2))).mean()
        losses = {"G": -score, "D": score}
        if told := refusal(lambda losses=losses: optims.step(losses)):
            assert re.search(rf"\b{still}\b.*only|only.*\b{still}\b", told)
            return
        assert torch.equal(model[still].weight, before[still])
        assert not torch.equal(model[moving].weight, before[moving])


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_R46_a_lazy_layer(layout: str) -> None:
    """It is trained as by torch's default, or the message says to run a batch first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    make = functools.partial(OptimScheduler, "SGD", {"lr": 0.01}, model, layout=layout, **PLAIN)
    if told := refusal(make):
        assert re.search(r"lazy.*batch", told, re.IGNORECASE)
        return
    optim = make()
    step(optim, lambda: model(torch.ones(1, 2)).sum())
    bias = model[1].bias.detach().clone()
    step(optim, lambda: model(torch.ones(1, 2)).sum())
    torch.testing.assert_close(model[1].bias.detach(), bias - 0.01)


def test_R35_a_state_loads_where_a_frozen_module_is_gone(layout: str) -> None:
    """A teacher, which has no state: nothing is missing."""

    def student(teacher: bool) -> nn.ModuleDict:
        torch.manual_seed(0)
        parts = {"student": nn.Linear(2, 2), "teacher": nn.Linear(2, 2).requires_grad_(False)}
        return nn.ModuleDict(parts if teacher else {"student": parts["student"]})

    model = student(teacher=True)
    optim = OptimScheduler("AdamW", {"lr": 0.01}, model, layout=layout, use_amp=False)
    step(optim, lambda: model["student"](torch.ones(1, 2)).sum())
    other = student(teacher=False)
    loaded = OptimScheduler("AdamW", {"lr": 0.01}, other, layout=layout, use_amp=False)
    loaded.load_state_dict(optim.state_dict(), "config")
    mine, theirs = loaded.optimizer.state[other["student"].weight], optim.optimizer.state
    assert torch.equal(mine["exp_avg"], theirs[model["student"].weight]["exp_avg"])


# ---- what is said ----


@pytest.mark.parametrize("cause", ["state", "backward"])
def test_R44_a_graph_that_was_used_up_is_explained_for_a_single_object(cause: str, layout: str) -> None:
    """A recurrent state that is carried on without `detach()`; a `backward()` of one's own before."""
    model = nn.GRU(2, 2)
    optim = OptimScheduler("SGD", {"lr": 0.1}, model, use_amp=False, layout=layout)
    state = None
    with pytest.raises(GraphError) as caught:
        for _ in range(2):
            with optim.forward():
                out, state = model(torch.ones(3, 1, 2), state)
                loss = out.sum()
            if cause == "backward":
                loss.backward()
            optim.step({"loss": loss})
    told = {"state": r"detach", "backward": r"backward\(\)"}
    assert re.search(told[cause], str(caught.value))
    assert "OptimSchedulerDict" not in str(caught.value)


def _losses(layout: str, outer: bool) -> list[float]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    conf = {"use_amp": "bf16", "grad_clip": None, "layout": layout}
    optim, found = OptimScheduler("SGD", {"lr": 0.5}, model, **conf), []
    with optim.autocast() if outer else contextlib.nullcontext():
        for _ in range(4):
            with optim.forward():
                loss = model(torch.ones(2, 4)).square().mean()
            found.append(loss.item())
            optim.step({"loss": loss})
    return found


def test_R44_a_loop_inside_one_autocast_sees_the_updates(
    layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Or it is said that autocast keeps the old weights."""
    alone, inside = _losses(layout, outer=False), _losses(layout, outer=True)
    assert alone[-1] < alone[0]
    assert inside == alone or sum("autocast" in message for message in caplog.messages) == 1

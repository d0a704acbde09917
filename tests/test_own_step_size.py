"""Optimizers that compute their own step size, as Adafactor with `relative_step`: there is no lr to drive."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler import ConfigError, Noamlr, OptimScheduler
from tests.cases_optimizers import Adaptive


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def data(count: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(6)
    return [torch.randn(5, 4, generator=g) for _ in range(count)]


def of_transformers() -> type[Optimizer]:
    found: type[Optimizer] = pytest.importorskip("transformers").Adafactor
    return found


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(
    "conf", [{}, {"lr": None}, {"relative_step": False, "lr": 1e-2}], ids=["own", "None", "given"]
)
def test_it_is_trained_and_resumed_as_in_a_plain_loop(conf: dict[str, Any], real: bool) -> None:
    kind = of_transformers() if real else Adaptive
    model, twin = net(), net()
    described: dict[str, Any] = {"optim_type": kind, "optim_conf": conf, "use_amp": False, "accum_grad": 2}
    optim = OptimScheduler(model=model, **described)
    optimizer = kind(twin.parameters(), **conf)  # type: ignore[call-arg]  # theirs
    for n, x in enumerate(data(10)):
        if n == 5:
            state = copy.deepcopy(optim.state_dict())
            model = copy.deepcopy(model)
            optim = OptimScheduler(model=model, **described)
            optim.load_state_dict(state)
        report = optim.step(model(x).square().mean())
        twin(x).square().mean().backward()
        if n % 2:
            for p in twin.parameters():
                p.grad /= 2
            nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), twin.parameters(), strict=True))
    assert not torch.equal(model[0].weight, net()[0].weight)
    rate = conf.get("lr")
    assert [report.lr, optim.get_lr()] == pytest.approx([rate or math.nan] * 2, nan_ok=True)
    assert optim.optimizer.param_groups[0]["lr"] == rate, "nothing is written"
    assert "lr nan" in str(report) or rate


def test_other_numbers_may_be_driven() -> None:
    conf = {"optim_type": Adaptive, "optim_conf": {}, "use_amp": False}
    optim = OptimScheduler(model=(model := net()), **conf)
    optim.optimizer.param_groups[0]["weight_decay"] = 0.1
    optim = OptimScheduler.from_optimizer(
        optim.optimizer, model, use_amp=False, schedules={"weight_decay": "Linear(steps=4)"}
    )
    held = []
    for x in data(3):
        optim.step(model(x).square().mean())
        held.append(optim.optimizer.param_groups[0]["weight_decay"])
    assert held == pytest.approx([0.1, 0.075, 0.05])


def test_one_that_was_handed_in_is_left_alone_too() -> None:
    model, twin = net(), net()
    optim = OptimScheduler.from_optimizer(Adaptive(model.parameters()), model, use_amp=False, grad_clip=None)
    optimizer = Adaptive(twin.parameters())
    for x in data(3):
        optim.step(model(x).square().mean())
        twin(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), twin.parameters(), strict=True))
    named = OptimScheduler(Adaptive, {}, net(), use_amp=False, grad_clip=None)
    named.load_state_dict(optim.state_dict())
    assert named.optimizer.state_dict()["state"][0]["step"] == 3


NOTHING = (
    "optim_conf: Adaptive sets its own step size here (relative_step) and reads no lr, so {} has nothing to "
    "drive. Leave that out, or write optim_conf: {{lr: 1e-3, relative_step: false}}"
)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"schedule": "Cosine(steps=100)"}, NOTHING.format("Cosine(steps=100)")),
        ({"ft_factor": 0.5}, NOTHING.format("ft_factor=0.5")),
        (
            {"param_groups": [{"ndim": 2, "schedule": "Linear(steps=3)"}]},
            NOTHING.format("the rule 'ndim ==2' of param_groups"),
        ),
        (
            {"param_groups": [{"ndim": 2, "lr": 0.1}]},
            "param_groups: the rule 'ndim ==2': Adaptive refuses this",
        ),
        (
            {"param_groups": [{"ndim": 2, "lr": 0.1, "relative_step": False}]},
            "param_groups: Adaptive sets its own step size in group 0 and is given an lr for group 1",
        ),
        (
            {"optim_conf": {"relative_step": False}},
            "optim_conf: Adaptive needs an lr, which is missing; with relative_step=True it would set its",
        ),
        ({"optim_conf": {"lr": 0}}, "optim_conf: lr must be a finite number > 0, got 0"),
    ],
)
def test_what_would_drive_nothing_says_what_to_type(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OptimScheduler(**{"optim_type": Adaptive, "optim_conf": {}, "model": net(), **more})
    assert str(caught.value).startswith(message)


def test_a_subclass_that_computes_an_lr_is_told_too() -> None:
    with pytest.raises(ConfigError, match=r"so Noamlr\.update_lr has nothing to drive"):
        Noamlr(Adaptive, {}, net(), warmup_steps=10)


def test_an_lr_that_is_not_read_is_refused() -> None:
    """As pytorch_optimizer's: lr has a default, and relative_step, which ignores it, is True by default."""

    class Ignoring(Adaptive):
        def __init__(self, params: Any, lr: float = 1e-3, relative_step: bool = True) -> None:
            super().__init__(params, None if relative_step else lr, relative_step)
            for group in self.param_groups:
                group["lr"] = lr

    with pytest.raises(
        ConfigError, match=r"^optim_conf: lr: with relative_step=True Ignoring sets its own step"
    ):
        OptimScheduler(Ignoring, {"lr": 1e-3}, net())
    with pytest.raises(ConfigError, match="has nothing to drive"):
        OptimScheduler(Ignoring, {}, net(), schedule="Cosine(steps=100)")
    assert math.isnan(OptimScheduler(Ignoring, {}, net()).get_lr())

"""R36: the origin's state, and a plain torch optimizer's."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from tests.cases_models import a_model, assert_same, batches, optim_of, refused, stored

DATA = batches(8)


@pytest.mark.parametrize("wrapped", ["plain", "origin", "origin without scaler"])
@pytest.mark.parametrize("use_amp", [False, "fp16"])
def test_R36_the_origins_state_and_a_plain_optimizers_are_taken(wrapped: str, use_amp: Any) -> None:
    model = a_model()
    theirs = torch.optim.Adam(model.parameters(), lr=0.5)
    (model(DATA[0][0]).sum()).backward()
    theirs.step()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(1))
    state: Any = {
        "plain": theirs.state_dict(),
        "origin": {"optimizer": theirs.state_dict(), "scaler": scaler.state_dict()},
        "origin without scaler": {"optimizer": theirs.state_dict(), "scaler": None},
    }[wrapped]
    rules = [{"ndim": "<2", "weight_decay": 0.1}]
    optim = optim_of(a_model(), "Adam", 0.25, use_amp=use_amp, param_groups=rules)
    optim.load_state_dict(stored(state))
    for (name, p), q in zip(model.named_parameters(), optim.model.parameters(), strict=True):
        assert_same(dict(optim.optimizer.state[q]), dict(theirs.state[p]))
        assert theirs.state[p], name
    assert [group["lr"] for group in optim.optimizer.param_groups] == [0.25, 0.25], "ours, not theirs"
    assert [group["weight_decay"] for group in optim.optimizer.param_groups] == [0.0, 0.1]
    if optim.scaler is not None:
        assert optim.scaler.get_scale() == (8.0 if wrapped == "origin" else 65536.0)


def test_R36_a_state_without_a_clock_is_said_to_have_none(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "optimscheduler"):
        optim = optim_of(a_model())
        optim.load_state_dict(torch.optim.SGD(a_model().parameters(), lr=0.1).state_dict())
    assert caplog.messages == [
        "this state has no clock: give step_num, or the schedule begins at real step 1"
    ]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"model": 1, "epoch": 2}, "this is no optimizer state: its keys are ['epoch', 'model']"),
        ({"optimizer": [1]}, "this is no optimizer state: its keys are ['optimizer']"),
        ({}, "this is no optimizer state: its keys are []"),
    ],
)
def test_R36_what_is_no_state_is_refused(state: dict[str, Any], message: str) -> None:
    assert refused(optim_of(a_model()), state) == message


def test_R36_a_plain_optimizer_over_other_parameters_is_refused() -> None:
    theirs = torch.optim.Adam(nn.Linear(2, 2).parameters())
    message = refused(optim_of(a_model(), "Adam"), theirs.state_dict())
    assert message.startswith(
        "this optimizer state (2 parameters, groups: 1) does not fit the 6 parameters owned here"
    )

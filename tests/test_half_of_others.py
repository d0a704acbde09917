"""R26, R44: float16 that somebody else casts to, with nothing that scales the loss, is said once."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor

from optimscheduler import OptimSchedulerDict
from tests.cases_models import TwoParts, optim_of

HALF = "and nothing scales the loss: gradients below 6e-8 become 0. Write use_amp='fp16', which"


class Casting(TwoParts):
    """Casts by itself, in its forward pass, as a host makes it do."""

    dtype: torch.dtype | None = torch.float16

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        with cast_to(self.dtype):
            losses = super().forward(x)
        return {name: loss.float() for name, loss in losses.items()}


def cast_to(dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "float16" in record.getMessage()]


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "optimscheduler")


@pytest.mark.parametrize("accum_grad", [1, 3])
@pytest.mark.parametrize("use_amp", [False, True, "bf16"])
@pytest.mark.parametrize("where", ["inside", "around"])
def test_R26_a_cast_to_float16_without_a_loss_scale_is_said_once(
    caplog: pytest.LogCaptureFixture, where: str, use_amp: object, accum_grad: int
) -> None:
    model = Casting()
    model.dtype = torch.float16 if where == "inside" else None
    optim = optim_of(model, use_amp=use_amp, accum_grad=accum_grad)
    for _ in range(4):
        with optim.forward(), cast_to(torch.float16 if where == "around" else None):
            losses = model(torch.ones(2, 3))
        optim.step(losses)
    (line,) = told(caplog)
    assert HALF in line


def test_R26_a_cast_that_begins_later_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    model = Casting()
    optim = optim_of(model)
    for number in range(40):
        model.dtype = torch.float16 if number >= 20 else None
        assert not told(caplog) or number > 20
        optim.step(model(torch.ones(2, 3)))
    assert len(told(caplog)) == 1


def test_R26_members_of_one_model_say_it_once(caplog: pytest.LogCaptureFixture) -> None:
    model = Casting()
    members = {part: optim_of(model, updated_modules=part) for part in ("encoder", "decoder")}
    optims = OptimSchedulerDict(members)
    for _ in range(3):
        optims.step(model(torch.ones(2, 3)))
    assert len(told(caplog)) == 1


@pytest.mark.parametrize(
    ("dtype", "use_amp"), [(torch.float16, "fp16"), (torch.bfloat16, False), (None, False), (None, "fp16")]
)
def test_R26_where_the_loss_is_scaled_or_nothing_is_float16_nothing_is_said(
    caplog: pytest.LogCaptureFixture, dtype: torch.dtype | None, use_amp: object
) -> None:
    model = Casting()
    model.dtype = dtype
    optim = optim_of(model, use_amp=use_amp)
    for _ in range(3):
        with optim.forward():
            losses = model(torch.ones(2, 3))
        optim.step(losses)
    assert not told(caplog)


def test_R26_a_model_whose_weights_are_float16_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    model = TwoParts().half()
    optim = optim_of(model)
    optim.step(model(torch.ones(2, 3, dtype=torch.float16)))
    assert not told(caplog)


def test_R26_autocast_for_validation_alone_is_no_training(caplog: pytest.LogCaptureFixture) -> None:
    model = Casting()
    model.dtype = None
    optim = optim_of(model)
    optim.step(model(torch.ones(2, 3)))
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        model(torch.ones(2, 3))
    optim.step(model(torch.ones(2, 3)))
    assert not told(caplog)

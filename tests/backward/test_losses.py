"""R06, R08: the loss and its weight, picked out of what a model returned."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from optimscheduler.backward.losses import by_name, pick_loss, pick_weight
from optimscheduler.errors import ConfigError, LossNotFound

LOSS = torch.tensor(2.0, requires_grad=True)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_R06_a_loss_of_one_element_is_a_scalar(shape: tuple[int, ...]) -> None:
    loss = torch.full(shape, 2.0, requires_grad=True)
    picked = pick_loss({"accuracy": torch.tensor(1.0), "loss": loss}, "loss")
    assert picked.shape == ()
    picked.backward()  # type: ignore[no-untyped-call]
    assert loss.grad is not None
    assert loss.grad.shape == shape


def test_R06_a_missing_name_lists_the_names_there_are() -> None:
    with pytest.raises(LossNotFound) as caught:
        pick_loss({"loss_asr": LOSS, "accuracy": LOSS}, "loss")
    assert str(caught.value) == (
        "there is no loss 'loss' among those given (optim_loss). "
        "Did you mean 'loss_asr'? Known: accuracy, loss_asr."
    )
    with pytest.raises(LossNotFound, match=r"There are none\.$"):
        pick_loss({}, "loss")


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (LOSS, "losses must be a mapping of names to scalar tensors, got Tensor; write step({'loss': loss})"),
        ([LOSS], "losses must be a mapping of names to scalar tensors, got list; write step({'loss': loss})"),
        ({"loss": LOSS.expand(3)}, "loss 'loss' must be a scalar tensor, got shape (3,)"),
        ({"loss": LOSS.expand(0)}, "loss 'loss' must be a scalar tensor, got shape (0,)"),
        ({"loss": 2.0}, "loss 'loss' must be a scalar tensor, got float; take its mean() or sum()"),
        ({"loss": None}, "loss 'loss' must be a scalar tensor, got NoneType; take its mean() or sum()"),
        ({"loss": LOSS.detach()}, "loss 'loss' needs no gradient: was it detached, computed under no_grad()"),
    ],
)
def test_R06_what_is_no_loss_is_said_to_be_none(losses: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pick_loss(losses, "loss")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("weight", "picked"),
    [
        (None, None),
        (3, 3.0),
        (2.5, 2.5),
        (0, 0.0),
        (torch.tensor(7), 7.0),
        (torch.tensor([7.0]), 7.0),
        ({"loss": 4, "other": 5}, 4.0),
        ({"loss": None}, None),
    ],
)
def test_R08_a_weight_is_a_number_of_items(weight: Any, picked: float | None) -> None:
    found = pick_weight(weight, "loss")
    assert found == picked
    assert not isinstance(found, Tensor)


def test_R08_a_weight_on_a_device_stays_there() -> None:
    weight = torch.tensor([3], device="meta")  # stands for an accelerator: its value cannot be read
    found = pick_weight(weight, "loss")
    assert isinstance(found, Tensor)
    assert (found.device.type, found.shape, found.dtype) == ("meta", (), torch.float32)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-1, "weight of loss 'loss' must be a finite number >= 0, got -1"),
        (math.nan, "weight of loss 'loss' must be a finite number >= 0, got nan"),
        (math.inf, "weight of loss 'loss' must be a finite number >= 0, got inf"),
        (torch.tensor(math.nan), "weight of loss 'loss' must be a finite number >= 0, got nan"),
        ("3", "weight of loss 'loss' must be a finite number >= 0, got '3'; write it without quotes"),
        (torch.ones(2), "weight of loss 'loss' must be one number, got shape (2,)"),
        ({"los": 3}, "weight: there is none for loss 'loss'. Did you mean 'los'? Known: los."),
    ],
)
def test_R08_what_is_no_weight_is_said_to_be_none(weight: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pick_weight(weight, "loss")
    assert str(caught.value) == message


# ---- one tensor ----


def test_R06_one_tensor_is_the_loss_that_everybody_wants() -> None:
    assert by_name(LOSS, {"a": "ctc"}) == {"ctc": LOSS}
    assert by_name(LOSS, {"a": "ctc", "b": "ctc"}) == {"ctc": LOSS}
    losses = {"ctc": LOSS}
    assert by_name(losses, {"a": "ctc", "b": "att"}) is losses


def test_R06_one_tensor_is_not_several_losses() -> None:
    with pytest.raises(ConfigError) as caught:
        by_name(LOSS, {"a": "ctc", "b": "att"})
    assert str(caught.value) == (
        "losses: one tensor was given, and several losses are optimised: 'ctc' (of 'a'), 'att' (of 'b'); "
        "give a dict of them, name -> loss"
    )

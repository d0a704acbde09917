"""R12, R13: windows that end early, and updates that come too early."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import OptimScheduler
from tests.cases_models import (
    a_model,
    assert_close,
    assert_same,
    batches,
    by_hand,
    forgotten,
    frozen,
    mse,
    optim_of,
    take,
    train,
    weights,
)

F64 = torch.float64
DATA = batches(12, dtype=F64)


def an_optim(**arguments: Any) -> OptimScheduler:
    return optim_of(a_model(dtype=F64), **arguments)


@pytest.mark.parametrize("fused", [True, False])
def test_R13_flush_and_last_give_the_same_weights(fused: bool) -> None:
    flushed, told = (an_optim(accum_grad=3, conf={"fused": fused}) for _ in range(2))
    for optim in (flushed, told):
        train(optim, DATA[:4])
    take(flushed, DATA[4])
    report = flushed.flush()
    with told.forward(last=True):
        loss = mse(told.model, DATA[4])
    last = told.step({"loss": loss})
    assert report is not None
    assert report.read() == last.read()
    assert (last.completes, last.batches, last.real_step) == (True, 2, 2)
    for optim in (flushed, told):
        assert [r.real_step for r in train(optim, DATA[5:9])] == [3, 3, 3, 4]
    assert_same(weights(flushed.model), weights(told.model))
    assert_close(told.model, by_hand([DATA[:3], DATA[3:5], DATA[5:8]]))


@pytest.mark.parametrize("done", [0, 2])
def test_R13_with_nothing_pending_flush_does_nothing(done: int) -> None:
    optim = an_optim(accum_grad=2)
    train(optim, DATA[:done])
    before = frozen(optim)
    assert optim.flush() is None
    assert_same(frozen(optim), before)


class Broken(torch.autograd.Function):
    """A backward that fails when some gradients are there already."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: Any, _gradient: Tensor) -> Tensor:
        raise RuntimeError("out of luck")


def test_R13_a_failing_backward_drops_the_window_and_training_goes_on_right() -> None:
    optim = an_optim(accum_grad=3)
    take(optim, DATA[0])
    before = weights(optim.model)
    model = optim.model
    assert isinstance(model, nn.Sequential)
    first, rest = model[0], model[1:]
    out = rest(Broken.apply(first(DATA[1][0])))  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="out of luck"):
        optim.step({"loss": (out - DATA[1][1]).square().mean()})
    assert forgotten(optim.model)
    assert_same(weights(optim.model), before)
    reports = train(optim, DATA[2:4])  # as batches 2 and 3, which end the window
    assert [(r.batch, r.batches, r.updated) for r in reports] == [(2, 1, False), (3, 2, True)]
    train(optim, DATA[4:7])
    assert_close(optim.model, by_hand([DATA[2:4], DATA[4:7]]))


@pytest.mark.parametrize("fused", [True, False])
def test_R12_an_update_between_a_forward_and_its_backward_fails_loudly(fused: bool) -> None:
    optim = an_optim(accum_grad=2, conf={"fused": fused})
    take(optim, DATA[0])
    loss = mse(optim.model, DATA[1])
    optim.flush()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        optim.step({"loss": loss})
    assert forgotten(optim.model)
    train(optim, DATA[2:4])
    assert_close(optim.model, by_hand([DATA[:1], DATA[2:4]]))

"""R10, R12, R29: a graph that is used again after it was freed, or after weights in it have moved."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor

from optimscheduler import GraphError
from tests.cases_models import TwoParts, optim_of


def test_R29_stepping_members_one_by_one_over_a_shared_graph_points_to_the_dict() -> None:
    model = TwoParts()
    optims = [optim_of(model, updated_modules=part) for part in ("encoder", "decoder")]
    losses = model(torch.ones(1, 3))
    optims[0].step(losses)
    with pytest.raises(
        GraphError, match=r"^the backward of loss 'loss' came too late: .* OptimSchedulerDict"
    ):
        optims[1].step(losses)


def test_R12_a_graph_whose_weights_have_moved_points_to_the_dict() -> None:
    model = TwoParts()
    optims = [optim_of(model, updated_modules=part) for part in ("decoder", "encoder")]
    losses = model(torch.ones(1, 3))
    losses["loss"].backward(retain_graph=True)  # the graph itself is kept
    optims[0].step({"loss": model(torch.ones(1, 3))["loss"]})
    with pytest.raises(GraphError, match="modified by an inplace operation"):
        optims[1].step(losses)


def test_another_failure_of_a_backward_stays_what_it_is() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            raise RuntimeError("of the user's own")

    model = TwoParts()
    optim = optim_of(model)
    with pytest.raises(RuntimeError, match="of the user's own") as error:
        optim.step({"loss": Broken.apply(model(torch.ones(1, 3))["loss"])})
    assert type(error.value) is RuntimeError


# ---- a graph that was used before, with one OptimScheduler ----


@pytest.mark.parametrize("how", ["state", "backward", "old loss"])
def test_R12_with_one_optimscheduler_the_message_names_the_causes_that_fit(how: str) -> None:
    gc.collect()  # those of other tests
    torch.manual_seed(0)
    model, state, kept = torch.nn.GRU(2, 2), None, None
    optim = optim_of(model)
    with pytest.raises(GraphError, match="came too late") as told:
        for _ in range(3):
            with optim.forward():
                out, state = model(torch.ones(3, 1, 2), state if how == "state" else None)
                loss = out.sum()
            if how == "backward":
                loss.backward()
            kept = loss if kept is None else kept
            optim.step({"loss": kept if how == "old loss" else loss})
    text = str(told.value)
    assert "OptimSchedulerDict" not in text
    for cause in ("Write state.detach()", "loss.backward() called before step()", "before the last update"):
        assert cause in text


def test_R29_with_several_the_message_names_those_causes_too() -> None:
    model = TwoParts()
    optims = [optim_of(model, updated_modules=part) for part in ("encoder", "decoder")]
    losses = model(torch.ones(1, 3))
    optims[0].step(losses)
    with pytest.raises(GraphError, match=r"OptimSchedulerDict.*state\.detach\(\)"):
        optims[1].step(losses)

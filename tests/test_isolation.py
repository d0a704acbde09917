"""R09: a backward that touches the gradients of its owner and of nobody else, whatever the graph is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from optimscheduler.isolation import ByInputs, ByStashing, Isolation, WholeModel, isolation_for
from tests.cases_models import TwoParts

RUNS: dict[str, Callable[..., Any] | None] = {
    "plain": None,
    "non-reentrant": partial(checkpoint, use_reentrant=False),
    "reentrant": partial(checkpoint, use_reentrant=True),
}


def an_input() -> Tensor:
    return torch.arange(6.0).reshape(2, 3).requires_grad_()  # reentrant checkpoints need an input's gradient


def gradients(part: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in part.parameters()]


def expected(part: str) -> list[Tensor]:
    """The gradients of that part, from a plain backward without checkpoints."""
    model = TwoParts()
    model(an_input())["loss"].backward()
    return [p.grad for p in getattr(model, part).parameters()]


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize(("ours", "foreign"), [("encoder", "decoder"), ("decoder", "encoder")])
@pytest.mark.parametrize("planted", [True, False])
def test_R09_foreign_gradients_are_untouched_and_own_ones_complete(
    run: Any, ours: str, foreign: str, planted: bool
) -> None:
    model = TwoParts(run)
    kept = [torch.full_like(p, 7.0) if planted else None for p in getattr(model, foreign).parameters()]
    for p, gradient in zip(getattr(model, foreign).parameters(), kept, strict=True):
        p.grad = gradient
    versions = [gradient._version for gradient in kept if gradient is not None]
    isolation = isolation_for(list(model.parameters()), list(getattr(model, ours).parameters()))
    for times in (1, 2):  # the second adds to the first
        isolation.backward(model(an_input())["loss"])
        for found, wanted in zip(gradients(getattr(model, ours)), expected(ours), strict=True):
            assert found is not None
            torch.testing.assert_close(found, times * wanted)
    assert all(a is b for a, b in zip(gradients(getattr(model, foreign)), kept, strict=True))
    assert [gradient._version for gradient in kept if gradient is not None] == versions


def test_R09_the_owner_of_everything_runs_a_plain_backward() -> None:
    model = TwoParts()
    isolation = isolation_for(list(model.parameters()), list(model.parameters()))
    assert isinstance(isolation, WholeModel)
    isolation.backward(model(an_input())["loss"])
    for part in ("encoder", "decoder"):
        for found, wanted in zip(gradients(getattr(model, part)), expected(part), strict=True):
            assert found is not None
            assert torch.equal(found, wanted)


def test_R09_a_part_asks_for_its_inputs_until_a_graph_is_reentrant() -> None:
    model = TwoParts()
    isolation = isolation_for(list(model.parameters()), list(model.encoder.parameters()))
    assert isinstance(isolation, ByInputs)
    isolation.backward(model(an_input())["loss"])
    assert not isolation._reentrant
    model._run = RUNS["reentrant"]
    isolation.backward(model(an_input())["loss"])
    assert isolation._reentrant


def test_R09_a_frozen_own_parameter_is_no_obstacle() -> None:
    model = TwoParts()
    model.encoder[0].bias.requires_grad_(False)
    isolation_for(list(model.parameters()), list(model.encoder.parameters())).backward(
        model(an_input())["loss"]
    )
    assert model.encoder[0].weight.grad is not None
    assert model.encoder[0].bias.grad is None


class Broken(torch.autograd.Function):
    """A backward that fails."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: Any, _gradient: Tensor) -> Tensor:
        raise RuntimeError("out of luck")


def test_R09_a_failing_backward_puts_foreign_gradients_back() -> None:
    model = TwoParts()
    kept = [torch.full_like(p, 7.0) for p in model.decoder.parameters()]
    for p, gradient in zip(model.decoder.parameters(), kept, strict=True):
        p.grad = gradient
    loss = Broken.apply(model(an_input())["loss"])  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="out of luck"):
        ByStashing(list(model.decoder.parameters())).backward(loss)
    assert all(a is b for a, b in zip(gradients(model.decoder), kept, strict=True))


@pytest.mark.parametrize("how", ["whole", "inputs", "stashing"])
def test_R10_a_graph_may_be_kept_for_another_backward(how: str) -> None:
    model = TwoParts()
    ours, others = list(model.encoder.parameters()), list(model.decoder.parameters())
    ways: dict[str, Isolation] = {
        "whole": WholeModel(),
        "inputs": ByInputs(ours, others),
        "stashing": ByStashing(others),
    }
    losses = model(an_input())
    ways[how].backward(losses["loss"], retain_graph=True)
    ways[how].backward(losses["other"])
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        ways[how].backward(losses["loss"])

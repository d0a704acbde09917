"""R09: a backward that touches the gradients of its owner and of nobody else, whatever the graph is."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from optimscheduler import GraphError
from optimscheduler._torch_compat import graph_age
from optimscheduler.backward.isolation import ByInputs, ByStashing, Isolation, PastHooks, Way, WholeModel
from optimscheduler.backward.owners import Claim
from tests.cases_models import TwoParts

RUNS: dict[str, Callable[..., Any] | None] = {
    "plain": None,
    "non-reentrant": partial(checkpoint, use_reentrant=False),
    "reentrant": partial(checkpoint, use_reentrant=True),
}


def an_input() -> Tensor:
    return torch.arange(6.0).reshape(2, 3).requires_grad_()  # reentrant checkpoints need an input's gradient


def isolation_of(model: nn.Module, part: nn.Module) -> Isolation:
    return Isolation(Claim(model, [object()]), [list(part.parameters())], "loss")


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
    isolation = isolation_of(model, getattr(model, ours))
    for times in (1, 2):  # the second adds to the first
        isolation.backward(model(an_input())["loss"])
        for found, wanted in zip(gradients(getattr(model, ours)), expected(ours), strict=True):
            assert found is not None
            torch.testing.assert_close(found, times * wanted)
    assert all(a is b for a, b in zip(gradients(getattr(model, foreign)), kept, strict=True))
    assert [gradient._version for gradient in kept if gradient is not None] == versions


def test_R09_the_owner_of_everything_runs_a_plain_backward() -> None:
    gc.collect()  # models of other tests
    model = TwoParts()
    isolation = isolation_of(model, model)
    isolation.backward(model(an_input())["loss"])
    assert isinstance(isolation._way(past_hooks=False), WholeModel)
    for part in ("encoder", "decoder"):
        for found, wanted in zip(gradients(getattr(model, part)), expected(part), strict=True):
            assert found is not None
            assert torch.equal(found, wanted)


def test_R09_a_part_asks_for_its_inputs_until_a_graph_is_reentrant() -> None:
    model = TwoParts()
    isolation = isolation_of(model, model.encoder)
    isolation.backward(model(an_input())["loss"])
    assert isinstance(isolation._way(past_hooks=False), ByInputs)
    model._run = RUNS["reentrant"]
    isolation.backward(model(an_input())["loss"])
    assert isinstance(isolation._way(past_hooks=False), ByStashing)


def test_R09_a_frozen_own_parameter_is_no_obstacle() -> None:
    model = TwoParts()
    model.encoder[0].bias.requires_grad_(False)
    isolation_of(model, model.encoder).backward(model(an_input())["loss"])
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


@pytest.mark.parametrize("how", ["whole", "inputs", "stashing", "past hooks"])
def test_R10_a_graph_may_be_kept_for_another_backward(how: str) -> None:
    model = TwoParts()
    ours, others = list(model.encoder.parameters()), list(model.decoder.parameters())
    ways: dict[str, Way] = {
        "whole": WholeModel(),
        "inputs": ByInputs(ours),
        "stashing": ByStashing(others),
        "past hooks": PastHooks(ours),
    }
    losses = model(an_input())
    ways[how].backward(losses["loss"], retain_graph=True)
    ways[how].backward(losses["other"])
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        ways[how].backward(losses["loss"])


# ---- gradients as values ----


def test_R43_gradients_past_the_hooks_are_those_of_a_backward_in_memory_of_their_own() -> None:
    model, embedding = TwoParts(), nn.Embedding(3, 3, sparse=True)
    heard: list[nn.Parameter] = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(heard.append)
    ours = [*model.encoder.parameters(), embedding.weight]
    for times in (1, 2):
        losses = model(an_input())
        loss = losses["loss"] + embedding(torch.tensor([1])).sum()
        PastHooks(ours).backward(loss)
        for found, wanted in zip(gradients(model.encoder), expected("encoder"), strict=True):
            assert found is not None
            torch.testing.assert_close(found, times * wanted)
        assert embedding.weight.grad is not None
        assert torch.equal(embedding.weight.grad.to_dense(), times * torch.eye(3)[[1]].T.expand(3, 3))
    assert heard == [] == [g for g in gradients(model.decoder) if g is not None]


def test_R43_gradients_past_the_hooks_share_no_memory() -> None:
    one, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    PastHooks([one, other]).backward((one + other).sum())  # autograd hands out one expanded tensor for both
    assert one.grad is not None
    assert other.grad is not None
    one.grad.mul_(5.0)
    assert (one.grad.tolist(), other.grad.tolist()) == ([5, 5, 5], [1, 1, 1])


# ---- reentrant checkpoints that come as a surprise ----


@pytest.mark.parametrize("past_hooks", [True, False])
def test_R09_a_reentrant_checkpoint_that_cannot_give_single_gradients_says_what_to_write(
    past_hooks: bool,
) -> None:
    model = TwoParts(RUNS["reentrant"])
    isolation = isolation_of(model, model.encoder)
    if past_hooks:  # torch would be silent: no gradient that is asked for lies outside
        loss = model(an_input())["loss"]
    else:  # a graph that is taken for another one
        isolation._sight.look = lambda *_: None  # type: ignore[method-assign]
        isolation._sight.has_strays = True
        loss = checkpoint(model.decoder, model.encoder(an_input()), use_reentrant=True).sum()
    with pytest.raises(GraphError, match=r"^the backward of loss 'loss' broke off .* window was dropped"):
        isolation.backward(loss, past_hooks=past_hooks)
    assert gradients(model.encoder) == [None] * 2
    isolation.backward(checkpoint(model.decoder, model.encoder(an_input()), use_reentrant=True).sum())
    assert all(gradient is not None for gradient in gradients(model.encoder))
    assert gradients(model.decoder) == [None] * 2


# ---- parameters of other models ----


class Reaching(nn.Module):
    """An actor whose loss runs through a critic that is none of its own parts."""

    def __init__(self, critic: nn.Module, run: Any = None) -> None:
        super().__init__()
        self.own, self._critic, self._run = nn.Linear(3, 3), [critic], run

    def forward(self, x: Tensor) -> Tensor:
        act = lambda x: self._critic[0](self.own(x))  # noqa: E731
        out: Tensor = act(x) if self._run is None else self._run(act, x)
        return out.sum()


@pytest.mark.parametrize(
    ("run", "claimed"),
    [*((RUNS[name], True) for name in RUNS), (None, False), (RUNS["non-reentrant"], False)],
)  # what nobody has claimed is not seen inside a reentrant checkpoint
def test_R42_gradients_of_other_models_are_untouched(run: Any, claimed: bool) -> None:
    critic = nn.Linear(3, 1)
    actor = Reaching(critic, run)
    claim = Claim(critic, [object()]) if claimed else None
    isolation = isolation_of(actor, actor)
    for _ in range(3):
        since = graph_age()
        isolation.backward(actor(an_input()), since=since)
    assert gradients(critic) == [None, None], claim
    assert all(gradient is not None for gradient in gradients(actor))
    assert len(gradients(actor)) == 2


def test_R42_what_others_have_claimed_is_safe_without_a_look() -> None:
    critic = nn.Linear(3, 1)
    actor, claim = Reaching(critic), Claim(critic, [object()])
    isolation = isolation_of(actor, actor)
    isolation._sight.look = lambda *_: None  # type: ignore[method-assign]
    isolation.backward(actor(an_input()))
    assert gradients(critic) == [None, None], claim
    critic.weight.grad = planted = torch.full((1, 3), 7.0)
    isolation.backward(actor(an_input()))
    assert critic.weight.grad is planted
    assert planted.tolist() == [[7.0] * 3]
    assert critic.bias.grad is None


def test_R42_a_critic_beside_a_reentrant_checkpoint_is_seen_and_set_aside() -> None:
    critic = nn.Linear(3, 1)
    actor = Reaching(critic)
    isolation = isolation_of(actor, actor)
    for _ in range(2):
        inner = checkpoint(actor.own, an_input(), use_reentrant=True)
        isolation.backward(critic(inner).sum())
    assert gradients(critic) == [None, None]
    assert all(gradient is not None for gradient in gradients(actor))


def test_R42_parameters_that_nobody_has_told_us_of_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    critic, claimed, model = nn.Linear(3, 1), nn.Linear(3, 3), TwoParts()
    claim = Claim(claimed, [object()])
    isolation = isolation_of(model, model.encoder)
    isolation.backward(claimed(model.decoder(model.encoder(an_input()))).sum())
    assert caplog.messages == [], claim
    for _ in range(2):
        isolation.backward(critic(model.encoder(an_input())).sum())
    assert caplog.messages == [
        "loss 'loss' also reaches 2 parameters outside the model, of shapes (1,), (1, 3): it gives them no "
        "gradient. If they are to learn from it, make them a part of the model"
    ]


def test_R42_a_copy_of_the_model_and_its_isolation_begins_anew() -> None:
    model = TwoParts(RUNS["reentrant"])
    isolation = isolation_of(model, model.decoder)
    isolation.backward(model(an_input())["loss"])
    twin, isolation_of_twin = copy.deepcopy((model, isolation))
    isolation_of_twin.backward(twin(an_input())["loss"])
    for mine, theirs in zip(gradients(model.decoder), gradients(twin.decoder), strict=True):
        assert mine is not None
        assert theirs is not None
        assert torch.equal(mine, theirs)
    assert gradients(twin.encoder) == [None, None]


def test_R42_inputs_that_are_no_parameters_get_their_gradient() -> None:
    gc.collect()  # models of other tests
    model, x = TwoParts(), an_input()
    isolation_of(model, model).backward(model(x)["loss"])
    assert x.grad is not None

"""R09: through the whole line, only the own gradients are touched, and what is missing is said."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from optimscheduler import OptimScheduler, OptimSchedulerDict
from tests.cases_models import (
    TwoParts,
    a_model,
    assert_same,
    batches,
    frozen,
    mse,
    optim_of,
    take,
    weights,
)

F64 = torch.float64
DATA = batches(12, dtype=F64)


def an_optim(**arguments: Any) -> OptimScheduler:
    return optim_of(a_model(dtype=F64), **arguments)


RUNS = {
    "plain": None,
    "non-reentrant": partial(checkpoint, use_reentrant=False),
    "reentrant": partial(checkpoint, use_reentrant=True),
}


# ---- isolation ----


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("use_amp", [False, "fp16"])
def test_R09_gradients_that_the_caller_left_elsewhere_are_untouched(run: Any, use_amp: Any) -> None:
    model, whole = TwoParts(run), TwoParts()
    for p in model.decoder.parameters():
        p.grad = torch.full_like(p, 5.0)
    planted, before = [p.grad for p in model.decoder.parameters()], weights(model.decoder)
    optim = optim_of(model, updated_modules="encoder", use_amp=use_amp)
    twin = optim_of(whole, use_amp=use_amp)
    for o in (optim, twin):
        if o.scaler is not None:
            o.scaler.value.fill_(256.0)  # the default overflows with so small a model
        with o.forward():
            losses = o.model(torch.ones(2, 3, requires_grad=True))
        assert o.step(losses).read().updated
    assert all(p.grad is kept for p, kept in zip(model.decoder.parameters(), planted, strict=True))
    assert all(torch.equal(kept, torch.full_like(kept, 5.0)) for kept in planted if kept is not None)
    assert_same(weights(model.decoder), before)
    assert_same(weights(model.encoder), weights(whole.encoder))


def test_R09_parameters_without_a_gradient_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 2), **{f"unused{i}": nn.Linear(1, 1) for i in range(3)}})
    model["unused2"].bias.requires_grad_(False)
    optim = optim_of(model, accum_grad=2)
    for batch in batches(4):
        optim.step({"loss": mse(model["used"], batch)})
    assert caplog.messages == [
        "loss 'loss' gives no gradient to 5 of its parameters: "
        "unused0.weight, unused0.bias, unused1.weight, unused1.bias, unused2.weight"
    ]


def test_R09_a_window_of_weight_0_accuses_nobody(caplog: pytest.LogCaptureFixture) -> None:
    take(optim_of(a_model()), batches(1)[0], weight=0)
    assert caplog.messages == []


def test_R09_a_member_without_any_gradient_makes_no_update(caplog: pytest.LogCaptureFixture) -> None:
    model = TwoParts()
    optim = optim_of(model, updated_modules="decoder", use_amp="fp16")
    before = frozen(optim)
    report = optim.step({"loss": model.encoder(torch.ones(1, 3)).sum()}).read()
    assert (report.completes, report.updated, report.skipped, report.grad_norm) == (True, False, False, None)
    assert_same(weights(model), before["model"])
    assert optim.scaler is not None
    assert optim.scaler.state_dict()["_growth_tracker"] == 0  # R27: nothing was learnt about the scale
    assert "gives no gradient to 2 of its parameters" in caplog.text
    assert "nothing is updated: it does not depend on them. Is it the right loss (optim_loss)" in caplog.text


def test_R44_parameters_that_were_replaced_are_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    model = TwoParts()
    optim = optim_of(model)
    model.load_state_dict(model.state_dict(), assign=True)
    assert not optim.step(model(torch.ones(1, 3))).updated
    assert "nothing is updated: the model no longer has them. Put those that replace them" in caplog.text


# ---- members that are frozen ----


@pytest.mark.parametrize("layout", ["flat", "loose"])
def test_R44_a_frozen_member_idles_and_the_others_move(layout: str, caplog: pytest.LogCaptureFixture) -> None:
    model = TwoParts()
    optims = OptimSchedulerDict(
        {
            part: optim_of(model, updated_modules=part, optim_loss=loss, layout=layout)
            for part, loss in {"encoder": "loss", "decoder": "other"}.items()
        }
    )
    for frozen_part in ("decoder", "encoder", "decoder"):
        other = "encoder" if frozen_part == "decoder" else "decoder"
        getattr(model, frozen_part).requires_grad_(False)
        before = {part: weights(getattr(model, part)) for part in optims}
        with optims.forward():
            losses = model(torch.ones(2, 3))
            losses = {**losses, "other": losses["loss"]}
        reports = optims.step(losses)
        assert (reports[frozen_part].updated, reports[other].read().updated) == (False, True)
        assert_same(weights(getattr(model, frozen_part)), before[frozen_part])
        assert not torch.equal(weights(getattr(model, other))["0.weight"], before[other]["0.weight"])
        getattr(model, frozen_part).requires_grad_(True)
    assert [line.split(" (")[0] for line in caplog.messages if "idles" in line] == [
        "OptimScheduler 'decoder' idles: all its 2 parameters are frozen",
        "OptimScheduler 'encoder' idles: all its 2 parameters are frozen",
    ]
    assert all("gives no gradient" not in line for line in caplog.messages)


def test_R44_an_optimscheduler_whose_parameters_were_all_frozen_idles(
    caplog: pytest.LogCaptureFixture,
) -> None:
    optim = optim_of(TwoParts())
    optim.model.requires_grad_(False)
    for _ in range(2):
        report = optim.step(optim.model(torch.ones(1, 3)))
        assert (report.completes, report.updated, report.skipped) == (True, False, False)
    assert caplog.messages == [
        "OptimScheduler 'main' idles: all its 4 parameters are frozen (requires_grad=False). It goes on when "
        "they are not; in alternating training, step(losses, only=[...]) names who takes part"
    ]
    optim.model.requires_grad_(True)
    assert optim.step(optim.model(torch.ones(1, 3))).read().updated


# ---- two models ----


def two_models(ours: bool, plain_critic: bool) -> dict[str, Any]:
    """An actor whose loss runs through a critic; by hand every gradient is zeroed before a backward."""
    torch.manual_seed(0)
    models = {"critic": nn.Linear(2, 1).double(), "actor": nn.Linear(1, 1).double()}
    critic, actor = models.values()
    optims = {
        name: optim_of(model)
        if ours and not (plain_critic and name == "critic")
        else torch.optim.SGD(model.parameters(), lr=0.1)
        for name, model in models.items()
    }
    for batch in range(1, 5):
        s = torch.full((4, 1), float(batch), dtype=F64)
        losses = {
            "critic": lambda s=s: (critic(torch.cat([s, s], 1)) - 1).square().mean(),
            "actor": lambda s=s: -critic(torch.cat([s, actor(s)], 1)).mean(),
        }
        for name, optim in optims.items():
            if isinstance(optim, OptimScheduler):
                with optim.forward():
                    loss = losses[name]()
                optim.step({"loss": loss})
                continue
            if not ours:
                optim.zero_grad()
            losses[name]().backward()
            optim.step()
            if ours:
                optim.zero_grad()
    left = {name: [p.grad for p in model.parameters()] for name, model in models.items()}
    return {"weights": {n: weights(m) for n, m in models.items()}, "left": left}


@pytest.mark.parametrize("plain_critic", [True, False], ids=["plain critic", "critic of ours"])
def test_R42_an_actors_loss_leaves_nothing_in_the_critic(plain_critic: bool) -> None:
    found, expected = two_models(True, plain_critic), two_models(False, plain_critic)
    for name, there in expected["weights"].items():
        assert_same(found["weights"][name], there)
    assert found["left"]["critic"] == [None, None]

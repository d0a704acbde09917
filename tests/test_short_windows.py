"""R12, R13: windows that end early, and updates that come too early."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import ConfigError, OptimScheduler, OptimSchedulerDict, build_optim_sches
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
    stored,
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


# ---- step(last=True), and windows that a host owns ----


def test_R13_step_alone_is_told_that_its_batch_is_the_last() -> None:
    told, twin = an_optim(accum_grad=3), an_optim(accum_grad=3)
    for number, batch in enumerate(DATA[:5], start=1):
        told.step(mse(told.model, batch), last=number == 2)
        take(twin, batch)
        if number == 2:
            twin.flush()
    assert_same(frozen(told), frozen(twin))
    assert told.member.ledger.applied == 2


def test_R13_step_may_repeat_what_forward_was_told() -> None:
    optim = an_optim(accum_grad=2)
    for last in (True, False, False):  # the third is the second of its window
        with optim.forward(last=last):
            loss = mse(optim.model, DATA[0])
        report = optim.step(loss, last=last)
    assert report.completes
    with optim.forward():
        loss = mse(optim.model, DATA[0])
    optim.step(loss)
    with optim.forward():
        loss = mse(optim.model, DATA[0])
    assert optim.step(loss, last=True).completes, "it is full anyway"


@pytest.mark.parametrize("kind", ["one", "dict"])
def test_R13_step_may_not_say_otherwise_than_forward(kind: str) -> None:
    optim: Any = an_optim(accum_grad=2)
    model = optim.model
    optim = OptimSchedulerDict({"main": optim}) if kind == "dict" else optim
    with optim.forward():
        loss = mse(model, DATA[0])
    with pytest.raises(ConfigError) as caught:
        optim.step(loss, last=True)
    assert str(caught.value) == (
        "last: forward() was entered for batch 1 without last=True, step() was given it; say it to forward, "
        "or to step alone where there is no forward()"
    )
    assert forgotten(model)


def hosted(optim: OptimScheduler, data: list[Any], how: str) -> None:
    """A Trainer's loop with windows of 3."""
    for number, batch in enumerate(data, start=1):
        last = number % 3 == 0
        if how == "step":
            optim.step(mse(optim.model, batch), last=last)
            continue
        with optim.forward(last=last and how == "forward"):
            loss = mse(optim.model, batch)
        optim.step(loss)
        if last and how == "flush":
            optim.flush()


@pytest.mark.parametrize("how", ["forward", "step", "flush"])
@pytest.mark.parametrize("step_per_update", [1, 2])
def test_R13_a_host_closes_the_windows(how: str, step_per_update: int) -> None:
    arguments: dict[str, Any] = {"schedule": "Cosine(steps=5)", "step_per_update": step_per_update}
    host, twin = an_optim(accum_grad="host", **arguments), an_optim(accum_grad=3, **arguments)
    hosted(host, DATA, how)
    train(twin, DATA)
    assert_same(weights(host.model), weights(twin.model))
    assert host.get_lr() == twin.get_lr()
    assert host.accum_grad == "host"
    assert host.member.clock.real_step == 4
    assert repr(host) == repr(twin)
    assert host.flush() is None


@pytest.mark.parametrize(("before", "after"), [("host", "host"), ("host", 3), (3, "host")])
@pytest.mark.parametrize("done", [3, 4])
def test_R34_a_host_resumes_at_the_same_real_step(before: Any, after: Any, done: int) -> None:
    twin, first = (an_optim(accum_grad="host", schedule="Cosine(steps=5)") for _ in range(2))
    hosted(twin, DATA, "step")
    first = an_optim(accum_grad=before, schedule="Cosine(steps=5)")
    hosted(first, DATA[:done], "step")
    second = an_optim(accum_grad=after, schedule="Cosine(steps=5)")
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(stored(first.state_dict()), "error" if before == after else "config")
    for number, batch in list(enumerate(DATA, start=1))[done:]:
        second.step(mse(second.model, batch), last=number % 3 == 0)
    assert_same(weights(second.model), weights(twin.model))
    assert second.member.clock.state_dict() == twin.member.clock.state_dict()


def test_a_configuration_may_name_the_host() -> None:
    conf = {"optim_type": "SGD", "optim_conf": {"lr": 0.1}}
    optims = build_optim_sches(a_model(), {"conf": {**conf, "accum_grad": "host"}})
    assert (
        optims["main"].accum_grad
        == build_optim_sches(a_model(), {"conf": conf}, accum_grad="host")["main"].accum_grad
    )
    assert optims["main"].state_dict()["config"]["accum_grad"] == "host"

"""R02, R06 to R09, R12, R13: the line from the losses of a batch to the moved weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from optimscheduler import ConfigError, LossNotFound, OptimScheduler
from optimscheduler.update.apply import Plain
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


# ---- windows ----


def test_R07_a_window_is_the_mean_of_its_means() -> None:
    optim = an_optim(accum_grad=3)
    reports = train(optim, DATA[:6])
    assert [(r.real_step, r.batches, r.completes, r.updated) for r in reports[:4]] == [
        (1, 1, False, False),
        (1, 2, False, False),
        (1, 3, True, True),
        (2, 1, False, False),
    ]
    assert_close(optim.model, by_hand([DATA[:3], DATA[3:6]]))
    losses = [mse(a_model(dtype=F64), batch).item() for batch in DATA[:3]]
    assert reports[2].loss == pytest.approx(sum(losses) / 3, rel=1e-14)
    assert reports[0].grad_norm is None
    assert reports[2].grad_norm is not None


def test_R01_in_an_idle_window_nothing_is_done() -> None:
    optim = an_optim(accum_grad=2, step_per_update=3)
    before = weights(optim.model)
    for batch in DATA[:4]:
        report = take(optim, batch)
        assert (report.completes, report.updated, report.loss, report.batches) == (False, False, None, 0)
        assert forgotten(optim.model)
    assert optim.step({}, step_num=14).real_step == 7, "no loss is asked for"
    assert optim.flush() is None
    assert_same(weights(optim.model), before)


def test_R01_only_active_windows_update() -> None:
    optim = an_optim(accum_grad=2, step_per_update=3)
    reports = train(optim, DATA)  # windows 1 to 6, of which 3 and 6 are active
    assert [r.batch for r in reports if r.updated] == [6, 12]
    assert_close(optim.model, by_hand([DATA[4:6], DATA[10:12]]))


@pytest.mark.parametrize(
    ("numbers", "joined"),
    [
        ([1, 2, 4, 6], [[0, 1, 2, 3]]),  # 3 never came: its window of 3 joins the next, which has 4 and 6
        ([3, 4, 9, 12], [[0], [1, 2], [3]]),
        ([2, 11, 12], [[0, 1, 2]]),  # whole windows are left out in between
    ],
)
@pytest.mark.parametrize("told", ["forward", "step"])
def test_R02_a_window_whose_last_batch_never_came_joins_the_next_correctly_weighted(
    numbers: list[int], joined: list[list[int]], told: str
) -> None:
    optim = an_optim(accum_grad=3)
    for number, batch in zip(numbers, DATA, strict=False):
        with optim.forward(step_num=number) if told == "forward" else optim.autocast():
            loss = mse(optim.model, batch)
        report = optim.step({"loss": loss}, step_num=number if told == "step" else None)
        assert (report.batch, report.real_step) == (number, (number - 1) // 3 + 1)
    assert_close(optim.model, by_hand([[DATA[i] for i in window] for window in joined]))


def test_R02_going_backwards_is_an_error_that_changes_nothing() -> None:
    optim = an_optim(accum_grad=2)
    take(optim, DATA[0], step_num=None)
    before = frozen(optim)
    message = r"^step_num must go forward: got 1, expected 2 or more \(batch 1 was already taken\)$"
    with pytest.raises(ConfigError, match=message), optim.forward(step_num=1):
        pass
    with pytest.raises(ConfigError, match=message):
        optim.step({"loss": mse(optim.model, DATA[1])}, step_num=1)
    assert_same(frozen(optim), before)
    assert take(optim, DATA[1]).updated


def test_R02_step_must_not_contradict_forward() -> None:
    optim = an_optim()
    with optim.forward(step_num=4):
        loss = mse(optim.model, DATA[0])
    with pytest.raises(ConfigError) as caught:
        optim.step({"loss": loss}, step_num=5)
    assert str(caught.value) == "step_num: forward() was entered for batch 4, step() was given 5"
    with optim.forward(step_num=4):
        loss = mse(optim.model, DATA[0])
    assert optim.step({"loss": loss}, step_num=4).batch == 4


def test_R02_a_forward_that_failed_is_forgotten() -> None:
    optim = an_optim(accum_grad=4)
    take(optim, DATA[0])
    with pytest.raises(RuntimeError, match="out of memory"), optim.forward(last=True):
        raise RuntimeError("out of memory")
    report = optim.step({"loss": mse(optim.model, DATA[1])}, step_num=3)
    assert (report.batch, report.completes) == (3, False)


# ---- losses ----


@pytest.mark.parametrize("use_amp", [False, "bf16", "fp16"])
def test_R06_dict_and_tensors_are_not_modified(use_amp: Any) -> None:
    optim = optim_of(a_model(), use_amp=use_amp, accum_grad=2)
    with optim.forward():
        loss = mse(optim.model, batches(1)[0])
    losses = {"loss": loss, "accuracy": torch.tensor(0.5)}
    value = loss.item()
    optim.step(losses, weight=3)
    optim.flush()
    assert list(losses) == ["loss", "accuracy"]
    assert losses["loss"] is loss
    assert (loss._version, loss.item(), loss.requires_grad) == (0, value, True)


def test_R06_the_loss_is_the_one_that_was_named() -> None:
    optim = an_optim(optim_loss="mine")
    loss = mse(optim.model, DATA[0])
    optim.step({"loss": loss * 100, "mine": loss})
    assert_close(optim.model, by_hand([DATA[:1]]))


def test_R06_a_refused_loss_changes_nothing_and_may_be_given_again() -> None:
    optim = an_optim(accum_grad=2)
    take(optim, DATA[0])
    before = frozen(optim)
    with pytest.raises(LossNotFound, match=r"Did you mean 'los'\? Known: los\.$"):
        optim.step({"los": mse(optim.model, DATA[1])})
    with pytest.raises(ConfigError, match="needs no gradient"):
        optim.step({"loss": mse(optim.model, DATA[1]).detach()})
    with pytest.raises(ConfigError, match="must be a scalar tensor"):
        optim.step({"loss": torch.ones(2, requires_grad=True)})
    with pytest.raises(ConfigError, match=r"weight: batches \[1\] of this window came without one"):
        optim.step({"loss": mse(optim.model, DATA[1])}, weight=2)
    assert_same(frozen(optim), before)
    take(optim, DATA[1])
    assert_close(optim.model, by_hand([DATA[:2]]))


def test_R02_a_refused_epoch_changes_nothing() -> None:
    optim = an_optim(accum_grad=2)
    take(optim, DATA[0])
    before = frozen(optim)
    with pytest.raises(ConfigError, match="epoch_num must be a whole number"):
        take(optim, DATA[1], epoch_num=0)
    assert_same(frozen(optim), before)


def test_R18_an_update_goes_in_this_order(monkeypatch: pytest.MonkeyPatch) -> None:
    optim, order = an_optim(), []
    member, kernel = optim.member, Plain(optim.optimizer)
    monkeypatch.setattr("optimscheduler.line.closing.kernel_for", lambda *_, **__: kernel)
    for part, name in [
        (kernel, "divide"),
        (member.guard, "accepts"),
        (member.values, "write"),
        (kernel, "apply"),
        (member.ledger, "record"),
        (member.gradients, "clear"),
    ]:
        call = getattr(part, name)

        def noted(*args: Any, call: Any = call, name: str = name, **kwargs: Any) -> Any:
            order.append(name)
            return call(*args, **kwargs)

        monkeypatch.setattr(part, name, noted)
    take(optim, DATA[0])
    assert order == ["divide", "accepts", "write", "apply", "record", "clear"]


# ---- what is told to others ----


@pytest.mark.parametrize(("optim_name", "name"), [("asr", "asr"), (None, "main")])
def test_R37_time_func_is_entered_around_each_backward_and_each_update(
    optim_name: str | None, name: str
) -> None:
    entered: list[str] = []

    @contextmanager
    def time_func(names: list[str]) -> Iterator[None]:
        entered.append("+".join(names))
        yield
        entered.append("done")

    optim = an_optim(accum_grad=2, step_per_update=2)
    for number, batch in enumerate(DATA[:4], start=1):  # windows 1 (idle) and 2
        loss = mse(optim.model, batch)
        optim.step(
            losses={"loss": loss}, time_func=time_func, optim_name=optim_name, step_num=number, epoch_num=2
        )
    backward, update = f"loss_backward_time+{name}", f"optim_time+{name}"
    assert entered == [backward, "done", backward, "done", update, "done"]


def test_R21_a_skip_is_logged_to_the_logger_that_was_given(caplog: pytest.LogCaptureFixture) -> None:
    optim = an_optim()
    take(optim, DATA[0], float("nan"), logger=logging.getLogger("mine"))
    take(optim, DATA[0], float("nan"))
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("mine", "WARNING"),
        ("optimscheduler", "WARNING"),
    ]


@pytest.mark.parametrize("layout", ["flat", "loose"])
def test_parameters_that_were_replaced_are_said_once(layout: str, caplog: pytest.LogCaptureFixture) -> None:
    optim = optim_of(a_model(), layout=layout)
    data = batches(4)
    take(optim, data[0])
    optim.model.load_state_dict({k: v.clone() for k, v in optim.model.state_dict().items()}, assign=True)
    for batch in data[1:]:
        assert not take(optim, batch).updated
    said = [
        message for message in caplog.messages if "gives no gradient to any of its 6 parameters" in message
    ]
    assert len(said) == 1

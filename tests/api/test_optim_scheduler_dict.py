"""The dict of one: the same step, the same state, by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from optimscheduler import CheckpointError, ConfigError, OptimScheduler, OptimSchedulerDict
from tests.cases import HalvedWhenWorse
from tests.cases_models import a_model, assert_same, batches, frozen, mse, optim_of, stored, take, train

DATA = batches(8)


def pair(**arguments: Any) -> tuple[OptimSchedulerDict, OptimScheduler]:
    """A dict of one, and the same without a dict."""
    return OptimSchedulerDict({"main": optim_of(a_model(), **arguments)}), optim_of(a_model(), **arguments)


def test_it_is_a_mapping() -> None:
    optims, _ = pair()
    assert isinstance(optims, Mapping)
    assert list(optims) == ["main"]
    assert len(optims) == 1
    assert optims["main"].get_lr() == 0.1
    assert "other" not in optims
    assert repr(optims) == f"OptimSchedulerDict({{'main': {optims['main']!r}}})"
    with pytest.raises(KeyError, match="other"):
        optims["other"]


def test_it_has_at_least_one_member() -> None:
    with pytest.raises(ConfigError, match=r"^an OptimSchedulerDict needs at least one OptimScheduler$"):
        OptimSchedulerDict({})


@pytest.mark.parametrize("use_amp", [False, "bf16", "fp16"])
def test_it_trains_as_its_member_alone_does(use_amp: Any) -> None:
    optims, alone = pair(use_amp=use_amp, accum_grad=3, schedule="Cosine(steps=9)")
    for optim in (optims["main"], alone):
        if optim.scaler is not None:
            optim.scaler.value.fill_(256.0)  # the default overflows with so small a model
    for number, batch in enumerate(DATA, start=1):
        with optims.forward(step_num=number, last=number == 5):
            loss = mse(optims["main"].model, batch)
        reports = optims.step({"loss": loss}, epoch_num=2, weight=number)
        with alone.forward(step_num=number, last=number == 5):
            loss = mse(alone.model, batch)
        report = alone.step({"loss": loss}, epoch_num=2, weight=number)
        assert list(reports) == ["main"]
        assert reports["main"].read() == report.read()
        assert optims.get_lr() == {"main": alone.get_lr()}
    assert_same(frozen(optims["main"]), frozen(alone))
    assert alone.state_dict()["ledger"]["applied"] == 3  # batches 1 to 3, 4 and 5, 6 to 8


def test_R06_one_tensor_is_the_loss_of_all_of_them() -> None:
    optims, alone = pair(optim_loss="nll")
    for batch in DATA[:3]:
        optims.step(mse(optims["main"].model, batch))
        alone.step(mse(alone.model, batch))
    assert_same(frozen(optims["main"]), frozen(alone))
    assert alone.state_dict()["ledger"]["applied"] == 3


def test_R06_one_tensor_among_several_losses_needs_to_be_told_whose_it_is() -> None:
    model = a_model()
    optims = OptimSchedulerDict(
        {
            name: optim_of(model, optim_loss=loss, updated_modules=part)
            for name, loss, part in [("a", "x", "0"), ("b", "x", "2"), ("c", "y", "3")]
        }
    )
    with pytest.raises(ConfigError, match=r"^losses: one tensor .* 'x' \(of 'a'\), 'x' \(of 'b'\), 'y'"):
        optims.step(mse(model, DATA[0]))
    assert [optim.member.clock.batch for optim in optims.values()] == [0, 0, 0]
    for only, moved in ((["a", "b"], ["a", "b"]), ("c", ["c"])):
        assert list(optims.step(mse(model, DATA[0]), only=only)) == moved
    with pytest.raises(ConfigError, match=r"^only: there is no OptimScheduler 'd'"):
        optims.step(mse(model, DATA[0]), only=["d"])


def test_its_reports_name_the_member_to_the_timer() -> None:
    entered: list[list[str]] = []

    @contextmanager
    def time_func(names: list[str]) -> Iterator[None]:
        entered.append(names)
        yield

    optims, _ = pair()
    optims.step({"loss": mse(optims["main"].model, DATA[0])}, time_func)
    assert entered == [["loss_backward_time", "main"], ["optim_time", "main"]]


def test_a_skip_goes_to_its_logger(caplog: pytest.LogCaptureFixture) -> None:
    optims, _ = pair()
    loss = mse(optims["main"].model, DATA[0]) * float("nan")
    assert optims.step({"loss": loss}, logger=logging.getLogger("mine"), step_num=4)["main"].read().skipped
    assert [record.name for record in caplog.records] == ["mine"]


def test_R13_flush_reports_the_members_that_had_something_pending() -> None:
    optims, alone = pair(accum_grad=2)
    assert optims.flush() == {}
    optims.step({"loss": mse(optims["main"].model, DATA[0])})
    take(alone, DATA[0])
    alone.flush()
    (report,) = optims.flush().values()
    assert (report.real_step, report.batches, report.read().updated) == (1, 1, True)
    assert_same(frozen(optims["main"]), frozen(alone))


def test_R26_autocast_is_the_members() -> None:
    optims, _ = pair(use_amp="bf16")
    with optims.autocast():
        assert optims["main"].model(DATA[0][0]).dtype is torch.bfloat16


def test_observe_reaches_the_members() -> None:
    optims, _ = pair(schedule=HalvedWhenWorse())
    for metric in (1.0, 2.0):
        optims.observe(metric)
    optims.step({"loss": mse(optims["main"].model, DATA[0])})
    assert optims.get_lr() == {"main": 0.05}


def test_R34_its_state_continues_bit_for_bit() -> None:
    optims, _ = pair(accum_grad=2, use_amp="bf16")
    train(optims["main"], DATA[:3])
    saved = stored({"model": optims["main"].model.state_dict(), "optims": optims.state_dict()})
    assert set(saved["optims"]) == {"main"}
    others, _ = pair(accum_grad=2, use_amp="bf16")
    others["main"].model.load_state_dict(saved["model"])
    others.load_state_dict(saved["optims"])
    for one in (optims, others):
        for batch in DATA[3:]:
            with one.forward():
                loss = mse(one["main"].model, batch)
            one.step({"loss": loss})
    assert_same(frozen(others["main"]), frozen(optims["main"]))


def test_R35_a_difference_is_said_with_the_members_name() -> None:
    optims, _ = pair(accum_grad=2)
    other, _ = pair(accum_grad=3)
    with pytest.raises(CheckpointError, match=r"^main: the checkpoint was made with another configuration; "):
        optims.load_state_dict(other.state_dict())


def test_R35_other_names_are_refused() -> None:
    optims, alone = pair()
    with pytest.raises(CheckpointError) as caught:
        optims.load_state_dict({"asr": alone.state_dict(), "tts": {}})
    assert str(caught.value) == (
        "the checkpoint has the OptimSchedulers ['asr', 'tts'], this dict has ['main']"
    )


def test_R35_after_the_checkpoint_won_the_dict_steps_what_it_described() -> None:
    optims, _ = pair(accum_grad=2, use_amp="bf16")
    train(optims["main"], DATA[:3])
    others, _ = pair(accum_grad=4)
    others["main"].model.load_state_dict(optims["main"].model.state_dict())
    others.load_state_dict(stored(optims.state_dict()), "checkpoint")
    with others.autocast():
        assert others["main"].model(DATA[0][0]).dtype is torch.bfloat16
    for one in (optims, others):
        with one.forward():
            loss = mse(one["main"].model, DATA[3])
        assert one.step({"loss": loss})["main"].read().updated
    assert_same(frozen(others["main"]), frozen(optims["main"]))


def test_R36_the_origins_state_is_taken_member_by_member() -> None:
    optims, alone = pair(conf={"momentum": 0.9})
    train(alone, DATA[:2])
    optims.load_state_dict({"main": {"optimizer": stored(alone.optimizer.state_dict()), "scaler": None}})
    state = optims["main"].state_dict()["optimizer"]["state"]
    assert_same(state, alone.state_dict()["optimizer"]["state"])
    assert state["0.weight"]["momentum_buffer"].any()

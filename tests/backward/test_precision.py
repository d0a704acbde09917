"""R26, R27: the precision of the forward pass, and the scale of a loss."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from optimscheduler.backward.precision import (
    SMALLEST,
    Autocast,
    FullPrecision,
    LossScale,
    LossScaled,
    forget_casts,
    precision_for,
)
from optimscheduler.errors import ConfigError
from tests.cases_models import assert_same, stored

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda"), torch.device("meta")
YES, NO = torch.tensor(True), torch.tensor(False)


def out_of(precision: FullPrecision) -> torch.dtype:
    """In what a linear layer computes."""
    with precision.autocast():
        out: torch.Tensor = nn.Linear(2, 2)(torch.ones(1, 2))
    return out.dtype


@pytest.mark.parametrize(
    ("use_amp", "dtype", "scaled", "told"),
    [
        (False, torch.float32, False, "as the model is, no autocast"),
        (True, torch.float32, False, "as the model is, no autocast"),
        ("bf16", torch.bfloat16, False, "bfloat16 autocast"),
        ("fp16", torch.float16, True, "float16 autocast with loss scaling"),
    ],
)
def test_R26_on_a_cpu(use_amp: Any, dtype: torch.dtype, scaled: bool, told: str) -> None:
    precision = precision_for(use_amp, CPU)
    assert isinstance(precision, FullPrecision)
    assert out_of(precision) is dtype
    assert (precision.scaler("loss") is not None) == scaled
    assert str(precision) == told


def test_R26_true_on_a_cpu_says_in_one_line_what_it_means(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "optimscheduler"):
        precision_for(True, CPU)
        precision_for(False, CPU)
        precision_for(True, META)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == (
        "use_amp=True means float16 on CUDA; on cpu the model runs as it is ('bf16' is honoured)"
    )


@pytest.mark.parametrize(
    ("use_amp", "kind"),
    [(True, LossScaled), ("fp16", LossScaled), ("bf16", Autocast), (False, FullPrecision)],
)
def test_R26_on_cuda(use_amp: Any, kind: type) -> None:
    assert type(precision_for(use_amp, CUDA)) is kind  # nothing is allocated before the first loss


@pytest.mark.parametrize(
    ("use_amp", "question"),
    [
        ("fp61", "Did you mean 'fp16'? "),
        ("bf61", "Did you mean 'bf16'? "),
        (1, ""),
        (None, ""),
        (16, "Did you mean 'fp16'? "),
    ],
)
def test_R26_anything_else_is_an_error(use_amp: Any, question: str) -> None:
    with pytest.raises(ConfigError) as caught:
        precision_for(use_amp, CPU)
    told = f"use_amp: {use_amp!r} is not known. {question}Known: bf16, false, fp16, true."
    assert str(caught.value) == told


def test_full_precision_scales_by_the_weight_alone() -> None:
    precision = FullPrecision()
    loss = torch.tensor(3.0, requires_grad=True)
    assert precision.scaled("loss", loss, 1.0) is loss
    assert precision.scaled("loss", loss, 2.0).item() == 6.0
    assert precision.scaled("loss", loss, torch.tensor(1.0)) is not loss, "its value is not looked at"
    assert loss.item() == 3.0
    assert precision.scale("loss") == 1.0


# ---- the loss scale ----


def test_R27_the_scale_halves_when_it_overflows_and_doubles_after_a_quiet_time() -> None:
    scale = LossScale("cpu")
    scale.growth_interval = 3
    assert scale.get_scale() == 65536.0
    scales = []
    for finite in (NO, YES, YES, NO, YES, YES, YES, YES, YES, YES):
        scale.record(finite)
        scale.update()
        scales.append(scale.get_scale() / 65536)
    # two good ones are not enough, and the bad one starts the count anew
    assert scales == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 1.0]


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5))
def test_R27_it_follows_torchs_own_scaler(outcomes: list[bool], interval: int) -> None:
    ours = LossScale("cpu")
    ours.growth_interval = interval
    theirs = torch.amp.GradScaler("cpu", growth_interval=interval)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    for finite in outcomes:
        theirs.scale(torch.zeros(1))
        parameter.grad = torch.tensor([1.0 if finite else float("inf")])
        theirs.step(optimizer)
        theirs.update()
        ours.record(torch.tensor(finite))
        ours.update()
        assert ours.get_scale() == theirs.get_scale()
    if outcomes:
        shared = {key: ours.state_dict()[key] for key in theirs.state_dict()}
        assert shared == theirs.state_dict()


def test_R27_nothing_recorded_nothing_changed() -> None:
    scale = LossScale("cpu")
    scale.growth_interval = 1
    scale.update()
    assert scale.get_scale() == 65536.0
    scale.record(YES)
    scale.update()
    scale.update()
    assert scale.get_scale() == 131072.0


def test_R27_one_bad_window_among_several_is_enough() -> None:
    scale = LossScale("cpu")
    for finite in (YES, NO, YES):
        scale.record(finite)
    scale.update()
    assert scale.get_scale() == 32768.0


def test_R20_a_window_that_says_nothing_neither_halves_the_scale_nor_counts() -> None:
    scale, twin = LossScale("cpu"), LossScale("cpu")
    for one in (scale, twin):
        one.growth_interval = 3
    scales = []
    for finite in (NO, YES, YES, YES, YES, NO, YES, YES):
        scale.record(NO, told=NO)
        scale.update()
        assert scale.state_dict() == twin.state_dict()
        for one in (scale, twin):
            one.record(finite)
            one.update()
        assert scale.state_dict() == twin.state_dict()
        scales.append(scale.get_scale() / 65536)
    assert scales == [0.5, 0.5, 0.5, 1.0, 1.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(("finite", "times"), [(YES, 2.0), (NO, 0.5)])
def test_R20_beside_one_that_says_nothing_the_other_windows_count(finite: torch.Tensor, times: float) -> None:
    scale = LossScale("cpu")
    scale.growth_interval = 1
    scale.record(finite)
    scale.record(NO, told=NO)
    scale.update()
    assert scale.get_scale() == times * 65536


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_R20_a_loss_that_is_not_finite_is_no_overflow(loss: float) -> None:
    precision = LossScaled(CPU)
    for norm in (math.nan, torch.tensor(math.inf)):
        precision.record("loss", norm, torch.tensor(loss))
        precision.settle(set())
    assert precision.scaler("loss").get_scale() == 65536.0
    precision.record("loss", math.inf, None)
    precision.settle(set())
    assert precision.scaler("loss").get_scale() == 32768.0


def test_R20_the_scale_does_not_fall_below_float16s_smallest_normal_number() -> None:
    assert torch.finfo(torch.float16).tiny == SMALLEST
    scale = LossScale("cpu")
    for _ in range(40):
        scale.record(NO)
        scale.update()
    assert scale.get_scale() == SMALLEST
    scale.growth_interval = 1
    scale.record(YES)
    scale.update()
    assert scale.get_scale() == 2 * SMALLEST
    scale.load_state_dict({**scale.state_dict(), "scale": 0.0})  # as it was without a floor
    assert scale.get_scale() == SMALLEST


def test_R34_a_restored_scale_goes_on_alike() -> None:
    scale = LossScale("cpu")
    scale.growth_interval, scale.growth_factor, scale.backoff_factor = 4, 3.0, 0.25
    scale.reference_weight = 17.0
    for finite in (NO, YES, YES):
        scale.record(finite)
        scale.update()
    restored = LossScale("cpu")
    restored.record(NO)  # to be forgotten
    restored.load_state_dict(stored(scale.state_dict()))
    assert restored.reference_weight == 17.0
    for finite in (YES, YES, YES, NO):
        for one in (scale, restored):
            one.record(finite)
            one.update()
        assert_same(restored.state_dict(), scale.state_dict())
    assert scale.get_scale() == 65536 / 4 * 3 / 4


def test_R36_the_state_of_torchs_scaler_is_taken() -> None:
    theirs = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=5)
    theirs.scale(torch.zeros(1))
    scale = LossScale("cpu")
    scale.reference_weight = 3.0
    scale.load_state_dict(theirs.state_dict())
    assert scale.get_scale() == 8.0
    assert scale.growth_interval == 5
    assert scale.reference_weight == 0.0, "theirs has none, so it is fixed anew"


# ---- float16 ----


def test_R08_weights_are_taken_relative_to_the_first() -> None:
    precision = LossScaled(CPU)
    loss = torch.tensor(3.0, requires_grad=True)
    precision.refer("loss", 0.0)  # a first batch with nothing in it
    assert precision.lacks_reference("loss")
    precision.refer("loss", 512.0)
    assert not precision.lacks_reference("loss")
    assert precision.scaled("loss", loss, 512.0).item() == 3.0 * 65536
    assert precision.scaled("loss", loss, 1024.0).item() == 3.0 * 65536 * 2
    scale = precision.scale("loss")
    assert float(scale) == 65536 / 512
    assert precision.scaler("loss").reference_weight == 512.0


def test_R27_there_is_one_scale_per_loss_changed_only_while_its_windows_are_closed() -> None:
    precision = LossScaled(CPU)
    assert precision.scaler("a") is precision.scaler("a")
    for name in ("a", "b"):
        precision.scaler(name)
        precision.record(name, torch.tensor(math.inf), torch.tensor(1.0))
    precision.settle({"a"})
    assert (precision.scaler("a").get_scale(), precision.scaler("b").get_scale()) == (65536.0, 32768.0)
    precision.settle(set())
    assert (precision.scaler("a").get_scale(), precision.scaler("b").get_scale()) == (32768.0, 32768.0)


def test_R27_a_float16_loss_does_not_overflow_by_being_scaled() -> None:
    loss = torch.tensor(3.0, dtype=torch.float16, requires_grad=True)
    assert LossScaled(CPU).scaled("loss", loss, 1.0).item() == 3.0 * 65536


def test_R43_the_cache_is_cleared_in_an_autocast_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[str] = []
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: cleared.append("yes"))
    forget_casts("cpu")
    forget_casts("meta")
    assert cleared == []
    with torch.autocast("cpu", torch.bfloat16):
        forget_casts("cpu")
        assert cleared == ["yes"]

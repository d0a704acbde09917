"""R03, R38: who is asked for the learning rate, when, and what becomes of the answer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from optimscheduler import ConfigError
from optimscheduler.schedules import Constant, Cosine, FeedbackSchedule, Warmup
from tests.cases import Alternating, HalvedWhenWorse
from tests.cases_models import a_model, assert_same, batches, forgotten, optim_of, spy, take, train, weights

DATA = batches(8)


def test_R03_update_lr_is_called_by_keyword_once_per_update_and_just_before_it() -> None:
    optim = spy(accum_grad=2, step_per_update=2)
    assert optim.asked == []
    seen = [take(optim, batch, epoch_num=epoch) for epoch, batch in enumerate(DATA, start=1)]
    assert optim.asked == [
        ((), {"real_step": 2, "epoch_num": 4}),
        ((), {"real_step": 4, "epoch_num": 8}),
    ]
    assert [report.lr for report in seen] == [0.5] * 3 + [0.1] * 5
    assert [report.epoch for report in seen] == list(range(1, 9))


def test_R03_get_lr_is_the_base_until_the_first_update_and_then_what_the_optimizer_holds() -> None:
    optim = spy(ft_factor=0.25)
    assert optim.peak == optim.get_lr() == 0.5, "without ft_factor: it is what optim_conf says"
    take(optim, DATA[0])
    assert optim.get_lr() == optim.optimizer.param_groups[0]["lr"] == 0.25 * 0.1


def test_R03_groups_keep_their_ratio_to_the_base() -> None:
    rules = [{"name": "0", "lr": 0.05}, {"ndim": "<2", "lr": 0}]
    optim = spy(ft_factor=0.5, param_groups=rules)
    take(optim, DATA[0])
    # 0.5 x 0.1 x (1, 0.05 / 0.5, 0)
    assert [group["lr"] for group in optim.optimizer.param_groups] == pytest.approx([0.05, 0.005, 0.0])


def test_R03_get_lr_before_the_first_update_is_the_base_whatever_the_groups() -> None:
    optim = spy(param_groups=[{"name": "*", "lr": 0.05}])
    assert optim.peak == 0.5


def test_R03_without_a_schedule_the_rate_stays() -> None:
    optim = optim_of(a_model(), lr=0.3, ft_factor=0.5)
    assert isinstance(optim.schedule, Constant)
    train(optim, DATA[:3])
    assert optim.get_lr() == 0.15


@pytest.mark.parametrize(
    "schedule",
    [
        Warmup(steps=2, then=Cosine(steps=4)),
        "Warmup(steps=2, then=Cosine(steps=4))",
        {"type": "Warmup", "conf": {"steps": 2, "then": {"type": "Cosine", "conf": {"steps": 4}}}},
    ],
    ids=["object", "repr", "type and conf"],
)
def test_R03_a_schedule_is_a_factor_of_the_base(schedule: Any) -> None:
    optim = optim_of(a_model(), lr=0.2, schedule=schedule)
    rates = [report.lr for report in train(optim, DATA)]
    # warm-up 1/2, 1, then (1 + cos) / 2 at 45, 90, 135, 180 degrees
    expected = [0.5, 1.0, 0.85355339, 0.5, 0.14644661, 0.0, 0.0, 0.0]
    assert rates == pytest.approx([0.2 * factor for factor in expected], abs=1e-9)


def test_R03_a_schedule_of_ones_own_counts_real_steps() -> None:
    optim = optim_of(a_model(), lr=1.0, schedule="tests.cases.Alternating(low=0.25)", accum_grad=2)
    assert optim.schedule == Alternating(low=0.25)
    rates = [report.lr for report in train(optim, DATA) if report.completes]
    assert rates == [1.0, 0.25, 1.0, 0.25]


@pytest.mark.parametrize("accum_grad", [1, 2, 4])
def test_R05_lengths_are_in_real_steps_however_many_batches_those_have(accum_grad: int) -> None:
    optim = optim_of(a_model(), lr=1.0, schedule="Warmup(steps=4, then=Constant())", accum_grad=accum_grad)
    rates = [report.lr for report in train(optim, DATA[:4] * accum_grad) if report.completes]
    assert rates == [0.25, 0.5, 0.75, 1.0]


def test_observe_reaches_a_feedback_schedule_and_no_other() -> None:
    optim = optim_of(a_model(), lr=1.0, schedule=HalvedWhenWorse())
    assert isinstance(optim.schedule, FeedbackSchedule)
    rates = []
    for metric in (5.0, 6.0, 4.0, 4.5):
        optim.observe(metric)
        take(optim, DATA[0])
        rates.append(optim.get_lr())
    assert rates == [1.0, 0.5, 0.5, 0.25]
    deaf = optim_of(a_model())
    deaf.observe(3.0)
    assert deaf.state_dict()["feedback"] is None


@pytest.mark.parametrize("answer", [math.nan, math.inf, -0.1, "0.1", None, True])
def test_R38_a_rate_that_is_none_is_an_error_that_says_who_returned_it(answer: Any) -> None:
    optim = spy(answer=answer)
    before = weights(optim.model)
    with pytest.raises(ConfigError) as caught:
        take(optim, DATA[0], epoch_num=3)
    assert str(caught.value) == (
        f"Spy.update_lr(real_step=1, epoch_num=3) returned {answer!r}; "
        "a learning rate is a finite number >= 0"
    )
    assert_same(weights(optim.model), before)
    assert forgotten(optim.model)


@pytest.mark.parametrize("answer", [0, 1, 0.25, torch.tensor(0.25)])
def test_R03_a_rate_may_be_a_whole_number_or_a_tensor(answer: Any) -> None:
    optim = spy(answer=answer)
    take(optim, DATA[0])
    assert optim.get_lr() == float(answer)
    assert isinstance(optim.get_lr(), float)

"""R08: weighted windows equal one big batch, whatever its split."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler import OptimScheduler
from tests.cases_models import (
    a_model,
    assert_close,
    assert_same,
    batches,
    by_hand,
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


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any))
def test_R08_any_split_equals_one_big_batch(sizes: list[int]) -> None:
    (x, y), optim = batches(1, size=sum(sizes), dtype=F64)[0], an_optim(accum_grad=len(sizes))
    for part in zip(torch.split(x, sizes), torch.split(y, sizes), strict=True):
        report = take(optim, part, weight=len(part[0]))  # the mean of nothing is NaN, and weighs nothing
    assert report.updated
    assert report.loss == pytest.approx(mse(a_model(dtype=F64), (x, y)).item(), rel=1e-13)
    assert_close(optim.model, by_hand([[(x, y)]]))


def test_R08_weights_may_come_per_loss_name_and_as_tensors() -> None:
    optim = an_optim(accum_grad=2)
    take(optim, DATA[0], weight={"loss": torch.tensor(3), "other": 7})
    take(optim, DATA[1], weight={"loss": torch.tensor([1.0])})
    assert_close(optim.model, by_hand([DATA[:2]], counts=[[3.0, 1.0]]))


@pytest.mark.parametrize("order", [[0, 2], [2, 0]])
def test_R08_a_batch_of_weight_0_is_harmless_even_if_its_loss_is_nan(order: list[int]) -> None:
    optim = an_optim(accum_grad=2)
    for weight in order:
        report = take(optim, DATA[weight], 1.0 if weight else float("nan"), weight=weight)
    assert report.updated
    assert_close(optim.model, by_hand([[DATA[2]]]))


def test_R08_all_weights_0_are_no_update_and_no_skip() -> None:
    seen: list[int] = []

    class Watched(OptimScheduler):
        def update_lr(self, real_step: int, epoch_num: int) -> float:  # the hook's signature
            seen.append(real_step)
            return 0.1

    model = a_model(dtype=F64)
    optim = Watched("SGD", {"lr": 0.1}, model, accum_grad=2, use_amp=False, grad_clip=None)
    before = weights(model)
    for times in (1.0, float("nan")):
        report = take(optim, DATA[0], times, weight=0)
    assert (report.completes, report.updated, report.skipped) == (True, False, False)
    assert (report.grad_norm, report.loss) == (None, None)
    assert_same(weights(model), before)
    assert optim.state_dict()["ledger"] == {"applied": 0, "skipped": 0, "skips_in_row": 0}
    assert seen == []
    train(optim, DATA[:2])
    assert seen == [2], "the window was counted"
    assert_close(model, by_hand([DATA[:2]]))


@pytest.mark.parametrize("sizes", [[4000, 1000], [1000, 4000], [0, 5000], [5000, 0]])
def test_R08_weights_do_not_eat_the_range_of_float16(sizes: list[int]) -> None:
    (x, y) = batches(1, size=sum(sizes))[0]
    optim, twin = (optim_of(a_model(), use_amp=amp, accum_grad=2) for amp in ("fp16", False))
    assert optim.scaler is not None
    optim.scaler.value.fill_(1024.0)  # times 4000 would be far beyond the largest float16, 65504
    for part in zip(torch.split(x, sizes), torch.split(y, sizes), strict=True):
        report, exact = (take(o, part, weight=len(part[0])) for o in (optim, twin))
    assert report.updated
    assert not report.skipped
    assert report.grad_norm == pytest.approx(exact.grad_norm, rel=5e-3)  # float16 has 11 bits
    assert optim.scaler.reference_weight == next(size for size in sizes if size)
    for p, q in zip(optim.model.parameters(), twin.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)

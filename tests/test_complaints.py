"""What users of other libraries complain of, one test each, on one process.

The numbers are those of the list that the project keeps; the tests of several ranks are in
`tests/distributed/`, and those of one part stand with the tests of that part, named in the same way.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import OptimScheduler, OptimSchedulerDict
from tests.cases_models import a_model, assert_close, assert_same, forgotten, mse, optim_of, weights

BIG = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.randn(24, 2, generator=torch.Generator().manual_seed(1))


def once(optim: OptimScheduler, sizes: list[int], weighted: bool) -> None:
    """One window over the first items, cut into batches of these sizes."""
    start = 0
    for number, size in enumerate(sizes, start=1):
        part = slice(start, start + size)
        with optim.forward(last=number == len(sizes)):
            loss = mse(optim.model, (BIG[part].to(torch.float64), TARGET[part].to(torch.float64)))
        optim.step({"loss": loss}, weight=size if weighted else None)
        start += size


@pytest.mark.parametrize("sizes", [[24], [8, 8, 8], [1, 2, 21], [23, 1]])
def test_B2_accumulated_batches_of_uneven_length_equal_one_big_batch(sizes: list[int]) -> None:
    big, cut = a_model(dtype=torch.float64), a_model(dtype=torch.float64)
    once(optim_of(big, grad_clip=0.1), [24], weighted=True)
    once(optim_of(cut, grad_clip=0.1, accum_grad=9), sizes, weighted=True)
    assert_close(cut, weights(big))


@pytest.mark.parametrize("accum_grad", [3, 4, 100])
def test_B3_a_short_last_window_is_divided_by_the_batches_it_has(accum_grad: int) -> None:
    whole, short = a_model(dtype=torch.float64), a_model(dtype=torch.float64)
    once(optim_of(whole, accum_grad=2), [6, 6], weighted=False)
    once(optim_of(short, accum_grad=accum_grad), [6, 6], weighted=False)
    assert_close(short, weights(whole))


def test_B4_the_last_batches_are_neither_lost_nor_left_for_later() -> None:
    model = a_model(dtype=torch.float64)
    optim = optim_of(model, accum_grad=4)
    once(optim, [4, 4], weighted=False)
    assert optim.member.ledger.applied == 1
    assert forgotten(model)


@pytest.mark.parametrize("clip", [0.01, None])
def test_B8_clipping_sees_gradients_without_their_loss_scale(clip: float | None) -> None:
    """In float16 with a scale of 65,536 the norm is that of the same step in float32."""
    norms = []
    for use_amp in (False, "fp16"):
        optim = optim_of(a_model(), use_amp=use_amp, grad_clip=clip)
        with optim.forward():
            loss = mse(optim.model, (BIG, TARGET))
        norms.append(optim.step({"loss": loss}).read().grad_norm)
    assert norms[1] == pytest.approx(norms[0], rel=5e-3)  # float16 has eleven bits


# ---- B10: no order of events is illegal ----


class Sides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor, used: bool = True) -> dict[str, Tensor]:
        left = self.left(x).square().mean()
        return {"left": left, "right": self.right(x).square().mean() if used else left * 1.0}


def test_B10_a_member_without_gradient_does_not_upset_the_loss_scale() -> None:
    model = Sides()
    optims = OptimSchedulerDict(
        {
            side: OptimScheduler(
                "Adam", {"lr": 0.1}, model, optim_loss=side, updated_modules=side, use_amp="fp16"
            )
            for side in ("left", "right")
        }
    )
    for optim in optims.values():
        optim.scaler.value.fill_(8.0)
    before = weights(model)
    for used in (False, True, False):
        with optims.forward():
            losses = model(BIG, used)
        reports = {name: report.read() for name, report in optims.step(losses).items()}
        assert reports["left"].updated
        assert (reports["right"].updated, reports["right"].skipped) == (used, False)
    optims.flush()
    optims.flush()
    assert not torch.equal(weights(model)["right.weight"], before["right.weight"])


def test_B10_a_skip_in_a_row_and_flushes_between_are_legal() -> None:
    optim = optim_of(a_model(), use_amp="fp16", accum_grad=2)
    for times in (torch.nan, 1.0, torch.inf, torch.nan, 1.0):
        with optim.forward():
            loss = mse(optim.model, (BIG, TARGET))
        optim.step({"loss": loss * times})
        optim.flush()
        assert optim.flush() is None
    assert optim.member.ledger.read() == {"applied": 2, "skipped": 3, "skips_in_row": 0}


# ---- B13: what was not finite does not stay ----


@pytest.mark.parametrize("use_amp", [False, "bf16", "fp16"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_B13_a_nan_in_a_window_is_gone_with_it(place: int, use_amp: bool | str) -> None:
    """The window after a poisoned one moves the weights as if the poisoned one had never been."""
    poisoned = optim_of(a_model(), use_amp=use_amp, accum_grad=3)
    clean = optim_of(copy.deepcopy(poisoned.model), use_amp=use_amp, accum_grad=3)
    if poisoned.scaler and clean.scaler:  # no overflow of its own, and the same scale after the skip
        poisoned.scaler.value.fill_(8.0)
        clean.scaler.value.fill_(4.0)
    for number in range(6):
        for optim in (poisoned,) if number < 3 else (poisoned, clean):
            with optim.forward():
                loss = mse(optim.model, (BIG[number::6], TARGET[number::6]))
            optim.step({"loss": loss * torch.nan if number == place else loss})
    assert poisoned.member.ledger.read() == {"applied": 1, "skipped": 1, "skips_in_row": 0}
    assert_same(weights(poisoned.model), weights(clean.model))

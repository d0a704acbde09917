"""R37: subclasses written for the origin, driven as its runner drives them, train as the textbook does."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import ExponentDecayLr, NoamLr, Noamlr, OptimScheduler
from tests import textbook


class HalfCosine(OptimScheduler):
    """In the origin's manner: three hooks, keyword configuration, the peak read off the optimizer."""

    def sche_init(self, total_steps: int, floor: float = 0.0, **other: Any) -> None:
        assert not other
        self.total_steps = total_steps
        self.floor = floor
        self.peak = self.get_lr()

    def update_lr(self, real_step: int, epoch_num: int) -> float:
        share = min(real_step / self.total_steps, 1.0)
        return self.floor + (self.peak - self.floor) * (1 + math.cos(math.pi * share)) / 2

    def extra_repr_fn(self) -> str:
        return f"total_steps={self.total_steps}"


class EpochStairs(OptimScheduler):
    """Reads what the origin's subclasses may read, and looks at the epoch alone."""

    def sche_init(self, steps: dict[int, float]) -> None:
        assert self.model is not None
        assert isinstance(self.optimizer, torch.optim.Optimizer)
        assert self.scaler is None
        assert (self.distributed, self.accum_grad, self.grad_clip, self.grad_norm_type) == (
            False,
            3,
            0.5,
            2.0,
        )
        assert (self.ft_factor, self.optim_loss, self.step_per_update) == (0.5, "main_loss", 1)
        assert self.updated_modules is None
        self.steps = steps

    def update_lr(self, real_step: int, epoch_num: int) -> float:
        return self.steps[epoch_num]


def a_model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def some_batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    return [
        (torch.randn(4, 5, generator=generator), torch.randn(4, 3, generator=generator)) for _ in range(count)
    ]


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


class Times:
    """The origin's runner hands a context function for timing; this one notes what it was asked to time."""

    def __init__(self) -> None:
        self.names: list[list[str]] = []

    @contextmanager
    def __call__(self, names: list[str]) -> Iterator[None]:
        self.names.append(names)
        yield


def drive(
    optim: OptimScheduler, model: nn.Module, batches: list[Any], per_epoch: int, times: Times
) -> list[float]:
    """The origin's loop: forward anywhere, then `step` with these six arguments, counted from 1 for ever."""
    rates = []
    for step_num, batch in enumerate(batches, start=1):
        losses = {"main_loss": loss_of(model, batch), "loss": loss_of(model, batch)}
        optim.step(
            losses=losses,
            time_func=times,
            optim_name="asr_optim",
            step_num=step_num,
            epoch_num=(step_num - 1) // per_epoch + 1,
            logger=logging.getLogger("origin"),
        )
        if step_num % optim.accum_grad == 0:
            rates.append(optim.get_lr())
    return rates


CONF: dict[str, Any] = {
    "optim_type": "Adam",
    "optim_conf": {"lr": 2e-2, "fused": False},
    "layout": "loose",  # which is equal bit for bit
}


@pytest.mark.parametrize(
    ("build", "lr"),
    [
        (
            lambda model: HalfCosine(
                model=model, accum_grad=3, grad_clip=0.5, total_steps=10, floor=1e-3, **CONF
            ),
            lambda s: 1e-3 + (2e-2 - 1e-3) * (1 + math.cos(math.pi * min(s / 10, 1.0))) / 2,
        ),
        (
            lambda model: EpochStairs(
                model=model,
                accum_grad=3,
                grad_clip=0.5,
                ft_factor=0.5,
                optim_loss="main_loss",
                steps={1: 4e-2, 2: 2e-2, 3: 1e-2},
                **CONF,
            ),
            lambda s: 0.5 * {1: 4e-2, 2: 2e-2, 3: 1e-2}[(s - 1) // 5 + 1],
        ),
        (
            lambda model: Noamlr(model=model, accum_grad=3, grad_clip=0.5, warmup_steps=4, **CONF),
            lambda s: 2e-2 * 4**0.5 * min(s**-0.5, s * 4**-1.5),
        ),
        (
            lambda model: NoamLr(
                model=model, accum_grad=3, grad_clip=0.5, d_model=64, warmup_steps=4, **CONF
            ),
            lambda s: 64**-0.5 * min(s**-0.5, s * 4**-1.5),
        ),
        (
            lambda model: ExponentDecayLr(model=model, accum_grad=3, grad_clip=0.5, decay_factor=0.5, **CONF),
            lambda s: 2e-2 * 0.5 ** ((s - 1) // 5),
        ),
    ],
    ids=["HalfCosine", "EpochStairs", "Noamlr", "NoamLr with d_model", "ExponentDecayLr"],
)
def test_R37_learning_rates_and_weights_equal_the_textbooks(build: Any, lr: Any) -> None:
    model, batches, times = a_model(), some_batches(45), Times()
    twin = copy.deepcopy(model)
    optim = build(model)
    assert optim.get_lr() == 2e-2, "the base value, before the first update"
    rates = drive(optim, model, batches, per_epoch=15, times=times)
    textbook.train(
        twin,
        torch.optim.Adam(twin.parameters(), lr=2e-2),
        batches,
        loss_of=loss_of,
        lr=lr,
        accum_grad=3,
        grad_clip=0.5,
    )
    assert rates == [lr(s) for s in range(1, 16)]
    for weight, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(weight, theirs)
    assert times.names.count(["loss_backward_time", "asr_optim"]) == 45
    assert times.names.count(["optim_time", "asr_optim"]) == 15


def test_R37_a_skip_is_told_to_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    model = a_model()
    optim = Noamlr(model=model, **CONF)
    with caplog.at_level(logging.INFO, logger="origin"):
        optim.step(
            losses={"loss": loss_of(model, some_batches(1)[0]) * math.inf},
            time_func=Times(),
            optim_name="asr_optim",
            step_num=1,
            epoch_num=1,
            logger=logging.getLogger("origin"),
        )
    [record] = [r for r in caplog.records if r.name == "origin"]
    assert "real step 1 (batches 1) of loss 'loss' skipped" in record.getMessage()


def test_R39_repr_reads_as_the_origins() -> None:
    model = a_model()
    noam = Noamlr(model=model, warmup_steps=4000, **CONF)
    assert repr(noam) == (
        "Noamlr(optimizer=Adam, optim_loss=None, updated_modules=None, d_model=None, warmup_steps=4000)"
    )
    cosine = HalfCosine(model=model, optim_loss="ctc", updated_modules="0", total_steps=9, **CONF)
    assert repr(cosine) == "HalfCosine(optimizer=Adam, optim_loss=ctc, updated_modules=['0'], total_steps=9)"


def test_the_exponential_decay_does_not_compound_within_an_epoch() -> None:
    model = a_model()
    optim = ExponentDecayLr(model=model, decay_factor=0.5, ft_factor=0.1, **CONF)
    rates = drive(optim, model, some_batches(6), per_epoch=3, times=Times())
    first, second = 0.1 * 2e-2, 0.1 * 2e-2 * 0.5  # ft_factor x base, then half of it
    assert rates == pytest.approx([first] * 3 + [second] * 3, rel=1e-12)

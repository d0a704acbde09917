"""R02, R06 to R09, R12, R13: the line from the losses of a batch to the moved weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from optimscheduler import ConfigError, LossNotFound, OptimScheduler
from tests.cases_models import (
    Batch,
    TwoParts,
    a_model,
    assert_same,
    batches,
    frozen,
    mse,
    optim_of,
    take,
    train,
    weights,
)

F64 = torch.float64
DATA = batches(12, dtype=F64)


def by_hand(
    windows: Sequence[Sequence[Batch]], lr: float = 0.1, counts: Sequence[Sequence[float]] = ()
) -> dict[str, Tensor]:
    """Plain SGD by the formula: sum(n_i grad_i) / sum(n_i) over each window, n_i = 1 without `counts`."""
    model = a_model(dtype=F64)
    for i, window in enumerate(windows):
        n = counts[i] if counts else [1.0] * len(window)
        for batch, count in zip(window, n, strict=True):
            (mse(model, batch) * count).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for p in model.parameters():
                assert p.grad is not None
                p.sub_(lr * p.grad / sum(n))
                p.grad = None
    return weights(model)


def assert_close(ours: nn.Module, theirs: dict[str, Tensor]) -> None:
    """Equal but for the order of additions in float64, a few roundings of 1e-16 per update."""
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.detach(), theirs[name], rtol=1e-13, atol=1e-14)


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
        assert all(p.grad is None for p in optim.model.parameters())
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


# ---- weights ----


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


def test_R08_all_weights_0_are_no_update_and_no_skip() -> None:
    seen: list[int] = []

    class Watched(OptimScheduler):
        def update_lr(self, real_step: int, epoch_num: int) -> float:  # noqa: ARG002  # the hook's signature
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


# ---- isolation ----

RUNS = {
    "plain": None,
    "non-reentrant": partial(checkpoint, use_reentrant=False),
    "reentrant": partial(checkpoint, use_reentrant=True),
}


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


# ---- short windows ----


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
    with pytest.raises(RuntimeError, match="out of luck"):
        out = rest(Broken.apply(first(DATA[1][0])))  # type: ignore[no-untyped-call]
        optim.step({"loss": (out - DATA[1][1]).square().mean()})
    assert all(p.grad is None for p in optim.model.parameters())
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
    assert all(p.grad is None for p in optim.model.parameters())
    train(optim, DATA[2:4])
    assert_close(optim.model, by_hand([DATA[:1], DATA[2:4]]))


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

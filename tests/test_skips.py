"""R04, R20 to R23, R27: what happens, and what does not, when a gradient is refused."""

from __future__ import annotations

import copy
import logging
import math
from typing import Any

import pytest
import torch

from optimscheduler import ConfigError, NonFiniteError, OptimScheduler, OptimSchedulerDict
from optimscheduler.backward.precision import SMALLEST
from tests.cases_models import (
    a_model,
    assert_same,
    batches,
    forgotten,
    frozen,
    mse,
    optim_of,
    take,
    train,
    weights,
)

NAN, INF, OVERFLOW = math.nan, math.inf, 1e30
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Adam fused": ("Adam", {"fused": True}),
    "Adam plain": ("Adam", {"fused": False}),
    "SGD momentum fused": ("SGD", {"fused": True, "momentum": 0.9}),
    "SGD momentum plain": ("SGD", {"fused": False, "momentum": 0.9}),
}
DATA = batches(8)
LINES = {
    # 1e30 squared is beyond float32, but in float16 the gradients themselves overflow first
    (NAN, False): "gradient norm nan; the loss itself was not finite in batches {}; not finite in 0.weight",
    (INF, False): "gradient norm nan; the loss itself was not finite in batches {}; not finite in 0.weight",
    (OVERFLOW, False): "gradient norm inf; every gradient is finite, but their norm overflows",
    (OVERFLOW, "fp16"): "not finite in 0.weight",
}


def an_optim(optim_type: str, conf: dict[str, Any], use_amp: Any, **arguments: Any) -> OptimScheduler:
    optim = optim_of(a_model(), optim_type, 0.01, conf=conf, use_amp=use_amp, grad_clip=0.5, **arguments)
    if optim.scaler is not None:
        optim.scaler.value.fill_(1024.0)  # far from both ends, so that halving it changes no bit
    return optim


def learnt(optim: OptimScheduler) -> Any:  # Any: a tree of tensors
    return {"model": weights(optim.model), "optimizer": optim.state_dict()["optimizer"]}


@pytest.mark.parametrize(("optim_type", "conf"), OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("use_amp", [False, "bf16", "fp16"])
@pytest.mark.parametrize("times", [NAN, INF, OVERFLOW])
@pytest.mark.parametrize("at", [0, 4])
def test_B12_R20_a_refused_window_leaves_no_trace(
    optim_type: str,
    conf: dict[str, Any],
    use_amp: Any,
    times: float,
    at: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    optim, twin = (an_optim(optim_type, conf, use_amp, accum_grad=2) for _ in range(2))
    train(optim, DATA[:at])
    before = copy.deepcopy(learnt(optim))
    take(optim, DATA[6], times)
    assert not caplog.records, "a window is judged when it is complete"
    report = take(optim, DATA[7])
    assert (report.completes, report.updated, report.skipped) == (True, False, True)
    assert report.grad_norm is not None
    assert not math.isfinite(report.grad_norm)
    assert_same(learnt(optim), before)
    assert forgotten(optim.model)
    line = LINES[times, use_amp if times == OVERFLOW and use_amp == "fp16" else False]
    assert line.format(at + 1) in caplog.text
    assert f"real step {at // 2 + 1} (batches {at + 1}, {at + 2}) of loss 'loss' skipped: " in caplog.text
    assert optim.state_dict()["ledger"] == {"applied": at // 2, "skipped": 1, "skips_in_row": 1}
    reports = train(optim, DATA[at:6])
    assert [r.real_step for r in reports if r.completes] == list(range(at // 2 + 2, 5)), "the clock goes on"
    assert optim.state_dict()["ledger"] == {"applied": 3, "skipped": 1, "skips_in_row": 0}
    train(twin, DATA[:6])  # a run in which nothing ever happened
    assert_same(learnt(optim), learnt(twin))
    if optim.scaler is not None and twin.scaler is not None:
        scale = 512.0 if times == OVERFLOW else 1024.0  # a loss that is not finite says nothing about it
        assert (optim.scaler.get_scale(), twin.scaler.get_scale()) == (scale, 1024.0)


@pytest.mark.parametrize("use_amp", [False, "fp16"])
def test_R20_nan_is_refused_by_the_largest_absolute_value_as_well(use_amp: Any) -> None:
    optim = an_optim("SGD", {}, use_amp, grad_norm_type="inf")
    before = weights(optim.model)
    assert take(optim, DATA[0], NAN).skipped
    assert_same(weights(optim.model), before)


@pytest.mark.parametrize("norm_type", [1.0, "inf"])
@pytest.mark.parametrize(("optim_type", "conf"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_R20_no_moment_overflows_where_the_norm_does_not_square(
    optim_type: str, conf: dict[str, Any], norm_type: Any
) -> None:
    optim = optim_of(a_model(), optim_type, 0.01, conf=conf, grad_clip=None, grad_norm_type=norm_type)
    train(optim, DATA[:2])
    before = copy.deepcopy(learnt(optim))
    assert take(optim, DATA[2], OVERFLOW).skipped
    assert_same(learnt(optim), before)


@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("norm_type", [2.0, "inf"])
def test_R20_no_moment_of_float16_parameters_overflows(norm_type: Any, fused: bool, layout: str) -> None:
    def built(grad_clip: float | None) -> OptimScheduler:
        conf = {"fused": fused, "eps": 1e-3}
        arguments = {"grad_clip": grad_clip, "grad_norm_type": norm_type, "layout": layout}
        return optim_of(a_model(dtype=torch.float16), "Adam", 0.01, conf=conf, **arguments)

    bare, clipped = built(None), built(1.0)
    for optim in (bare, clipped):
        train(optim, batches(2, dtype=torch.float16))
    before = copy.deepcopy(learnt(bare))
    batch = batches(3, dtype=torch.float16)[2]
    times = 3e4 / (take(built(None), batch).grad_norm or 1.0)  # whose square is beyond 65504
    assert take(bare, batch, times).skipped
    assert_same(learnt(bare), before)
    report = take(clipped, batch, times)
    assert report.updated
    assert 1e4 < (report.grad_norm or 0.0) < INF
    for moments in learnt(clipped)["optimizer"]["state"].values():
        assert all(torch.as_tensor(moment).isfinite().all() for moment in moments.values())


@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, "inf"])
@pytest.mark.parametrize(("optim_type", "conf"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_R20_no_moment_overflows_where_a_weight_is_below_1(
    optim_type: str, conf: dict[str, Any], norm_type: Any, layout: str
) -> None:
    optim = optim_of(
        a_model(), optim_type, 0.01, conf=conf, grad_clip=None, grad_norm_type=norm_type, layout=layout
    )
    train(optim, DATA[:2])
    before = copy.deepcopy(learnt(optim))
    report = take(optim, DATA[2], 1e22, weight=1e-5)  # 1e17 before it is divided by 1e-5
    assert report.skipped
    assert report.grad_norm == INF
    assert_same(learnt(optim), before)
    assert take(optim, DATA[3], 1e10, weight=1e-5).updated


@pytest.mark.parametrize("use_amp", [False, "fp16"])
@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("fused", [True, False])
def test_R20_weights_too_small_for_float32_give_no_gradient(fused: bool, layout: str, use_amp: Any) -> None:
    optim = an_optim("Adam", {"fused": fused}, use_amp, layout=layout)
    train(optim, DATA[:2])
    if optim.scaler is not None:
        optim.scaler.value.fill_(SMALLEST)
    before = copy.deepcopy(learnt(optim))
    assert take(optim, DATA[2], weight=1e-44).skipped
    assert_same(learnt(optim), before)


def test_R27_float16_backs_off_until_it_fits_and_grows_again() -> None:
    optim = optim_of(a_model(), "Adam", use_amp="fp16")
    assert optim.scaler is not None
    optim.scaler.value.fill_(2.0**20)  # too much for the very first gradients
    optim.scaler.growth_interval = 3
    scales, skips = [], []
    for _ in range(16):
        skips.append(take(optim, DATA[0]).skipped)
        scales.append(optim.scaler.get_scale())
    assert skips[0]
    assert not all(skips[:8])
    for skipped, before, after in zip(skips, [2.0**20, *scales], scales, strict=False):
        assert after in ([before / 2] if skipped else [before, before * 2])
    first = skips.index(False)
    assert scales[first + 2] == 2 * scales[first], "three good ones double it"


def test_R20_bad_data_does_not_wear_the_loss_scale_down() -> None:
    optim = an_optim("Adam", {}, "fp16")
    for number in range(60):
        report = take(optim, DATA[number % 8], NAN if number % 2 else 1.0)
        assert report.updated is (number % 2 == 0)
        assert report.skipped or report.grad_norm
    assert optim.scaler is not None
    assert optim.scaler.get_scale() == 1024.0


def test_R20_at_the_smallest_scale_refusals_go_on_counting() -> None:
    optim = an_optim("Adam", {}, "fp16", max_skips=40)
    with pytest.raises(
        NonFiniteError, match=r"^41 gradients in a row were refused .* loss scale 6\.10352e-05"
    ):
        for _ in range(50):
            take(optim, DATA[0], OVERFLOW)
    assert optim.scaler is not None
    assert optim.scaler.get_scale() == SMALLEST
    assert take(optim, DATA[1]).updated


def test_R27_the_scale_does_not_change_while_a_window_is_open() -> None:
    optim = an_optim("SGD", {}, "fp16", accum_grad=2)
    assert optim.scaler is not None
    optim.scaler.growth_interval = 1
    scales = []
    for _ in range(6):
        take(optim, DATA[0])
        scales.append(optim.scaler.get_scale())
    assert scales == [1024, 2048, 2048, 4096, 4096, 8192]


def test_R22_too_many_skips_in_a_row_are_an_error_and_the_weights_are_still_good() -> None:
    optim = an_optim("Adam", {}, False, max_skips=2)
    train(optim, DATA[:2])
    before = copy.deepcopy(learnt(optim))
    take(optim, DATA[2], NAN)
    take(optim, DATA[2], NAN)
    with pytest.raises(NonFiniteError, match=r"^3 gradients in a row were refused \(max_skips=2\)") as caught:
        take(optim, DATA[2], NAN)
    assert "real step 5 (batches 5) of loss 'loss' skipped" in str(caught.value)
    assert "Learning rate 0.01, loss scale 1. Try a lower learning rate" in str(caught.value)
    assert_same(learnt(optim), before)
    assert forgotten(optim.model)
    assert take(optim, DATA[3]).updated, "who catches it may go on"


def test_R22_the_scale_is_in_the_message() -> None:
    optim = an_optim("Adam", {}, "fp16", max_skips=0)
    with pytest.raises(NonFiniteError, match="loss scale 1024"):
        take(optim, DATA[0], NAN)


@pytest.mark.parametrize("closed", ["in step", "by flush"])
def test_R22_the_error_of_one_member_comes_when_all_have_had_their_turn(closed: str) -> None:
    accum_grad = 1 if closed == "in step" else 2
    optims, twin = (
        OptimSchedulerDict(
            {
                name: optim_of(
                    model, updated_modules=part, max_skips=0, use_amp="fp16", accum_grad=accum_grad, lr=0.01
                )
                for name, part in [("a", "0"), ("b", "2"), ("c", "3")]
            },
        )
        for model in (a_model(), a_model())
    )
    for each in (optims, twin):
        for optim in each.values():
            assert optim.scaler is not None
            optim.scaler.value.fill_(256.0)
            optim.scaler.growth_interval = 1
    spoil = next(iter(optims["a"].owned.by_name.values())).register_hook(lambda g: g * INF)
    with pytest.raises(NonFiniteError, match=r"^1 gradients in a row were refused \(max_skips=0\)"):
        stepped(optims, DATA[0])
        optims.flush()
    spoil.remove()
    stepped(twin, DATA[0])
    twin.flush()
    start, now, then = weights(a_model()), weights(optims["b"].model), weights(twin["b"].model)
    assert_same(
        {n: w for n, w in now.items() if n[0] == "0"}, {n: w for n, w in start.items() if n[0] == "0"}
    )
    assert_same({n: w for n, w in now.items() if n[0] != "0"}, {n: w for n, w in then.items() if n[0] != "0"})
    assert forgotten(optims["b"].model)
    assert optims["b"].scaler is not None
    assert optims["b"].scaler.get_scale() == 128.0, "it is settled, too"
    assert [optim.member.ledger.read()["applied"] for optim in optims.values()] == [0, 1, 1]


def stepped(optims: OptimSchedulerDict, batch: Any) -> None:
    with optims.forward():
        loss = mse(optims["a"].model, batch)
    optims.step({"loss": loss})


def test_R23_gradients_larger_for_good_are_refused_until_the_error_names_the_guard() -> None:
    optim = an_optim("Adam", {}, False, guard={"z": 5, "window": 8, "warm_up": 3}, max_skips=4)
    train(optim, DATA[:4])
    statistics = repr(optim.state_dict()["guard"])
    with pytest.raises(
        NonFiniteError, match=r"The guard refuses gradient norms above .* write guard: null or"
    ):
        for batch in DATA * 2:
            take(optim, batch, 1000.0)
    assert repr(optim.state_dict()["guard"]) == statistics


@pytest.mark.parametrize("use_amp", [False, "fp16"])
def test_R23_a_spike_is_a_skip_like_any_other(use_amp: Any, caplog: pytest.LogCaptureFixture) -> None:
    guard = {"z": 5, "window": 8, "warm_up": 3}
    optim, twin = (an_optim("Adam", {}, use_amp, guard=guard) for _ in range(2))
    train(optim, DATA[:4])
    before, statistics = copy.deepcopy(learnt(optim)), repr(optim.state_dict()["guard"])
    for _ in range(3):
        report = take(optim, DATA[4], 1000.0 if use_amp is False else 20.0)
        assert (report.updated, report.skipped) == (False, True)
        assert report.grad_norm is not None
        assert math.isfinite(report.grad_norm)
    assert_same(learnt(optim), before)
    assert repr(optim.state_dict()["guard"]) == statistics
    assert "; a spike, the largest gradients are those of " in caplog.text
    assert optim.state_dict()["ledger"] == {"applied": 4, "skipped": 3, "skips_in_row": 3}
    if optim.scaler is not None:
        assert optim.scaler.get_scale() == 1024.0, "a spike is no overflow"
    train(optim, DATA[5:])
    train(twin, DATA[:4] + DATA[5:])
    assert_same(learnt(optim), learnt(twin))


def test_R23_without_a_guard_the_spike_is_applied() -> None:
    optim = an_optim("Adam", {}, False)
    train(optim, DATA[:4])
    assert take(optim, DATA[4], 1000.0).updated


@pytest.mark.parametrize(("lr_clock", "asked"), [("window", [1, 2, 3, 4, 5]), ("applied", [1, 2, 2, 2, 3])])
def test_R04_a_skip_advances_the_curve_or_does_not(lr_clock: str, asked: list[int]) -> None:
    seen: list[int] = []

    class Watched(OptimScheduler):
        def update_lr(self, real_step: int, epoch_num: int) -> float:  # the hook's signature
            seen.append(real_step)
            return 0.1 / real_step

    optim = Watched("SGD", {"lr": 0.1}, a_model(), use_amp=False, lr_clock=lr_clock)
    for batch, times in zip(DATA, [1.0, NAN, NAN, 1.0, 1.0], strict=False):
        take(optim, batch, times)
    assert seen == asked
    assert optim.get_lr() == 0.1 / asked[-1]


def test_R04_the_clock_is_one_of_two() -> None:
    with pytest.raises(ConfigError, match=r"^lr_clock: 'aplied' is not known. Did you mean 'applied'\?"):
        optim_of(a_model(), lr_clock="aplied")


def test_R20_a_window_of_weight_0_is_never_refused(caplog: pytest.LogCaptureFixture) -> None:
    optim = an_optim("Adam", {}, "fp16")
    train(optim, DATA[:1])
    before = frozen(optim)
    with caplog.at_level(logging.WARNING):
        report = take(optim, DATA[1], NAN, weight=0)
    assert (report.updated, report.skipped) == (False, False)
    after = frozen(optim)
    assert_same(after["model"], before["model"])
    assert_same(after["optim"]["scaler"], before["optim"]["scaler"])
    assert not caplog.records


def test_R20_a_weight_on_the_device_of_0_in_all_moves_nothing() -> None:
    # On an accelerator a weight stays where it is, so the window is carried through and not applied.
    optim = an_optim("Adam", {}, False, accum_grad=2)
    train(optim, DATA[:2])
    before = copy.deepcopy(learnt(optim))
    for p in optim.model.parameters():
        p.grad = torch.zeros_like(p)  # Adam's momentum alone would move the weights
    optim.member.window.add(3, torch.tensor(1.0), torch.tensor(0.0))
    report = optim.flush()
    assert report is not None
    assert (report.read().updated, report.read().skipped) == (False, False)
    assert_same(learnt(optim), before)

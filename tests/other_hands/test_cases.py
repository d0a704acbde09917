"""R40, R41, R44: `optim.optimizer` in the hands of torch's tools and of loops that people write."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import StepLR

from optimscheduler import OptimScheduler, OptimSchedulerError
from tests.cases_models import stored
from tests.other_hands.cases import LAYOUTS, apart, batch, plain_steps, small_net, steps

pytestmark = pytest.mark.parametrize("layout", LAYOUTS)

CLOSE = 1e-12  # sums in another order; float64


def optim_of(model: nn.Module, layout: str, **more: Any) -> OptimScheduler:
    return OptimScheduler(
        "AdamW", {"lr": 0.01}, model, **{"use_amp": False, "grad_clip": None, "layout": layout, **more}
    )


def trained(layout: str, count: int = 6) -> tuple[nn.Module, OptimScheduler]:
    """Half of the way."""
    model = small_net()
    optim = optim_of(model, layout)
    steps(optim, range(count))
    return model, optim


def plainly_trained(count: int = 12) -> tuple[nn.Module, Optimizer]:
    """All the way, by torch."""
    model = small_net()
    optimizer = AdamW(model.parameters(), lr=0.01)
    plain_steps(model, optimizer, range(count))
    return model, optimizer


def anew(model: nn.Module, layout: str) -> tuple[nn.Module, OptimScheduler]:
    """Another model with these weights, and an OptimScheduler over it."""
    other = small_net()
    other.load_state_dict(model.state_dict())
    return other, optim_of(other, layout)


# ---- steps ----


def test_R40_a_plain_loop_over_the_optimizer(layout: str) -> None:
    model = small_net()
    plain_steps(model, optim_of(model, layout).optimizer, range(12))
    assert apart(model, plainly_trained()[0]) < CLOSE


def test_R40_a_plain_loop_after_and_before_updates_of_ours(layout: str) -> None:
    model, optim = trained(layout, 4)
    plain_steps(model, optim.optimizer, range(4, 8))
    optim.optimizer.zero_grad()
    steps(optim, range(8, 12))
    assert apart(model, plainly_trained()[0]) < CLOSE


def test_R40_a_loop_with_a_grad_scaler(layout: str) -> None:
    model = small_net()
    optimizer, scaler = optim_of(model, layout).optimizer, torch.amp.GradScaler("cpu", init_scale=8.0)
    for number in range(12):
        optimizer.zero_grad()
        scaler.scale(model(batch(number)).square().mean()).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), 1e9)
        scaler.step(optimizer)
        scaler.update()
    assert apart(model, plainly_trained()[0]) < CLOSE


# ---- learning rates ----


def test_R44_a_scheduler_of_torch_in_a_plain_loop(layout: str) -> None:
    models = [small_net(), small_net()]
    optimizers = [optim_of(models[0], layout).optimizer, AdamW(models[1].parameters(), lr=0.01)]
    for model, optimizer in zip(models, optimizers, strict=True):
        plain_steps(model, optimizer, range(12), after=StepLR(optimizer, 4, 0.5).step)
    assert apart(*models) < CLOSE
    assert optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 / 8)


def test_R44_a_scheduler_of_torch_beside_steps_of_ours(layout: str) -> None:
    model, other = small_net(), small_net()
    optim, optimizer = optim_of(model, layout), AdamW(other.parameters(), lr=0.01)
    schedulers = [StepLR(optim.optimizer, 4, 0.5), StepLR(optimizer, 4, 0.5)]
    for number in range(12):
        steps(optim, [number])
        plain_steps(other, optimizer, [number])
        for scheduler in schedulers:
            scheduler.step()
    assert optim.get_lr() == pytest.approx(0.01 / 8)
    assert apart(model, other) < CLOSE


@pytest.mark.parametrize("how", ["by hand", "by a scheduler of torch"])
def test_R44_a_learning_rate_that_a_schedule_writes_over_is_said_once(
    how: str, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Or it is honoured."""
    optim = optim_of(small_net(), layout, schedule="Linear(steps=100)")
    steps(optim, range(2))
    said = len(caplog.messages)
    scheduler = StepLR(optim.optimizer, 1, 0.1) if how != "by hand" else None
    group = optim.optimizer.param_groups[0]
    steps(optim, [2])  # torch wants to see one before the scheduler's
    for number in range(3, 7):
        if scheduler is None:
            group["lr"] = 1e-3
        else:
            scheduler.step()
        written = group["lr"]
        steps(optim, [number])
        honoured = group["lr"] == written
    told = [message for message in caplog.messages[said:] if "lr" in message or "learning rate" in message]
    assert honoured or len(told) == 1


def test_R44_a_group_that_is_added_is_trained_or_refused(layout: str) -> None:
    models = [small_net(), small_net()]
    optim, optimizer = optim_of(models[0], layout), AdamW(models[1].parameters(), lr=0.01)
    for model, theirs in zip(models, [optim.optimizer, optimizer], strict=True):
        model.append(nn.Linear(1, 1).double())
        model[5].load_state_dict({"weight": torch.ones(1, 1), "bias": torch.ones(1)})
        theirs.add_param_group({"params": list(model[5].parameters()), "lr": 0.05})
    try:
        steps(optim, range(4))
    except OptimSchedulerError:
        return
    plain_steps(models[1], optimizer, range(4))
    assert apart(*models) < CLOSE


# ---- state ----


def test_R40_dcp_gets_and_sets(layout: str) -> None:
    model, optim = trained(layout)
    state = copy.deepcopy(get_optimizer_state_dict(model, optim.optimizer))
    assert set(state["state"]) == {name for name, _ in model.named_parameters()}
    other, optim = anew(model, layout)
    set_optimizer_state_dict(other, optim.optimizer, state)
    steps(optim, range(6, 12))
    assert apart(other, plainly_trained()[0]) < CLOSE


def test_R40_the_optimizers_state_in_a_file(layout: str) -> None:
    model, optim = trained(layout)
    state = stored(optim.optimizer.state_dict())
    assert set(state["state"]) == set(range(8)), "a state for each of the model's own parameters"
    other, optim = anew(model, layout)
    optim.optimizer.load_state_dict(state)
    steps(optim, range(6, 12))
    assert apart(other, plainly_trained()[0]) < CLOSE


def test_R40_the_optimizers_state_goes_to_torchs_own(layout: str) -> None:
    model, optim = trained(layout)
    other = small_net()
    other.load_state_dict(model.state_dict())
    optimizer = AdamW(other.parameters(), lr=0.01)
    optimizer.load_state_dict(stored(optim.optimizer.state_dict()))
    plain_steps(other, optimizer, range(6, 12))
    assert apart(other, plainly_trained()[0]) < CLOSE


def test_R40_a_copy_of_model_and_object_goes_on_and_so_does_the_original(layout: str) -> None:
    model, optim = trained(layout)
    other, copied = copy.deepcopy((model, optim))
    steps(copied, range(6, 12))
    steps(optim, range(6, 12))
    assert apart(other, plainly_trained()[0]) < CLOSE
    assert apart(model, plainly_trained()[0]) < CLOSE


def test_R40_a_pickled_optimizer_is_an_ordinary_one(layout: str) -> None:
    _, optim = trained(layout, 12)
    found = pickle.loads(pickle.dumps(optim.optimizer))
    _, expected = plainly_trained()
    assert type(found) is AdamW
    assert found.param_groups[0].keys() == expected.param_groups[0].keys()
    for mine, theirs in zip(found.state.values(), expected.state.values(), strict=True):
        assert all(torch.allclose(mine[key], theirs[key], rtol=0, atol=CLOSE) for key in theirs)


def test_R44_an_entry_replaced_through_a_dict_that_was_held(layout: str) -> None:
    model, optim = trained(layout, 4)
    held = optim.optimizer.state[model[2].weight]
    steps(optim, range(4, 7))
    held["exp_avg"] = torch.zeros_like(held["exp_avg"])
    steps(optim, range(7, 12))
    other, optimizer = plainly_trained(7)
    optimizer.state[other[2].weight]["exp_avg"] = torch.zeros_like(other[2].weight)
    plain_steps(other, optimizer, range(7, 12))
    assert apart(model, other) < CLOSE


def test_R33_what_torchs_schedulers_keep_in_the_groups_is_in_the_librarys_own_state(layout: str) -> None:
    """Without `initial_lr`, `last_epoch=` of a resumed run is a KeyError."""
    model, optim = trained(layout)
    StepLR(optim.optimizer, 4, 0.5)
    _, resumed = anew(model, layout)
    resumed.load_state_dict(stored(optim.state_dict()))
    assert resumed.optimizer.param_groups[0].get("initial_lr") == 0.01
    StepLR(resumed.optimizer, 4, 0.5, last_epoch=3)


# ---- hooks ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kernel", [{}, {"fused": True}, {"fused": False}], ids=str)
def test_R41_a_hook_sees_the_gradient_that_is_applied(kernel: Any, dtype: torch.dtype, layout: str) -> None:
    """Divided by the batches of the window, and clipped; in the second update as in the first."""
    model, other = small_net().to(dtype), small_net().to(dtype)
    conf = {"lr": 1e-5, **kernel}
    optim = OptimScheduler("AdamW", conf, model, use_amp=False, accum_grad=2, grad_clip=0.1, layout=layout)
    seen = list[Tensor]()
    optim.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(p.grad.clone() for p in model.parameters() if p.grad is not None)
    )
    for window in ([0, 1], [2, 3]):
        seen.clear()
        other.load_state_dict(model.state_dict())
        other.zero_grad()
        steps(optim, window)
        for number in window:
            other(batch(number).to(dtype)).square().mean().mul(0.5).backward()
        nn.utils.clip_grad_norm_(other.parameters(), 0.1)
        for mine, p in zip(seen, other.parameters(), strict=True):
            torch.testing.assert_close(mine, p.grad)

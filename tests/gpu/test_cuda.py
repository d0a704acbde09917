"""R24 and the layouts on a CUDA device: nothing waits, nothing trains otherwise than on the host."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import OptimScheduler
from optimscheduler._torch_compat import takes_scale

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]

OPTIMIZERS = {"AdamW": {}, "SGD": {"momentum": 0.9}, "Adagrad": {}}


def a_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4)).cuda()


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 8, generator=generator).cuda(), torch.randn(4, 4, generator=generator).cuda())
        for _ in range(count)
    ]


def take(optim: OptimScheduler, batch: tuple[Tensor, Tensor], times: float = 1.0) -> None:
    with optim.forward():
        loss = (optim.model(batch[0]) - batch[1]).square().mean() * times
    optim.step({"loss": loss})


def an_optim(model: nn.Module, optim_type: str = "AdamW", **arguments: Any) -> OptimScheduler:
    conf = {"lr": 1e-2, **OPTIMIZERS[optim_type]}
    return OptimScheduler(optim_type, conf, model, **{"use_amp": False, "grad_clip": 0.5, **arguments})


@contextmanager
def nothing_waits() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("optim_type", OPTIMIZERS)
@pytest.mark.parametrize("use_amp", [False, "bf16", "fp16"])
@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("grad_clip", [0.5, None])
def test_R24_the_host_never_waits(optim_type: str, use_amp: Any, layout: str, grad_clip: Any) -> None:
    optim = an_optim(a_model(), optim_type, use_amp=use_amp, layout=layout, grad_clip=grad_clip, accum_grad=2)
    if not takes_scale(optim.member.gradients.stepped):
        pytest.skip(f"this torch has no fused {optim_type} for CUDA: such an optimizer waits once per update")
    data = batches(4)
    for batch in data:
        take(optim, batch)
    with nothing_waits():
        for i in range(200):
            take(optim, data[i % 4])
    assert optim.member.ledger.read()["applied"] + optim.member.ledger.read()["skipped"] == 102


@pytest.mark.parametrize("optim_type", OPTIMIZERS)
def test_R25_both_layouts_and_the_plain_loop_agree(optim_type: str) -> None:
    models = [a_model() for _ in range(3)]
    data = batches(40)
    for model, layout in zip(models, ("flat", "loose"), strict=False):
        optim = an_optim(model, optim_type, layout=layout)
        for batch in data:
            take(optim, batch)
    by_hand = getattr(torch.optim, optim_type)(models[2].parameters(), lr=1e-2, **OPTIMIZERS[optim_type])
    for x, y in data:
        (models[2](x) - y).square().mean().backward()
        nn.utils.clip_grad_norm_(models[2].parameters(), 0.5)
        by_hand.step()
        by_hand.zero_grad()
    flat, loose, hand = (nn.utils.parameters_to_vector(m.parameters()).detach() for m in models)
    assert (flat - hand).norm() <= 1e-5 * hand.norm()
    assert (loose - hand).norm() <= 1e-5 * hand.norm()


@pytest.mark.parametrize("optim_type", OPTIMIZERS)
@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("at", [0, 5])
def test_R20_a_refused_gradient_moves_nothing(optim_type: str, layout: str, at: int) -> None:
    optim = an_optim(a_model(), optim_type, layout=layout)
    data = batches(at + 2)
    for batch in data[:at]:
        take(optim, batch)
    before = copy.deepcopy([p.detach() for p in optim.model.parameters()])
    take(optim, data[at], times=float("nan"))
    for p, was in zip(optim.model.parameters(), before, strict=True):
        assert torch.equal(p, was)
    take(optim, data[at + 1])
    assert all(p.isfinite().all() for p in optim.model.parameters())
    assert optim.member.ledger.read() == {"applied": at + 1, "skipped": 1, "skips_in_row": 0}


def an_lstm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.LSTM(8, 8, num_layers=2)).cuda()


def test_the_flat_weights_of_cudnn_stay_in_one_piece() -> None:
    model, twin = an_lstm(), an_lstm()
    data = [torch.randn(5, 2, 8, device="cuda") for _ in range(6)]
    for net, layout in ((model, "flat"), (twin, "loose")):
        optim = an_optim(net, layout=layout)
        for x in data:
            with optim.forward():
                loss = net(x)[0].square().mean()
            optim.step({"loss": loss})
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other)


# ---- other hands ----


def a_foreign_step(optim: OptimScheduler, batch: tuple[Tensor, Tensor]) -> None:
    optim.optimizer.zero_grad()
    (optim.model(batch[0]) - batch[1]).square().mean().backward()
    nn.utils.clip_grad_norm_(optim.model.parameters(), 0.5)
    optim.optimizer.step()
    optim.optimizer.zero_grad()


@pytest.mark.parametrize("optim_type", OPTIMIZERS)
@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_R40_steps_of_ours_and_of_others_take_turns(optim_type: str, layout: str, first: str) -> None:
    """Counters that torch keeps on the host come to the device for the fused kernel, and serve both."""
    optim, model = an_optim(a_model(), optim_type, layout=layout), a_model()
    by_hand = getattr(torch.optim, optim_type)(model.parameters(), lr=1e-2, **OPTIMIZERS[optim_type])
    for i, batch in enumerate(batches(12)):
        (take if (i // 3) % 2 == (first == "theirs") else a_foreign_step)(optim, batch)
        (model(batch[0]) - batch[1]).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        by_hand.step()
        by_hand.zero_grad()
    for ours, theirs in zip(optim.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    counted = [float(state["step"]) for state in optim.optimizer.state.values() if "step" in state]
    assert set(counted) <= {12.0}


@pytest.mark.parametrize("layout", ["flat", "loose"])
@pytest.mark.parametrize("use_amp", [False, "fp16"])
def test_R41_a_hook_sees_the_gradient_as_it_is_applied(layout: str, use_amp: Any) -> None:
    optim = an_optim(a_model(), layout=layout, use_amp=use_amp, grad_clip=0.01, accum_grad=2)
    seen: list[Tensor] = []
    optim.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([p.grad.flatten() for p in optim.model.parameters()]).norm())  # type: ignore[union-attr]
    )
    for batch in batches(8):
        take(optim, batch)
    assert len(seen) == 4
    assert all(float(norm) == pytest.approx(0.01, rel=1e-3) for norm in seen)


@pytest.mark.parametrize("there", ["flat", "loose", "torch"])
@pytest.mark.parametrize("here", ["flat", "loose"])
def test_R36_states_go_on_in_either_layout(there: str, here: str) -> None:
    data, model = batches(10), a_model()
    optim = an_optim(model, layout="loose" if there == "torch" else there)
    for batch in data[:5]:
        take(optim, batch) if there != "torch" else a_foreign_step(optim, batch)
    copied = a_model()
    copied.load_state_dict(model.state_dict())
    resumed = an_optim(copied, layout=here)
    if there == "torch":
        resumed.optimizer.load_state_dict(copy.deepcopy(optim.optimizer.state_dict()))  # torch shares tensors
    else:
        resumed.load_state_dict(optim.state_dict())
    for batch in data[5:]:
        take(optim, batch)
        take(resumed, batch)
    for ours, theirs in zip(model.parameters(), copied.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)

"""R07, R13, R25: the library and the loop of the textbook reach the same weights, bit for bit."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import Noamlr, OptimScheduler
from tests import textbook

CHAR_LM = Path(__file__).parents[1] / "examples" / "char_lm" / "char_lm.py"
PLAIN: dict[str, Any] = {"lr": 3e-3, "fused": False}
OPTIMIZERS = [
    ("Adam", {"lr": 1e-2, "fused": False}),
    ("AdamW", {"lr": 1e-2, "fused": False, "weight_decay": 0.1}),
    ("SGD", {"lr": 1e-1, "fused": False, "momentum": 0.9, "dampening": 0.1}),
    ("RMSprop", {"lr": 1e-3}),
    ("Adagrad", {"lr": 1e-2, "fused": False}),
    ("Adafactor", {"lr": 1e-2}),
]


def noam(real_step: int, peak: float, warmup_steps: int) -> float:
    return peak * warmup_steps**0.5 * min(real_step**-0.5, real_step * warmup_steps**-1.5)


def ours(optim: OptimScheduler, batches: list[Any], loss_of: Any) -> list[float]:
    """The same batches through the library; the last one ends its window."""
    norms = []
    for number, batch in enumerate(batches, start=1):
        with optim.forward(last=number == len(batches)):
            loss = loss_of(optim.model, batch)
        report = optim.step({"loss": loss}).read()
        if report.completes:
            assert report.updated
            norms.append(report.grad_norm)
    return norms


def assert_equal(
    norms: list[float], model: nn.Module, their_norms: list[float], other: nn.Module, layout: str
) -> None:
    """Bit for bit where every tensor is on its own. Side by side, the norm is closer to the exact one."""
    if layout == "flat":
        assert norms == pytest.approx(their_norms, rel=1e-4)  # what torch's own norm is off by
        mine, theirs = (nn.utils.parameters_to_vector(m.parameters()).detach() for m in (model, other))
        assert (mine - theirs).norm() <= 1e-4 * theirs.norm()
        return
    assert norms == their_norms
    for (name, weight), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(weight, theirs), f"{name} differs by {(weight - theirs).abs().max():g}"


@pytest.mark.parametrize("layout", ["loose", "flat"])
def test_R25_char_model_for_50_updates_with_accumulation_3_clipping_and_a_short_last_window(
    layout: str,
) -> None:
    spec = importlib.util.spec_from_file_location("char_lm_for_test", CHAR_LM)
    assert spec is not None
    assert spec.loader is not None
    char_lm = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(char_lm)
    torch.manual_seed(0)
    model = char_lm.CharLM(context=32)
    twin = copy.deepcopy(model)
    data = char_lm.PydocText(split="train", context=32)
    rows = torch.randint(len(data), (149, 2)).tolist()  # 49 windows of 3 and one of 2
    batches = [
        {key: torch.stack([data[i][key] for i in pair]) for key in ("inputs", "targets")} for pair in rows
    ]

    def loss_of(m: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return m(batch)["loss"]

    optim = Noamlr(
        "Adam", PLAIN, model, accum_grad=3, grad_clip=0.5, warmup_steps=10, use_amp=False, layout=layout
    )
    norms = ours(optim, batches, loss_of)
    theirs = textbook.train(
        twin,
        torch.optim.Adam(twin.parameters(), lr=3e-3),
        batches,
        loss_of=loss_of,
        lr=lambda s: noam(s, 3e-3, 10),
        accum_grad=3,
        grad_clip=0.5,
    )
    assert len(norms) == 50
    assert sum(norm > 0.5 for norm in norms) > 10, "clipping must have been at work"
    assert_equal(norms, model, theirs, twin, layout)


@pytest.mark.parametrize("layout", ["loose", "flat"])
@pytest.mark.parametrize("accum_grad", [1, 3, 5])
@pytest.mark.parametrize(("optim_type", "optim_conf"), OPTIMIZERS, ids=[name for name, _ in OPTIMIZERS])
def test_R25_every_plain_optimizer_with_any_window(
    optim_type: str, optim_conf: dict[str, Any], accum_grad: int, layout: str
) -> None:
    if optim_type == "Adafactor":
        layout = "loose"  # the only one it has
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 3))
    twin = copy.deepcopy(model)
    batches = [(torch.randn(4, 5), torch.randn(4, 3)) for _ in range(31)]

    def loss_of(m: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (m(batch[0]) - batch[1]).square().mean()

    optim = OptimScheduler(
        optim_type, optim_conf, model, accum_grad=accum_grad, grad_clip=0.7, use_amp=False, layout=layout
    )
    norms = ours(optim, batches, loss_of)
    optimizer = getattr(torch.optim, optim_type)(twin.parameters(), **optim_conf)
    theirs = textbook.train(
        twin,
        optimizer,
        batches,
        loss_of=loss_of,
        lr=lambda _: optim_conf["lr"],
        accum_grad=accum_grad,
        grad_clip=0.7,
    )
    assert_equal(norms, model, theirs, twin, layout)


@pytest.mark.parametrize("optim_type", ["Adam", "AdamW", "SGD", "Adagrad"])
def test_R25_the_fused_kernel_agrees_with_the_plain_one(optim_type: str) -> None:
    conf = {"lr": 1e-2, **({"momentum": 0.9} if optim_type == "SGD" else {})}
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    twin = copy.deepcopy(model)
    batches = [(torch.randn(4, 5).double(), torch.randn(4, 3).double()) for _ in range(200)]

    def loss_of(m: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (m(batch[0]) - batch[1]).square().mean()

    fused = OptimScheduler(
        optim_type, {**conf, "fused": True}, model, accum_grad=3, grad_clip=0.5, use_amp=False
    )
    plain = OptimScheduler(
        optim_type, {**conf, "fused": False}, twin, accum_grad=3, grad_clip=0.5, use_amp=False
    )
    ours(fused, batches, loss_of)
    ours(plain, batches, loss_of)
    for weight, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        # the same formula in another order: a few roundings of 1e-16 in each of 67 updates
        torch.testing.assert_close(weight, theirs, rtol=1e-13, atol=1e-14)

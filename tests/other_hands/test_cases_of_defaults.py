"""R46: what the library chooses by itself never refuses what torch's default takes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import OptimScheduler
from tests.other_hands.cases import LAYOUTS, apart

pytestmark = pytest.mark.parametrize("layout", LAYOUTS)

CLOSE = 1e-6  # sums in another order, and a fused kernel; float32
KERNELS = ({}, {"fused": False})


def both(
    model: nn.Module,
    optim_type: str,
    conf: dict[str, Any],
    layout: str,
    *,
    loss_of: Callable[[nn.Module, int], Tensor],
    batches: int = 6,
    before: Callable[[nn.Module, int], None] = lambda model, number: None,
) -> float:
    """How far the library and torch's default are apart after some batches."""
    other = copy.deepcopy(model)
    optim = OptimScheduler(optim_type, conf, model, use_amp=False, grad_clip=None, layout=layout)
    default = {key: value for key, value in conf.items() if key != "fused"}
    optimizer = getattr(torch.optim, optim_type)(other.parameters(), **default)
    for number in range(batches):
        before(model, number)
        before(other, number)
        with optim.forward():
            loss = loss_of(model, number)
        optim.step({"loss": loss})
        loss_of(other, number).backward()
        optimizer.step()
        optimizer.zero_grad()
    return apart(model, other)


# ---- gradients that come late ----


def three_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1))


def inputs() -> Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


SGD = ({"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3}, {"momentum": 0.9, "nesterov": True}, {})


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("conf", SGD, ids=str)
def test_R46_a_layer_that_is_unfrozen_late(conf: Any, kernel: Any, layout: str) -> None:
    def unfreeze(model: nn.Module, number: int) -> None:
        model[0].requires_grad_(number >= 3)

    def loss_of(model: nn.Module, number: int) -> Tensor:
        return model(inputs()).square().mean()

    conf = {"lr": 0.1, **conf, **kernel}
    assert both(three_layers(), "SGD", conf, layout, loss_of=loss_of, before=unfreeze) < CLOSE


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("conf", SGD, ids=str)
def test_R46_a_layer_that_is_used_late(conf: Any, kernel: Any, layout: str) -> None:
    def loss_of(model: nn.Module, number: int) -> Tensor:
        return (model if number >= 3 else model[1:])(inputs()).square().mean()

    conf = {"lr": 0.1, **conf, **kernel}
    assert both(three_layers(), "SGD", conf, layout, loss_of=loss_of) < CLOSE


# ---- sparse and complex ----


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")  # torch's own
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize(
    ("optim_type", "conf"), [("SGD", {}), ("SGD", {"momentum": 0.9}), ("Adagrad", {})], ids=str
)
def test_R46_sparse_gradients(optim_type: str, conf: Any, kernel: Any, layout: str) -> None:
    def loss_of(model: nn.Module, number: int) -> Tensor:
        return model(torch.tensor([number % 10, 2])).square().mean()

    torch.manual_seed(0)
    embedding = nn.Embedding(10, 4, sparse=True)
    conf = {"lr": 0.1, **conf, **kernel}
    assert both(embedding, optim_type, conf, layout, loss_of=loss_of) < CLOSE


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
def test_R46_sparse_adam(layout: str) -> None:
    def loss_of(model: nn.Module, number: int) -> Tensor:
        return model(torch.tensor([number % 10, 2])).square().mean()

    torch.manual_seed(0)
    embedding = nn.Embedding(10, 4, sparse=True)
    assert both(embedding, "SparseAdam", {"lr": 0.1}, layout, loss_of=loss_of) < CLOSE


class Waves(nn.Module):
    """A complex matrix beside real parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Parameter(torch.randn(4, 4, dtype=torch.complex64))
        self.v = nn.Parameter(torch.randn(4))
        self.z = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = ((self.w @ (x + 0j)).abs() * self.v[:, None] * self.z).square().mean()
        return out


@pytest.mark.parametrize("optim_type", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam"])
def test_R46_complex_parameters(optim_type: str, layout: str) -> None:
    def loss_of(model: nn.Module, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(number)
        loss: Tensor = model(torch.randn(4, 3, generator=generator))
        return loss

    close = 1e-5  # the first steps of Adam are lr * sign(gradient) where that is tiny
    assert both(Waves(), optim_type, {"lr": 0.01}, layout, loss_of=loss_of, batches=8) < close

"""Small models of torch, their batches, loops in both hands, and how far two trainings are apart. float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from optimscheduler import OptimScheduler

__all__ = ["LR", "MODELS", "apart", "batch", "encoder", "loss_of", "lstm", "ours", "plain", "steps", "torchs"]

LR = 0.01

torch.set_num_threads(1)


class Encoder(nn.Module):
    """A transformer encoder of torch, and a head."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x)).mean(1)
        return out


class Recurrent(nn.Module):
    """An LSTM of torch, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(8, 6, num_layers=2, batch_first=True)
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x)[0]).mean(1)
        return out


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return Encoder().double()


def lstm() -> nn.Module:
    torch.manual_seed(0)
    return Recurrent().double()


MODELS: tuple[Callable[[], nn.Module], ...] = (encoder, lstm)


def batch(number: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(4, 5, 8, generator=generator, dtype=torch.float64)
    return x, x.mean((1, 2))[:, None]


def loss_of(model: nn.Module, number: int) -> Tensor:
    x, y = batch(number)
    dtype = next(model.parameters()).dtype
    loss: Tensor = (model(x.to(dtype)) - y.to(dtype)).square().mean()
    return loss


def ours(model: nn.Module, layout: str, **more: Any) -> OptimScheduler:  # Any: the constructor's
    """Without clipping or casting: what torch does alone."""
    settings = {"use_amp": False, "grad_clip": None, "layout": layout, **more}
    return OptimScheduler("AdamW", {"lr": LR}, model, **settings)


def torchs(model: nn.Module) -> AdamW:
    return AdamW(model.parameters(), lr=LR)


def steps(optim: OptimScheduler, numbers: Iterable[int], model: nn.Module | None = None) -> None:
    """As the library is used."""
    for number in numbers:
        with optim.forward():
            loss = loss_of(optim.model if model is None else model, number)
        optim.step({"loss": loss})


def plain(
    model: nn.Module, optimizer: Optimizer, numbers: Iterable[int], after: Callable[[], object] = lambda: None
) -> None:
    """As everybody else trains."""
    for number in numbers:
        optimizer.zero_grad()
        loss_of(model, number).backward()
        optimizer.step()
        after()
    optimizer.zero_grad()


def apart(one: tuple[nn.Module, Optimizer], other: tuple[nn.Module, Optimizer]) -> float:
    """The largest difference of a weight, a buffer or an entry of the optimizer's state."""
    pairs = [*_pairs(one[0].state_dict(), other[0].state_dict())]
    states = [copy.copy(optimizer.state_dict()["state"]) for _, optimizer in (one, other)]
    assert states[0].keys() == states[1].keys()
    for number in states[0]:
        pairs += _pairs(states[0][number], states[1][number])
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def _pairs(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    assert one.keys() == other.keys()
    return [(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one]

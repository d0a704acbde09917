"""Small models, batches and plain loops of `test_cases.py` and `test_cases_of_models.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler import OptimScheduler

__all__ = ["LAYOUTS", "apart", "batch", "plain_steps", "small_net", "steps"]

LAYOUTS = ("auto", "loose")


def small_net() -> nn.Sequential:
    """Three layers and a norm; float64."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 1)
    ).double()


def batch(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(3, 4, generator=generator, dtype=torch.float64)


def steps(optim: OptimScheduler, numbers: Iterable[int]) -> None:
    """Ordinary ones of the library."""
    for number in numbers:
        x = batch(number).to(next(optim.model.parameters()).dtype)
        with optim.forward():
            loss = optim.model(x).square().mean()
        optim.step({"loss": loss})


def plain_steps(model: nn.Module, optimizer: Optimizer, numbers: Iterable[int], after: Any = None) -> None:
    """Of a loop that anybody would write. Any: called after each step."""
    for number in numbers:
        optimizer.zero_grad()
        model(batch(number)).square().mean().backward()
        optimizer.step()
        if after is not None:
            after()


def apart(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of two weights."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)

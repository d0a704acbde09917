"""A model whose parts come and go, and pairs of OptimSchedulers over it that must agree: flat and loose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import OptimScheduler, StepReport
from optimscheduler.gradients import Packed
from tests.cases_models import optim_of

__all__ = [
    "WARNING",
    "Branches",
    "Do",
    "Draw",
    "agree",
    "buffers_of",
    "dissolved",
    "draws",
    "go",
    "is_flat",
    "pair",
    "play",
]

WARNING = "layout: loose from here on"

Draw = tuple[Tensor, bool]
"""An input, and whether the side branch is used."""

Do = Callable[[OptimScheduler], None]
"""What a user does to a model or its optimizer."""


class Branches(nn.Module):
    """A trunk that is always used, and a side that is used where a batch says so."""

    def __init__(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.last = nn.Linear(6, 2)
        self.side = nn.Linear(6, 2)
        self.to(dtype)

    def forward(self, x: Tensor, side: bool = True) -> Tensor:
        z = self.norm(torch.tanh(self.first(x.to(self.first.weight.dtype))))
        out: Tensor = self.last(z) + self.side(z) if side else self.last(z)
        return (out - 1).square().mean()


def draws(sides: str, seed: int = 0) -> list[Draw]:
    """A batch for each letter; `s` uses the side, `-` does not."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(5, 4, generator=generator, dtype=torch.float64), side == "s") for side in sides]


def pair(
    make: Callable[[], nn.Module] = Branches, optim_type: str = "AdamW", **arguments: Any
) -> tuple[OptimScheduler, OptimScheduler]:
    """Over equal models, flat and loose. Any: those of the constructor."""
    conf = {"lr": 0.02, **({"weight_decay": 0.1} if optim_type == "AdamW" else {})}
    arguments = {"conf": conf, "grad_clip": 0.5, **arguments}
    return (
        optim_of(make(), optim_type, layout="flat", **arguments),
        optim_of(make(), optim_type, layout="loose", **arguments),
    )


def go(optim: OptimScheduler, draw: Draw, **arguments: Any) -> StepReport:
    """One batch. Any: those of `step`."""
    with optim.forward():
        loss = optim.model(*draw)
    return optim.step({"loss": loss}, **arguments).read()


def is_flat(optim: OptimScheduler) -> bool:
    """Whether parameters lie side by side at this moment, and do so in truth."""
    gradients = optim.member.gradients
    if not isinstance(gradients, Packed) or not gradients.moved_elsewhere:
        return False
    return len(buffers_of(optim)) < len(gradients.moved_elsewhere) and all(
        buffer.is_whole() and _lie_in(buffer.leaf, buffer.parameters) for buffer in buffers_of(optim)
    )


def _lie_in(leaf: Tensor, parameters: list[nn.Parameter]) -> bool:
    start, end = leaf.data_ptr(), leaf.data_ptr() + leaf.nbytes
    return all(start <= p.data_ptr() and p.data_ptr() + p.nbytes <= end for p in parameters)


def buffers_of(optim: OptimScheduler) -> list[Any]:  # Any: private to the layout
    """The buffers there are."""
    buffers: list[Any] = optim.member.gradients._buffers  # type: ignore[attr-defined]
    return buffers


def dissolved(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether a layout was given up, and it was said."""
    return any(WARNING in message for message in caplog.messages)


def agree(one: nn.Module, other: nn.Module, rel: float = 1e-10) -> None:
    """Equal but for the order of additions in the norm; float64."""
    for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(
            mine.detach(), theirs.detach(), rtol=rel, atol=rel, msg=lambda m, name=name: f"{name}: {m}"
        )


def play(
    optims: tuple[OptimScheduler, OptimScheduler],
    batches: Sequence[Draw],
    do: Do,
    at: int | Sequence[int],
    step: Callable[[OptimScheduler, Draw], Any] = go,
) -> None:
    """Train both on the same batches, before some of which, from 1, something is done to both.

    They must agree after each batch, and the first must lie flat when it is done to it the first time.
    """
    when = [at] if isinstance(at, int) else at
    for number, batch in enumerate(batches, start=1):
        if number == when[0]:
            assert is_flat(optims[0])
        for optim in optims:
            if number in when:
                do(optim)
            step(optim, batch)
        agree(optims[0].model, optims[1].model)

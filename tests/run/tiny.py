"""What the runs of the tests train: models and data sets of a few numbers, named in configurations.

Both draw random numbers while they work (dropout, noisy items), so a resumed run that did not put every
generator back would differ.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from optimscheduler import OptimScheduler
from tests.cases import HalvedWhenWorse

__all__ = [
    "Draws",
    "Endless",
    "Fewer",
    "Frozen",
    "GptSized",
    "Hides",
    "Interrupted",
    "Leans",
    "MissingOnOne",
    "NanLr",
    "NoGradient",
    "NotOnMeta",
    "Points",
    "Poisoned",
    "RankInBuffer",
    "Remembers",
    "ReturnsTensor",
    "SendsItself",
    "Sized",
    "Smooth",
    "Speaks",
    "Steep",
    "Tiny",
    "TwoLosses",
    "Unsteady",
    "Weighted",
    "Writes",
    "halved",
]

Batch = dict[str, Tensor]


class Tiny(nn.Module):
    """4 -> width -> 1 with a norm that has buffers, and dropout."""

    def __init__(self, width: int = 6, dropout: float = 0.3) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be >= 1, not {width}")
        self.first = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(width, 1)

    def forward(self, batch: Batch) -> dict[str, Any]:
        hidden = self.dropout(torch.tanh(self.norm(self.first(batch["x"]))))
        error = self.second(hidden)[:, 0] - batch["y"]
        return {"loss": error.square().mean(), "largest": error.detach().abs().max(), "each": error.detach()}


class Smooth(nn.Module):
    """4 -> 6 -> 1 and nothing random, so that ranks can be compared with one process."""

    def __init__(self, partly: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 1)])
        self.unused = nn.Linear(1, 1) if partly else None

    def forward(self, batch: Batch) -> dict[str, Any]:
        first, second = self.layers
        error = second(torch.tanh(first(batch["x"])))[:, 0] - batch["x"].sum(1)
        return {"loss": error.square().mean(), "items": torch.tensor(float(len(error)))}


class Hides(Tiny):
    """One whose loss is finite where its gradient and its buffers are not."""

    def forward(self, batch: Batch) -> dict[str, Any]:
        return {"loss": super().forward(batch)["loss"].nan_to_num()}


class Leans(Tiny):
    """One whose loss depends on its buffers in training, too."""

    def forward(self, batch: Batch) -> dict[str, Any]:
        before = self.norm.running_mean.sum()
        return {"loss": super().forward(batch)["loss"] + before}


class TwoLosses(nn.Module):
    """Two halves with a loss each, of which only one minds an item that is not a number."""

    def __init__(self) -> None:
        super().__init__()
        self.easy, self.hard = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, batch: Batch) -> dict[str, Any]:
        x = batch["x"]
        return {"easy": self.easy(x.nan_to_num()).square().mean(), "hard": self.hard(x).square().mean()}


class Steep(Smooth):
    """One whose gradients are in the thousands, in half precision too large for a first loss scale."""

    def forward(self, batch: Batch) -> dict[str, Any]:
        first, second = self.layers
        return {"loss": 100.0 * second(torch.tanh(first(batch["x"]))).float().mean()}


class Speaks(Smooth):
    """One that calls itself, three times, to show what it has learned."""

    def write_sample(self, *, generator: torch.Generator) -> str:
        x = torch.randn(3, 4, generator=generator)
        with torch.no_grad():
            return " ".join(f"{float(self({'x': x * n})['loss']):.3f}" for n in (1, 2, 3))


class _Rank(nn.Module):
    """A buffer that each rank writes its number into."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rank", torch.zeros(()))

    def forward(self) -> None:
        self.rank.fill_(float(os.environ.get("RANK", "0")))


class RankInBuffer(Smooth):
    """One whose buffers are not the same on every rank."""

    def __init__(self) -> None:
        super().__init__()
        self.ranks = nn.ModuleList(_Rank() for _ in range(8))

    def forward(self, batch: Batch) -> dict[str, Any]:
        for each in self.ranks:
            each()
        return super().forward(batch)


class Interrupted(Smooth):
    """One whose second rank gets a signal in its n-th training batch."""

    def __init__(self, at: int, signal: int) -> None:
        super().__init__()
        self.at, self.signal, self.calls = at, signal, 0

    def forward(self, batch: Batch) -> dict[str, Any]:
        self.calls += self.training
        if self.training and self.calls == self.at and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), self.signal)
        return super().forward(batch)


class Writes(Tiny):
    """One that shows what it has learned, and is careless with the global generators."""

    def write_sample(self, *, generator: torch.Generator) -> str:
        torch.rand(3)
        return f"[bold]{torch.randint(10, (1,), generator=generator).item()}\nsecond line"


class Draws(Tiny):
    """One that draws what it has learned."""

    def draw_sample(self, *, generator: torch.Generator) -> Tensor:
        torch.rand(3)
        return torch.rand(3, 5, generator=generator)


class SendsItself(Tiny):
    """One that presses Ctrl-C in its n-th training batch, `times` times."""

    def __init__(self, at: int, times: int = 1) -> None:
        super().__init__()
        self.at, self.times, self.calls = at, times, 0

    def forward(self, batch: Batch) -> dict[str, Any]:
        self.calls += self.training
        if self.training and self.at <= self.calls < self.at + self.times:
            os.kill(os.getpid(), signal.SIGINT)
        return super().forward(batch)


class Weighted(Tiny):
    """One whose loss is a mean over the items that count, and says how many those are."""

    def forward(self, batch: Batch) -> dict[str, Any]:
        error = self.second(torch.tanh(self.first(batch["x"])))[:, 0] - batch["y"]
        counts = (batch["x"][:, 0] > 0).double()
        return {"loss": (error.square() * counts).sum() / counts.sum(), "items": counts.sum()}


class NoGradient(Tiny):
    def forward(self, batch: Batch) -> dict[str, Any]:
        return {"loss": super().forward(batch)["loss"].detach()}


class ReturnsTensor(Tiny):
    def forward(self, batch: Batch) -> Any:
        return super().forward(batch)["loss"]


class Frozen(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class GptSized(nn.Module):
    """The parameters of GPT-2 small, 124 million in 148 tensors, and hardly any work with them."""

    def __init__(self, width: int = 768, layers: int = 12, words: int = 50257) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(1024, width)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.LayerNorm(width),
                    nn.Linear(width, 3 * width),
                    nn.Linear(width, width),
                    nn.LayerNorm(width),
                    nn.Linear(width, 4 * width),
                    nn.Linear(4 * width, width),
                ]
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, batch: Batch) -> dict[str, Any]:
        wanted = batch["x"].sum()
        return {"loss": sum((p.mean() - wanted).square() for p in self.parameters())}


class NotOnMeta(Tiny):
    """One that looks at its weights when it is built."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = float(self.first.weight.detach().abs().max())


class Fewer(Dataset[Batch]):
    """One that does not hold the same on every rank."""

    def __init__(self) -> None:
        self._count = 18 - int(os.environ.get("RANK", "0"))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        return {"x": torch.ones(4) * index}


class MissingOnOne(Fewer):
    """One that is not there on the second rank."""

    def __len__(self) -> int:
        return 18 if self._count == 18 else 0


class Points(Dataset[Batch]):
    """y = the sum of x, plus noise that is drawn anew each time an item is taken, from three generators."""

    def __init__(self, count: int = 18, noise: float = 0.1) -> None:
        self._x = torch.randn(count, 4)
        self._noise = noise

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> Batch:
        drawn = torch.randn(()) + random.random() + np.random.rand()
        return {"x": self._x[index], "y": (self._x[index].sum() + self._noise * drawn).float()}


class Remembers(Points):
    """One whose items depend on how many it has given."""

    def __init__(self) -> None:
        super().__init__()
        self._given = 0

    def __getitem__(self, index: int) -> Batch:
        self._given += 1
        return {"x": self._x[index], "y": self._x[index].sum() * self._given}


class Poisoned(Points):
    """One with items that are not numbers."""

    def __init__(self, count: int = 18, bad: int | list[int] = 7) -> None:
        super().__init__(count)
        self._x[bad] = torch.nan


class Unsteady(Points):
    """One whose items are never twice the same."""

    def __getitem__(self, index: int) -> Batch:
        return {"x": self._x[index], "y": torch.tensor(float(int.from_bytes(os.urandom(2))))}


class Endless(IterableDataset[Batch]):
    """A stream."""

    def __iter__(self) -> Iterator[Batch]:
        return iter([])


class Sized:
    """Something with a length that is no data set."""

    def __len__(self) -> int:
        return 3


class NanLr(OptimScheduler):
    """A user's subclass with a mistake."""

    def update_lr(self, real_step: int, epoch_num: int) -> float:
        return float("nan") if real_step == 3 else 0.1 * epoch_num


def halved() -> HalvedWhenWorse:
    return HalvedWhenWorse()

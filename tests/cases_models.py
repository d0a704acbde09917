"""Tiny models, batches and comparisons that the tests of the core share. Everything is seeded."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optimscheduler import CheckpointError, OptimScheduler, StepReport

__all__ = [
    "Batch",
    "Spy",
    "TwoParts",
    "a_model",
    "assert_close",
    "assert_same",
    "batches",
    "by_hand",
    "differ",
    "forgotten",
    "frozen",
    "mse",
    "optim_of",
    "refused",
    "spy",
    "stored",
    "take",
    "train",
    "weights",
]

torch.set_num_threads(1)

Batch = tuple[Tensor, Tensor]


def a_model(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """4 -> 6 -> 2 with a norm: weights, biases and one-dimensional scales."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 2)).to(dtype)


class TwoParts(nn.Module):
    """An encoder and a decoder of equal shapes; `run` says through what the encoder is called."""

    def __init__(self, run: Any = None) -> None:  # Any: checkpoint's arguments differ from mode to mode
        super().__init__()
        torch.manual_seed(1)
        self.encoder = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self.decoder = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self._run = run or (lambda part, x: part(x))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = self.decoder(self._run(self.encoder, x))
        return {"loss": out.square().mean(), "other": out.abs().mean()}


def batches(count: int, size: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Batch]:
    """Batches for `a_model`."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 4, generator=generator).to(dtype),
            torch.randn(size, 2, generator=generator).to(dtype),
        )
        for _ in range(count)
    ]


def mse(model: nn.Module, batch: Batch) -> Tensor:
    """The mean squared error, in the output's precision as a training loop would have it."""
    error: Tensor = (model(batch[0]) - batch[1]).square().mean()
    return error


def optim_of(model: nn.Module, optim_type: str = "SGD", lr: float = 0.1, **arguments: Any) -> OptimScheduler:
    """An OptimScheduler; without arguments plain SGD that neither clips nor casts. Any: its own arguments."""
    conf = {"lr": lr, **arguments.pop("conf", {})}
    return OptimScheduler(optim_type, conf, model, **{"use_amp": False, "grad_clip": None, **arguments})


def take(optim: OptimScheduler, batch: Batch, times: float = 1.0, **arguments: Any) -> StepReport:
    """One batch through the library, its loss multiplied by `times`. Any: those of `step`."""
    with optim.forward():
        loss = mse(optim.model, batch)
    return optim.step({"loss": loss * times}, **arguments).read()


def train(optim: OptimScheduler, data: Iterable[Batch]) -> list[StepReport]:
    """One batch after the other."""
    return [take(optim, batch) for batch in data]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def stored(tree: Any) -> Any:  # Any: a tree of plain values and tensors
    """The tree as a file gives it back."""
    file = io.BytesIO()
    torch.save(tree, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def differ(one: Any, other: Any, place: str = "") -> list[str]:
    """The places where two trees differ, bit for bit; NaN is the same as NaN. Any: see `stored`."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return [] if (same and one.equal(other)) or (same and _bits(one).equal(_bits(other))) else [place]
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if set(one) != set(other):
            return [f"{place}: keys"]
        return [found for key in one for found in differ(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        if len(one) != len(other):
            return [f"{place}: length"]
        pairs = enumerate(zip(one, other, strict=True))
        return [found for i, (a, b) in pairs for found in differ(a, b, f"{place}[{i}]")]
    return [] if one == other or (one != one and other != other) else [place]


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def assert_same(one: Any, other: Any) -> None:  # Any: see `stored`
    """Two trees are equal, bit for bit."""
    assert differ(one, other) == []


def frozen(optim: OptimScheduler) -> Any:  # Any: see `stored`
    """A deep copy of everything that training would change."""
    return copy.deepcopy({"model": weights(optim.model), "optim": optim.state_dict()})


def by_hand(
    windows: Sequence[Sequence[Batch]], lr: float = 0.1, counts: Sequence[Sequence[float]] = ()
) -> dict[str, Tensor]:
    """Plain SGD by the formula: sum(n_i grad_i) / sum(n_i) over each window, n_i = 1 without `counts`."""
    model = a_model(dtype=torch.float64)
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


def refused(optim: OptimScheduler, state: Any, how: Any = "error") -> str:
    """The message of a load that must change nothing."""
    before = frozen(optim)
    with pytest.raises(CheckpointError) as caught:
        optim.load_state_dict(state, how)
    assert_same(frozen(optim), before)
    return str(caught.value)


class Spy(OptimScheduler):
    """Writes down how it was asked."""

    def sche_init(self, answer: Any = 0.1) -> None:
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []
        self.peak = self.get_lr()

    def update_lr(self, *args: Any, **kwargs: Any) -> float:
        self.asked.append((args, kwargs))
        answer: float = self.answer
        return answer


def spy(**arguments: Any) -> Spy:
    conf = {"lr": 0.5, **arguments.pop("conf", {})}
    return Spy("SGD", conf, a_model(), **{"use_amp": False, **arguments})


def forgotten(model: nn.Module) -> bool:
    """Whether no gradient is left; in a buffer that is a gradient of zeros."""
    return not any(p.grad is not None and p.grad.any() for p in model.parameters())

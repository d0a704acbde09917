"""R46: what the library chooses by itself takes what torch's own defaults take, and steps as they do.

Every class of torch, in every situation that fused kernels or packed parameters could stumble over.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler import OptimScheduler

CLASSES = [
    cls
    for name, cls in vars(torch.optim).items()
    if isinstance(cls, type) and issubclass(cls, Optimizer) and name not in ("Optimizer", "LBFGS")
]

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"momentum": 0.9},
    {"maximize": True, "weight_decay": 0.1},
    {"differentiable": True},
    {"capturable": True},
    {"foreach": True},
    {"fused": True},
    {"lr": torch.tensor(0.01)},
)


class Listed(nn.Module):
    """Parameters in a list, each pulled to a number of its own."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.own = nn.ParameterList(parameters)

    def loss(self, number: int) -> Tensor:
        parts = [
            (p * (1 + 0.1 * k + 0.05 * number) - 0.3 * k).abs().square().double().sum()
            for k, p in enumerate(self._used(number))
        ]
        return torch.stack(parts).sum().float()

    def _used(self, number: int) -> list[nn.Parameter]:
        return list(self.own)


class Late(Listed):
    """The last is used from the third batch on."""

    def _used(self, number: int) -> list[nn.Parameter]:
        return list(self.own)[: None if number >= 2 else -1]


class Gap(Listed):
    """The second is left out in two batches."""

    def _used(self, number: int) -> list[nn.Parameter]:
        return [p for k, p in enumerate(self.own) if k != 1 or number not in (2, 3)]


class Sparse(nn.Module):
    """An embedding with sparse gradients, and what is behind it."""

    def __init__(self, behind: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.behind = nn.Embedding(6, 4, sparse=True), behind

    def loss(self, number: int) -> Tensor:
        at = torch.tensor([number % 5, (number + 2) % 5, 4, 4])
        loss: Tensor = (self.behind(self.table(at)) - 0.3).square().sum()
        return loss


def some(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def strided() -> list[nn.Parameter]:
    wide, tall = some((4, 6), (4, 3))
    return [nn.Parameter(wide.detach()[:, ::2]), nn.Parameter(tall.detach().t()), *some((3, 4))]


SITUATIONS: dict[str, Callable[[], Any]] = {
    "late": lambda: Late(some((3, 4), (2, 3), (4, 2))),
    "gap": lambda: Gap(some((3, 4), (2, 3), (4, 2))),
    "float64": lambda: Listed(some((3, 4), (4, 2), dtype=torch.float64)),
    "bfloat16": lambda: Listed(some((3, 4), (4, 2), dtype=torch.bfloat16)),
    "complex": lambda: Listed([*some((3, 4)), *some((2, 3), dtype=torch.complex64)]),
    "mixed": lambda: Listed([*some((3, 4)), *some((3, 4), dtype=torch.float64)]),
    "no dimensions": lambda: Listed(some((3, 4), (), ())),
    "empty": lambda: Listed(some((3, 4), (0, 4), (2, 2))),
    "strided": lambda: Listed(strided()),
    "sparse": lambda: Sparse(nn.Identity()),
    "sparse and dense": lambda: Sparse(nn.Linear(4, 2)),
}

NEAR = {torch.float64: 1e-12, torch.bfloat16: 3e-2}  # of the latter four roundings of 2**-7


def plain(cls: type[Optimizer], model: Any, conf: dict[str, Any]) -> None:
    optimizer = cls(list(model.parameters()), **conf)
    for number in range(6):
        model.loss(number).backward()
        optimizer.step()
        optimizer.zero_grad()


def ours(cls: type[Optimizer], model: Any, conf: dict[str, Any]) -> None:
    optim = OptimScheduler(cls, conf, model, use_amp=False, grad_clip=None)
    for number in range(6):
        with optim.forward():
            loss = model.loss(number)
        assert optim.step(loss).read().updated


def settings(cls: type[Optimizer]) -> list[dict[str, Any]]:
    known = inspect.signature(cls).parameters
    return [{"lr": 0.01, **conf} for conf in OPTIONS if set(conf) <= set(known)]


def own_conf(conf: dict[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in conf.items()}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.filterwarnings("ignore")  # of torch, about complex numbers
def test_R46_the_step_is_that_of_torchs_default_or_refused_as_torch_does(
    cls: type[Optimizer], situation: str
) -> None:
    for conf in settings(cls):
        if (cls, situation) == (torch.optim.SGD, "bfloat16") and conf.get("fused"):
            continue  # asked for by name, torch's kernel leaves most of these weights where they are
        expected, found = SITUATIONS[situation](), SITUATIONS[situation]()
        try:
            plain(cls, expected, own_conf(conf))
        except Exception as error:  # whatever torch raises
            if isinstance(conf["lr"], Tensor):
                continue  # ours is a number by then, which torch may take
            with pytest.raises(type(error)):
                ours(cls, found, own_conf(conf))
            continue
        ours(cls, found, own_conf(conf))
        for theirs, weight in zip(expected.parameters(), found.parameters(), strict=True):
            near = NEAR.get(weight.dtype, 2e-6)
            if isinstance(conf["lr"], Tensor):
                near = max(near, 1e-6)  # torch calculates with it in float32
            torch.testing.assert_close(
                weight, theirs, rtol=near, atol=near, msg=lambda m, c=conf: f"{c}: {m}"
            )

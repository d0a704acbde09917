"""What people do to a model between two steps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, parametrizations, parametrize, vector_to_parameters
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from optimscheduler import OptimScheduler
from tests.hosts.row import EQUAL, Row
from tests.hosts.trainings import MODELS, apart, loss_of, ours, plain, steps, torchs

__all__ = ["ROWS"]


def _done_between(do: Callable[[nn.Module, int], object], layout: str, **more: Any) -> float:
    """Something is done to the model after each batch, in three hands: `optim.step`, a loop, torch."""
    found = []
    for make in MODELS:
        models = [make() for _ in range(3)]
        optim = ours(models[0], layout)
        optimizers = [optim.optimizer, ours(models[1], layout).optimizer, torchs(models[2])]
        for number in range(8):
            steps(optim, [number])
            for model, optimizer in list(zip(models, optimizers, strict=True))[1:]:
                plain(model, optimizer, [number])
            for model in models:
                do(model, number)
        sides = list(zip(models, optimizers, strict=True))
        found += [apart(side, sides[2]) for side in sides[:2]]
    return max(found)


def _averaged(layout: str) -> float:
    """The averages are compared, too; they are put into the model at the end, as people do."""
    averages: dict[nn.Module, AveragedModel] = {}

    def update(model: nn.Module, number: int) -> None:
        if model not in averages:
            averages[model] = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        averages[model].update_parameters(model)
        if number == 5:
            model.load_state_dict(averages[model].module.state_dict())

    return _done_between(update, layout)


@torch.no_grad()
def _swap_in_and_out(model: nn.Module, number: int) -> None:
    """As weights of an average are evaluated: `p.data` is another tensor for a while."""
    own = [p.data for p in model.parameters()]
    for p in model.parameters():
        p.data = p.data * 0.5
    loss_of(model, number)
    for p, data in zip(model.parameters(), own, strict=True):
        p.data = data


@torch.no_grad()
def _merge(model: nn.Module, number: int) -> None:
    """As PEFT merges an adapter into a weight in place, and takes it out again after some batches."""
    delta = torch.full_like(model.get_parameter("head.weight"), 0.125)
    model.get_parameter("head.weight").data += delta if number % 4 == 1 else -delta if number % 4 == 3 else 0


def _as_a_vector(model: nn.Module, number: int) -> None:
    vector_to_parameters(parameters_to_vector(model.parameters()).detach() * 0.95, model.parameters())


def _to_float32_and_back(layout: str) -> float:
    """`model.to(dtype)` in mid-run; torch's optimizers go on with the state that they have."""

    def convert(model: nn.Module, number: int) -> None:
        if number == 3:
            model.to(torch.float32).to(torch.float64)

    return _done_between(convert, layout)


def _swapped_tensors(layout: str) -> float:
    """`model.to(dtype)` under torch's new way, which exchanges what lies behind a Parameter."""

    def convert(model: nn.Module, number: int) -> None:
        if number == 3:
            torch.__future__.set_swap_module_params_on_conversion(True)
            try:
                model.to(torch.float32).to(torch.float64)
            finally:
                torch.__future__.set_swap_module_params_on_conversion(False)

    return _done_between(convert, layout)


def _compiled(layout: str) -> float:
    found = []
    for make in MODELS:
        models = [make() for _ in range(3)]
        compiled = [torch.compile(model, backend="eager") for model in models]
        optim = ours(models[0], layout)
        optimizers = [optim.optimizer, ours(models[1], layout).optimizer, torchs(models[2])]
        steps(optim, range(6), model=compiled[0])
        for model, optimizer in list(zip(compiled, optimizers, strict=True))[1:]:
            plain(model, optimizer, range(6))
        sides = list(zip(models, optimizers, strict=True))
        found += [apart(side, sides[2]) for side in sides[:2]]
    return max(found)


def _weight_norm_removed(layout: str) -> float | str:
    """The weight that takes its place is a new Parameter: torch does not train it, and does not say so."""

    def make() -> nn.Module:
        model = MODELS[0]()
        model.head = parametrizations.weight_norm(model.head)
        return model

    model, other = make(), make()
    optim, optimizer = ours(model, layout), torchs(other)
    steps(optim, range(4))
    plain(other, optimizer, range(4))
    for each in (model, other):
        parametrize.remove_parametrizations(each.head, "weight")
    told = _said(lambda: steps(optim, range(4, 8)), of="head.weight")
    plain(other, optimizer, range(4, 8))
    assert apart((model, optim.optimizer), (other, optimizer)) < EQUAL
    return "= torch, and said: " + told


class _Adapter(nn.Module):
    """What PEFT puts in the place of a linear layer."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.ones(2, base.in_features, dtype=torch.float64) * 0.1)
        self.up = nn.Parameter(torch.ones(base.out_features, 2, dtype=torch.float64) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + x @ self.down.T @ self.up.T
        return out


def _injected(layout: str) -> str:
    """Adapters that come after the object was built; torch's optimizer leaves them alone without a word."""
    model, other = MODELS[0](), MODELS[0]()
    optim, optimizer = ours(model, layout), torchs(other)
    steps(optim, range(4))
    plain(other, optimizer, range(4))
    for each in (model, other):
        each.head = _Adapter(each.head)
    told = _said(lambda: steps(optim, range(4, 8)), of="head.down")
    plain(other, optimizer, range(4, 8))
    assert apart((model, optim.optimizer), (other, optimizer)) < EQUAL
    return "= torch, and said: " + told


def _injected_and_told(layout: str) -> float:
    """As the message advises."""
    sides = []
    for make_optimizer in (lambda model: ours(model, layout), torchs):
        model = MODELS[0]()
        optim = make_optimizer(model)
        _go(model, optim, range(4))
        model.head = _Adapter(model.head)
        optimizer = optim if isinstance(optim, Optimizer) else optim.optimizer
        optimizer.param_groups[0]["params"] += [model.head.down, model.head.up]
        _go(model, optim, range(4, 8))
        sides.append((model, optimizer))
    return apart(*sides)


def _go(model: nn.Module, optim: OptimScheduler | Optimizer, numbers: range) -> None:
    if isinstance(optim, Optimizer):
        plain(model, optim, numbers)
    else:
        steps(optim, numbers)


def _said(do: Callable[[], object], of: str) -> str:
    """The first sentence of what the library logs about a parameter meanwhile."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("optimscheduler")
    log.addHandler(handler)
    try:
        do()
    finally:
        log.removeHandler(handler)
    return next((message.partition(". ")[0] for message in told if of in message), "nothing")


ROWS = (
    Row(name="averaged", tool="`torch.optim.swa_utils.AveragedModel`, also loaded back", trial=_averaged),
    Row(
        name="exchanged",
        tool="weights exchanged for an evaluation (`p.data = average`, and back)",
        trial=lambda layout: _done_between(_swap_in_and_out, layout),
    ),
    Row(
        name="vector",
        tool="`parameters_to_vector`, `vector_to_parameters`",
        trial=lambda layout: _done_between(_as_a_vector, layout),
    ),
    Row(
        name="merged",
        tool="an adapter merged into a weight in place, and out again (PEFT)",
        trial=lambda layout: _done_between(_merge, layout),
    ),
    Row(
        name="injected", tool="adapters put into the model after the object was built (PEFT)", trial=_injected
    ),
    Row(
        name="injected_and_told",
        tool='the same, appended to `optim.optimizer.param_groups[0]["params"]`',
        trial=_injected_and_told,
    ),
    Row(
        name="weight_norm",
        tool="`remove_parametrizations` of a `weight_norm` in mid-run",
        trial=_weight_norm_removed,
    ),
    Row(name="to_dtype", tool="`model.to(dtype)` in mid-run", trial=_to_float32_and_back),
    Row(
        name="to_dtype_swapped",
        tool="the same under `set_swap_module_params_on_conversion(True)`",
        trial=_swapped_tensors,
    ),
    Row(name="compiled", tool="`torch.compile(model)`", trial=_compiled),
)

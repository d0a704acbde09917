"""Accelerate over `optim.optimizer`."""

from __future__ import annotations

import tempfile
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import StepLR

from tests.hosts.row import Row
from tests.hosts.trainings import MODELS, apart, loss_of, ours, plain, steps, torchs

__all__ = ["ROWS"]


def _prepared(model: nn.Module, optimizer: Optimizer) -> Any:  # Any: what Accelerate gives
    """Two batches make a gradient."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    return accelerator, *accelerator.prepare(model, optimizer, StepLR(optimizer, 3, 0.5))


def _go(prepared: Any, numbers: range) -> None:
    accelerator, model, optimizer, scheduler = prepared
    for number in numbers:
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(model, number))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()


def _trained(layout: str) -> float:
    found = []
    for make in MODELS:
        sides = [(model := make(), ours(model, layout).optimizer), (model := make(), torchs(model))]
        for side in sides:
            _go(_prepared(*side), range(12))
        assert sides[0][1].param_groups[0]["lr"] == sides[1][1].param_groups[0]["lr"] < 0.01
        found.append(apart(*sides))
    return max(found)


def _resumed(layout: str) -> float:
    """`save_state` half of the way; another process goes on."""
    found = []
    for make in MODELS:
        first, model, other = make(), make(), make()
        side = model, ours(model, layout).optimizer
        with tempfile.TemporaryDirectory() as folder:
            prepared = _prepared(first, ours(first, layout).optimizer)
            _go(prepared, range(6))
            prepared[0].save_state(folder)
            again = _prepared(*side)
            again[0].load_state(folder)
            _go(again, range(6, 12))
        optimizer = torchs(other)
        _go(_prepared(other, optimizer), range(12))
        found.append(apart(side, (other, optimizer)))
    return max(found)


def _ours(layout: str) -> float:
    """The library steps; Accelerate wraps the model, saves and loads."""
    from accelerate import Accelerator

    found = []
    for make in MODELS:
        models = [make(), make(), make()]
        optims = [ours(model, layout) for model in models[:2]]
        accelerators, wrapped = [], []
        for model, optim in zip(models, optims, strict=False):
            accelerators.append(Accelerator(cpu=True))
            wrapped.append(accelerators[-1].prepare(model))
            accelerators[-1].register_for_checkpointing(optim)
        steps(optims[0], range(4), model=wrapped[0])
        with tempfile.TemporaryDirectory() as folder:
            accelerators[0].save_state(folder)
            accelerators[1].load_state(folder)
        steps(optims[1], range(4, 8), model=wrapped[1])
        optimizer = torchs(models[2])
        plain(models[2], optimizer, range(8))
        found.append(apart((models[1], optims[1].optimizer), (models[2], optimizer)))
    return max(found)


def _their_windows(layout: str) -> float:
    """The library steps, where Accelerate says that a window ends."""
    from accelerate import Accelerator

    found = []
    for make in MODELS:
        model, other = make(), make()
        optim, optimizer = ours(model, layout, accum_grad="host"), torchs(other)
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        wrapped = accelerator.prepare(model)
        for number in range(8):
            with accelerator.accumulate(wrapped):
                with optim.forward(last=accelerator.sync_gradients):
                    loss = loss_of(wrapped, number)
                optim.step({"loss": loss})
            (loss_of(other, number) / 2).backward()
            if number % 2:
                optimizer.step()
                optimizer.zero_grad()
        found.append(apart((model, optim.optimizer), (other, optimizer)))
    return max(found)


ROWS = (
    Row(
        name="accelerate",
        tool="Accelerate: `accelerator.prepare(model, optim.optimizer)`, `accumulate`, `clip_grad_norm_`",
        trial=_trained,
        needs="accelerate",
    ),
    Row(
        name="accelerate_resumed",
        tool="Accelerate: `save_state`, `load_state`",
        trial=_resumed,
        needs="accelerate",
    ),
    Row(
        name="accelerate_ours",
        tool="Accelerate: `prepare(model)`, `register_for_checkpointing(optim)`, `optim.step`, `save_state`",
        trial=_ours,
        needs="accelerate",
    ),
    Row(
        name="accelerate_windows",
        tool='Accelerate: `accumulate`, `accum_grad="host"`, `forward(last=accelerator.sync_gradients)`',
        trial=_their_windows,
        needs="accelerate",
    ),
)

"""Loops over `optim.optimizer` as everybody writes them."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from optimscheduler.schedules import Schedule, to_lambda
from tests.hosts.row import Row
from tests.hosts.trainings import MODELS, apart, loss_of, ours, plain, steps, torchs

__all__ = ["ROWS"]


def _plain_loop(layout: str) -> float:
    """Alone, and taking turns with `optim.step`."""
    found = []
    for make in MODELS:
        model, turns, other = make(), make(), make()
        alone, optim, optimizer = ours(model, layout).optimizer, ours(turns, layout), torchs(other)
        plain(other, optimizer, range(9))
        plain(model, alone, range(9))
        steps(optim, range(3))
        plain(turns, optim.optimizer, range(3, 6))
        steps(optim, range(6, 9))
        found += [apart((m, o), (other, optimizer)) for m, o in ((model, alone), (turns, optim.optimizer))]
    return max(found)


def _scheduler(layout: str) -> float:
    found = []
    for make in MODELS:
        sides = [(model := make(), ours(model, layout).optimizer), (model := make(), torchs(model))]
        for model, optimizer in sides:
            plain(model, optimizer, range(8), after=CosineAnnealingLR(optimizer, 6).step)
        assert sides[0][1].param_groups[0]["lr"] == sides[1][1].param_groups[0]["lr"]
        found.append(apart(*sides))
    return max(found)


def _scheduler_beside(layout: str) -> float:
    found = []
    for make in MODELS:
        model, other = make(), make()
        optim, optimizer = ours(model, layout), torchs(other)
        schedulers = [CosineAnnealingLR(optim.optimizer, 6), CosineAnnealingLR(optimizer, 6)]
        for number in range(8):
            steps(optim, [number])
            plain(other, optimizer, [number])
            for scheduler in schedulers:
                scheduler.step()
        found.append(apart((model, optim.optimizer), (other, optimizer)))
    return max(found)


def _our_schedule(layout: str) -> float:
    """As the page gives it to tools; beside the same one under `optim.step`."""
    found = []
    for make in MODELS:
        model, other = make(), make()
        theirs, optim = (
            ours(m, layout, schedule="Warmup(steps=2, then=Cosine(steps=6))") for m in (model, other)
        )
        assert isinstance(theirs.schedule, Schedule)
        scheduler = LambdaLR(theirs.optimizer, to_lambda(theirs.schedule))
        plain(model, theirs.optimizer, range(8), after=scheduler.step)
        steps(optim, range(8))
        found.append(apart((model, theirs.optimizer), (other, optim.optimizer)))
    return max(found)


def _grad_scaler(layout: str) -> float:
    """With an update that it refuses: its loss is infinite."""

    def go(model: nn.Module, optimizer: Optimizer) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for number in range(8):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, number) * (float("inf") if number == 3 else 1)).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 4.0

    return _both(go, layout)


def _clipped(layout: str) -> float:
    def go(model: nn.Module, optimizer: Optimizer) -> None:
        def clip(*_: object) -> None:
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 0.01)

        for number in range(8):
            optimizer.zero_grad()
            loss_of(model, number).backward()
            clip()
            optimizer.step()

    return _both(go, layout)


def _both(go: object, layout: str) -> float:
    assert callable(go)
    found = []
    for make in MODELS:
        sides = [(model := make(), ours(model, layout).optimizer), (model := make(), torchs(model))]
        for side in sides:
            go(*side)
        found.append(apart(*sides))
    return max(found)


ROWS = (
    Row(
        name="plain_loop",
        tool="a loop with `optim.optimizer.step()`, alone or in turns with `optim.step`",
        trial=_plain_loop,
    ),
    Row(name="scheduler", tool="`torch.optim.lr_scheduler` in such a loop", trial=_scheduler),
    Row(
        name="scheduler_beside",
        tool="`torch.optim.lr_scheduler` over `optim.optimizer` beside `optim.step`, without a `schedule`",
        trial=_scheduler_beside,
    ),
    Row(
        name="our_schedule",
        tool="a schedule of this library as `LambdaLR(optim.optimizer, to_lambda(optim.schedule))`",
        trial=_our_schedule,
    ),
    Row(name="grad_scaler", tool="`torch.amp.GradScaler`", trial=_grad_scaler),
    Row(name="clip", tool="`clip_grad_norm_` over the groups of `optim.optimizer`", trial=_clipped),
)

"""Numbers of the groups that other hands write, by hand or with a scheduler of torch's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from random import Random

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LRScheduler,
    OneCycleLR,
    StepLR,
)

from tests.other_hands.event import Event, keeps_no_lr, table
from tests.other_hands.sides import Side
from tests.other_hands.trainings import Training

__all__ = ["EVENTS"]

_MAKERS: list[Callable[[Optimizer], LRScheduler]] = [
    lambda optimizer: StepLR(optimizer, 2, 0.5),
    lambda optimizer: ExponentialLR(optimizer, 0.9),
    lambda optimizer: CosineAnnealingLR(optimizer, 20),
    lambda optimizer: OneCycleLR(
        optimizer, 0.03, total_steps=100, cycle_momentum="betas" in optimizer.defaults
    ),
]


def attach_or_step_a_scheduler(side: Side, rng: Random) -> None:
    i, optimizer = side.any_optimizer(rng)
    make = rng.choice(_MAKERS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if i in side.schedulers:
            side.schedulers[i].step()
        else:
            side.schedulers[i] = make(optimizer)
    side.tell("what torch's scheduler warns of", [str(warning.message) for warning in caught])
    side.tell("its learning rates", side.schedulers[i].get_last_lr())


def write_lr(side: Side, rng: Random) -> None:
    _, optimizer = side.any_optimizer(rng)
    rng.choice(optimizer.param_groups)["lr"] *= 0.6


def write_lr_of_all_groups(side: Side, rng: Random) -> None:
    for optimizer in side.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.013


def write_weight_decay(side: Side, rng: Random) -> None:
    _, optimizer = side.any_optimizer(rng)
    rng.choice(optimizer.param_groups)["weight_decay"] = 0.3


def write_betas(side: Side, rng: Random) -> None:
    _, optimizer = side.any_optimizer(rng)
    rng.choice(optimizer.param_groups)["betas"] = (0.7, 0.9)


def read_the_groups(side: Side, rng: Random) -> None:
    _, optimizer = side.any_optimizer(rng)
    groups = [
        {**group, "params": [side.name_of(p) for p in group["params"]]} for group in optimizer.param_groups
    ]
    side.tell("groups", groups)


def _decays(training: Training) -> bool:
    return training.optim_type != "Rprop"


def _has_betas(training: Training) -> bool:
    return training.optim_type in ("Adam", "AdamW", "Adamax", "NAdam", "RAdam")


EVENTS = table(
    Event(attach_or_step_a_scheduler, keeps_no_lr),
    Event(write_lr, keeps_no_lr),
    Event(write_lr_of_all_groups, keeps_no_lr),
    Event(write_weight_decay, _decays),
    Event(write_betas, _has_betas),
    read_the_groups,
)

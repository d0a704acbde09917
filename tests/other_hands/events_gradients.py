"""Gradients that other hands write, in mid-window and between windows."""

from __future__ import annotations

from random import Random

import torch
from torch import nn

from tests.other_hands.event import table
from tests.other_hands.sides import Side, parameters_of

__all__ = ["EVENTS"]


def clip_gradients(side: Side, rng: Random) -> None:
    _, optimizer = side.any_optimizer(rng)
    side.tell("norm", nn.utils.clip_grad_norm_(parameters_of(optimizer), 0.05))


def halve_gradients(side: Side, rng: Random) -> None:
    for p in side.model.parameters():
        if p.grad is not None:
            p.grad.mul_(0.5)


def write_a_gradient(side: Side, rng: Random) -> None:
    _, p = side.any_parameter(rng)
    p.grad = torch.full_like(p, 0.3)


def drop_a_gradient(side: Side, rng: Random) -> None:
    side.any_parameter(rng)[1].grad = None


def drop_all_gradients(side: Side, rng: Random) -> None:
    rng.choice([side.model, side.any_optimizer(rng)[1]]).zero_grad()


def zero_all_gradients(side: Side, rng: Random) -> None:
    rng.choice([side.model, side.any_optimizer(rng)[1]]).zero_grad(set_to_none=False)


def a_backward_of_ones_own(side: Side, rng: Random) -> None:
    side.loss(side.any_optimizer(rng)[0], rng).backward()


EVENTS = table(
    clip_gradients,
    halve_gradients,
    write_a_gradient,
    drop_a_gradient,
    drop_all_gradients,
    zero_all_gradients,
    a_backward_of_ones_own,
)

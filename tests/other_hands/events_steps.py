"""Steps: the library's own, and those of loops that other hands write over `optim.optimizer`."""

from __future__ import annotations

import math
from random import Random

import torch
from torch import Tensor, nn

from tests.other_hands.event import table
from tests.other_hands.sides import Side, batch_of, parameters_of

__all__ = ["EVENTS"]


def a_batch(side: Side, rng: Random) -> None:
    side.batch(*batch_of(rng, side.training.dtype))


def the_last_batch_of_a_window(side: Side, rng: Random) -> None:
    side.batch(*batch_of(rng, side.training.dtype), last=True)


def a_refused_window(side: Side, rng: Random) -> None:
    side.batch(*batch_of(rng, side.training.dtype), last=True, times=math.nan)


def a_flush(side: Side, rng: Random) -> None:
    side.flush()


def a_plain_step(side: Side, rng: Random) -> None:
    i, optimizer = side.any_optimizer(rng)
    optimizer.zero_grad(set_to_none=rng.random() < 0.7)
    side.loss(i, rng).backward()
    optimizer.step()


def two_plain_steps_that_clear_behind_them(side: Side, rng: Random) -> None:
    i, optimizer = side.any_optimizer(rng)
    for _ in range(2):
        side.loss(i, rng).backward()
        optimizer.step()
        optimizer.zero_grad()


def a_plain_step_with_a_closure(side: Side, rng: Random) -> None:
    i, optimizer = side.any_optimizer(rng)
    loss = side.loss(i, rng)

    def closure() -> float:
        optimizer.zero_grad()
        loss.backward()
        return loss.item()

    side.tell("the closure's loss", torch.tensor(optimizer.step(closure)))


def a_plain_step_that_clips(side: Side, rng: Random) -> None:
    i, optimizer = side.any_optimizer(rng)
    optimizer.zero_grad()
    side.loss(i, rng).backward()
    side.tell("norm", nn.utils.clip_grad_norm_(parameters_of(optimizer), 0.1))
    optimizer.step()
    optimizer.zero_grad()


def a_step_of_a_grad_scaler(side: Side, rng: Random) -> None:
    i, optimizer = side.any_optimizer(rng)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer.zero_grad()
    scaled: Tensor = scaler.scale(side.loss(i, rng))
    scaled.backward()
    if rng.random() < 0.7:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters_of(optimizer), 0.5)
    scaler.step(optimizer)
    scaler.update()


def a_step_that_a_grad_scaler_refuses(side: Side, rng: Random) -> None:
    i, optimizer = side.any_optimizer(rng)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer.zero_grad()
    scaled: Tensor = scaler.scale(side.loss(i, rng) * math.inf)
    scaled.backward()
    scaler.step(optimizer)
    scaler.update()
    side.tell("the scale", scaler.get_scale())
    side.model.zero_grad()


EVENTS = table(
    a_batch,
    the_last_batch_of_a_window,
    a_refused_window,
    a_flush,
    a_plain_step,
    two_plain_steps_that_clear_behind_them,
    a_plain_step_with_a_closure,
    a_plain_step_that_clips,
    a_step_of_a_grad_scaler,
    a_step_that_a_grad_scaler_refuses,
)

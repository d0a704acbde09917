"""Hooks of torch around the optimizer's step: they are called at every update, with what is applied."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from tests.other_hands.event import table
from tests.other_hands.sides import Side, batch_of, parameters_of

__all__ = ["EVENTS"]


def a_pre_hook_that_looks(side: Side, rng: Random) -> None:
    def look(optimizer: Optimizer, *_: Any) -> None:
        side.tell("gradients at a pre-hook", _gradients(side, optimizer))

    side.handles.append(side.any_optimizer(rng)[1].register_step_pre_hook(look))


def a_pre_hook_that_writes_gradients(side: Side, rng: Random) -> None:
    def clamp(optimizer: Optimizer, *_: Any) -> None:
        for p in parameters_of(optimizer):
            if p.grad is not None:
                p.grad.clamp_(-0.01, 0.01)

    side.handles.append(side.any_optimizer(rng)[1].register_step_pre_hook(clamp))


def a_pre_hook_that_replaces_a_gradient(side: Side, rng: Random) -> None:
    optimizer, chosen = side.any_parameter(rng)
    name = side.name_of(chosen)

    def replace(optimizer: Optimizer, *_: Any) -> None:
        p = side.model.get_parameter(name)
        p.grad = None if p.grad is None else p.grad * 0.5

    side.handles.append(optimizer.register_step_pre_hook(replace))


def a_post_hook_that_looks(side: Side, rng: Random) -> None:
    def look(optimizer: Optimizer, *_: Any) -> None:
        side.tell("gradients at a post-hook", _gradients(side, optimizer))
        side.tell("state at a post-hook", optimizer.state_dict()["state"])

    side.handles.append(side.any_optimizer(rng)[1].register_step_post_hook(look))


def a_post_hook_that_writes_weights(side: Side, rng: Random) -> None:
    @torch.no_grad()
    def shrink(optimizer: Optimizer, *_: Any) -> None:
        for p in parameters_of(optimizer):
            p.mul_(0.98)

    side.handles.append(side.any_optimizer(rng)[1].register_step_post_hook(shrink))


def a_post_hook_that_writes_the_state(side: Side, rng: Random) -> None:
    def halve(optimizer: Optimizer, *_: Any) -> None:
        for state in optimizer.state.values():
            if "exp_avg" in state:
                state["exp_avg"].mul_(0.5)
            if state.get("momentum_buffer") is not None:
                state["momentum_buffer"] = state["momentum_buffer"] * 0.5

    side.handles.append(side.any_optimizer(rng)[1].register_step_post_hook(halve))


def remove_a_hook(side: Side, rng: Random) -> None:
    if side.handles:
        side.handles.pop(rng.randrange(len(side.handles))).remove()


def global_hooks_around_a_batch(side: Side, rng: Random) -> None:
    """Each is called once for each optimizer that steps, and with no other optimizer."""

    def look(optimizer: Optimizer, *_: Any) -> None:
        number = next((i for i, known in enumerate(side.optimizers) if known is optimizer), None)
        side.tell("a global hook", [number, _gradients(side, optimizer)] if number is not None else "?")

    handles = [register_optimizer_step_pre_hook(look), register_optimizer_step_post_hook(look)]
    try:
        side.batch(*batch_of(rng, side.training.dtype), last=True)
    finally:
        for handle in handles:
            handle.remove()


def state_dict_hooks(side: Side, rng: Random) -> None:
    """Before and after saving and loading."""
    _, optimizer = side.any_optimizer(rng)

    def before_saving(_: Optimizer) -> None:
        side.tell("before saving", "")

    def after_saving(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        side.tell("after saving", state)
        return {**state, "more": 1}

    def before_loading(_: Optimizer, state: dict[str, Any]) -> None:
        side.tell("before loading", state)

    handles = [
        optimizer.register_state_dict_pre_hook(before_saving),
        optimizer.register_state_dict_post_hook(after_saving),
        optimizer.register_load_state_dict_pre_hook(before_loading),
        optimizer.register_load_state_dict_post_hook(lambda _: side.tell("after loading", "")),
    ]
    optimizer.load_state_dict(optimizer.state_dict())
    side.held.clear()
    for handle in handles:
        handle.remove()


def _gradients(side: Side, optimizer: Optimizer) -> dict[str, Any]:
    return {side.name_of(p): p.grad for p in parameters_of(optimizer)}


EVENTS = table(
    a_pre_hook_that_looks,
    a_pre_hook_that_writes_gradients,
    a_pre_hook_that_replaces_a_gradient,
    a_post_hook_that_looks,
    a_post_hook_that_writes_weights,
    a_post_hook_that_writes_the_state,
    remove_a_hook,
    global_hooks_around_a_batch,
    state_dict_hooks,
)

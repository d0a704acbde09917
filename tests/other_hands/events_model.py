"""The model's parameters: frozen, replaced, grown, written, moved, held."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler import ConfigError, ParameterError
from tests.other_hands.event import Event, table
from tests.other_hands.sides import Side, batch_of, parameters_of

__all__ = ["EVENTS"]

_ALWAYS_TRAINED = ("trunk.weight", "left.weight")
"""A loss that needs no gradient is refused."""


def freeze_a_parameter(side: Side, rng: Random) -> None:
    _, p = side.any_parameter(rng)
    if side.name_of(p) not in _ALWAYS_TRAINED:
        p.requires_grad_(False)
        if rng.random() < 0.5:
            p.grad = None


def unfreeze_all(side: Side, rng: Random) -> None:
    side.model.requires_grad_(True)


def replace_a_parameter(side: Side, rng: Random) -> None:
    """Another of the same shape takes the state over."""
    optimizer, p = side.any_parameter(rng)
    _put(side, optimizer, p, nn.Parameter(p.detach() * 0.9), dict(optimizer.state.pop(p, {})))
    _next_step(side, rng)


def grow_the_points(side: Side, rng: Random) -> None:
    """As 3D Gaussian splatting densifies: rows with zeros for state."""
    optimizer, p = _points(side)
    state = optimizer.state.pop(p, {})
    grown = {k: torch.cat([v, 0 * v[:1]]) if _is_by_row(v, p) else v for k, v in state.items()}
    _put(side, optimizer, p, nn.Parameter(torch.cat([p.detach(), 0.5 * p.detach()[:1]])), grown)
    _next_step(side, rng)


def prune_the_points(side: Side, rng: Random) -> None:
    """As 3D Gaussian splatting prunes: rows that stay."""
    optimizer, p = _points(side)
    if len(p) > 2:
        state = optimizer.state.pop(p, {})
        left = {k: v[1:] if _is_by_row(v, p) else v for k, v in state.items()}
        _put(side, optimizer, p, nn.Parameter(p.detach()[1:]), left)
    _next_step(side, rng)


def scale_the_weights(side: Side, rng: Random) -> None:
    for p in side.model.parameters():
        p.data.mul_(0.9)


@torch.no_grad()
def clamp_a_weight(side: Side, rng: Random) -> None:
    side.any_parameter(rng)[1].clamp_(-0.2, 0.2)


def move_a_weight(side: Side, rng: Random) -> None:
    _, p = side.any_parameter(rng)
    p.data = p.data.clone()


def move_all_weights(side: Side, rng: Random) -> None:
    for p in side.model.parameters():
        p.data = p.data.clone()


def other_weights_for_a_while(side: Side, rng: Random) -> None:
    """As an average of weights is evaluated."""
    own = [p.data for p in side.model.parameters()]
    for p in side.model.parameters():
        p.data = p.data * 0.5
    side.tell("loss of the average", side.loss(0, rng).detach())
    for p, data in zip(side.model.parameters(), own, strict=True):
        p.data = data


def load_weights(side: Side, rng: Random) -> None:
    side.model.load_state_dict({k: v * 0.95 for k, v in side.model.state_dict().items()})


def weights_as_a_vector(side: Side, rng: Random) -> None:
    vector = nn.utils.parameters_to_vector(side.model.parameters())
    nn.utils.vector_to_parameters(vector.detach() * 0.95, side.model.parameters())


def hold_the_models_state_dict(side: Side, rng: Random) -> None:
    side.shown.append(side.model.state_dict())


def _next_step(side: Side, rng: Random) -> None:
    """If the library does not take the new one in, this says so."""
    side.batch(*batch_of(rng, side.training.dtype), last=True)


def _points(side: Side) -> tuple[Optimizer, nn.Parameter]:
    points = side.model.points
    return next((o, p) for o in side.optimizers for p in parameters_of(o) if p is points)


def _is_by_row(value: object, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(parameter)


def _put(side: Side, optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter, state: Any) -> None:
    """In the model, in the optimizer's group, and with a state."""
    module, _, name = side.name_of(old).rpartition(".")
    setattr(side.model.get_submodule(module), name, new)
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    if state:
        optimizer.state[new] = state
    side.kept.clear()


_REPLACED = (ParameterError, ConfigError)  # it says what to type

EVENTS = table(
    freeze_a_parameter,
    unfreeze_all,
    Event(replace_a_parameter, refusals=_REPLACED),
    Event(grow_the_points, refusals=_REPLACED),
    Event(prune_the_points, refusals=_REPLACED),
    scale_the_weights,
    clamp_a_weight,
    move_a_weight,
    move_all_weights,
    other_weights_for_a_while,
    load_weights,
    weights_as_a_vector,
    hold_the_models_state_dict,
)

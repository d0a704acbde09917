"""`optimizer.state` read, written, reset and emptied by other hands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.other_hands.event import Event, makes_state_when_it_steps, table
from tests.other_hands.sides import Side, parameters_of

__all__ = ["EVENTS"]


def read_a_state(side: Side, rng: Random) -> None:
    optimizer, p = side.any_parameter(rng)
    side.tell(f"state of {side.name_of(p)}", dict(optimizer.state[p]) if p in optimizer.state else {})


def read_all_states(side: Side, rng: Random) -> None:
    _, optimizer = side.any_optimizer(rng)
    side.tell("states", {side.name_of(p): dict(state) for p, state in optimizer.state.items() if state})


def write_an_entry_in_place(side: Side, rng: Random) -> None:
    optimizer, p = side.any_parameter(rng)
    if found := _an_entry(optimizer, p, rng):
        found[1].mul_(0.5)


def count_a_step_more_in_place(side: Side, rng: Random) -> None:
    optimizer, p = side.any_parameter(rng)
    step = optimizer.state[p].get("step")
    if isinstance(step, Tensor):
        step.add_(2)


def replace_an_entry(side: Side, rng: Random) -> None:
    optimizer, p = side.any_parameter(rng)
    if found := _an_entry(optimizer, p, rng):
        optimizer.state[p][found[0]] = rng.choice([found[1] * 0.5, torch.zeros_like(found[1])])


def replace_a_step(side: Side, rng: Random) -> None:
    optimizer, p = side.any_parameter(rng)
    if isinstance(step := optimizer.state[p].get("step"), Tensor):
        optimizer.state[p]["step"] = torch.zeros_like(step)


def replace_a_state(side: Side, rng: Random) -> None:
    optimizer, p = side.any_parameter(rng)
    state = dict(optimizer.state[p])
    optimizer.state[p] = {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}


def drop_a_state(side: Side, rng: Random) -> None:
    optimizer, p = side.any_parameter(rng)
    optimizer.state.pop(p, None)


def drop_the_states_of_a_group(side: Side, rng: Random) -> None:
    _, optimizer = side.any_optimizer(rng)
    for p in rng.choice(optimizer.param_groups)["params"]:
        if p in optimizer.state:
            del optimizer.state[p]


def empty_the_state(side: Side, rng: Random) -> None:
    side.any_optimizer(rng)[1].state.clear()


def another_empty_state(side: Side, rng: Random) -> None:
    side.any_optimizer(rng)[1].state = defaultdict(dict)


def zero_all_entries(side: Side, rng: Random) -> None:
    """As ReLoRA does after a merge: all but the count."""
    _, optimizer = side.any_optimizer(rng)
    for p in parameters_of(optimizer):
        for value in _entries(optimizer, p).values():
            value.zero_()


def prune_all_entries(side: Side, rng: Random) -> None:
    """As ReLoRA does after a merge: the smaller half; where all are equal, rounding must not choose."""
    _, optimizer = side.any_optimizer(rng)
    for p in parameters_of(optimizer):
        for key, value in _entries(optimizer, p).items():
            if key == "exp_inf":  # Adamax divides by it alone, and next to 0 it turns rounding into weights
                continue
            optimizer.state[p][key] = torch.where(value.abs() < 0.99 * value.abs().mean(), 0.0, value)


def hold_a_state(side: Side, rng: Random) -> None:
    optimizer, p = side.any_parameter(rng)
    side.held.append(optimizer.state[p])


def write_to_a_held_state(side: Side, rng: Random) -> None:
    if not side.held:
        return
    held = rng.choice(side.held)
    keys = sorted(key for key, value in held.items() if isinstance(value, Tensor) and key != "step")
    if keys:
        key = rng.choice(keys)
        if rng.random() < 0.5:
            held[key] = torch.zeros_like(held[key])
        else:
            held[key].mul_(0.5)


def read_a_held_state(side: Side, rng: Random) -> None:
    if side.held:
        side.tell("a held state", dict(rng.choice(side.held)))


def _entries(optimizer: Optimizer, p: nn.Parameter) -> dict[str, Tensor]:
    """The tensors of a state but for the count; reading makes no state."""
    state: dict[str, Any] = optimizer.state.get(p, {})
    return {key: value for key, value in state.items() if isinstance(value, Tensor) and key != "step"}


def _an_entry(optimizer: Optimizer, p: nn.Parameter, rng: Random) -> tuple[str, Tensor] | None:
    found: Iterator[tuple[str, Tensor]] = iter(sorted(_entries(optimizer, p).items()))
    entries = list(found)
    return rng.choice(entries) if entries else None


EVENTS = table(
    read_a_state,
    read_all_states,
    write_an_entry_in_place,
    count_a_step_more_in_place,
    replace_an_entry,
    replace_a_step,
    replace_a_state,
    Event(drop_a_state, makes_state_when_it_steps),
    Event(drop_the_states_of_a_group, makes_state_when_it_steps),
    Event(empty_the_state, makes_state_when_it_steps),
    Event(another_empty_state, makes_state_when_it_steps),
    zero_all_entries,
    prune_all_entries,
    hold_a_state,
    write_to_a_held_state,
    read_a_held_state,
)

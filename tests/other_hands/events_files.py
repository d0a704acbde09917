"""State that leaves and comes back: torch's own dicts, DCP, pickles, copies, and the library's own."""

from __future__ import annotations

import copy
import pickle
from random import Random
from typing import Any

from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from tests.cases_models import stored
from tests.other_hands.event import table
from tests.other_hands.plain import torch_optimizers
from tests.other_hands.sides import Side, batch_of

__all__ = ["EVENTS"]

_OPTIONS = StateDictOptions(strict=False)  # a parameter without state is none that is missing


def _load(side: Side, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """What was held before is another state; that torch shares tensors with it is no promise."""
    optimizer.load_state_dict(state)
    side.held.clear()


def look_at_the_state_dict(side: Side, rng: Random) -> None:
    for optimizer in side.optimizers:
        side.tell("state_dict", optimizer.state_dict())


def load_its_own_state_dict(side: Side, rng: Random) -> None:
    _, optimizer = side.any_optimizer(rng)
    _load(side, optimizer, optimizer.state_dict())


def load_its_own_state_dict_from_a_file(side: Side, rng: Random) -> None:
    _, optimizer = side.any_optimizer(rng)
    _load(side, optimizer, stored(optimizer.state_dict()))


def keep_a_state_dict(side: Side, rng: Random) -> None:
    i, optimizer = side.any_optimizer(rng)
    side.kept[i] = copy.deepcopy(optimizer.state_dict())


def go_back_to_a_kept_state_dict(side: Side, rng: Random) -> None:
    i, optimizer = side.any_optimizer(rng)
    if i in side.kept:
        _load(side, optimizer, copy.deepcopy(side.kept[i]))


def a_new_run_with_the_old_state_dict(side: Side, rng: Random) -> None:
    """Model and optimizer anew; the clock of the library begins anew."""
    states = [stored(optimizer.state_dict()) for optimizer in side.optimizers]
    side.forget()
    side.build(copy.deepcopy(side.model))
    for optimizer, state in zip(side.optimizers, states, strict=True):
        optimizer.load_state_dict(state)


def a_few_steps_of_torch_with_the_state_dict(side: Side, rng: Random) -> None:
    """What was trained goes to torch's own optimizer, and comes back half of the time."""
    model = copy.deepcopy(side.model)
    optimizers = torch_optimizers(side.training, model)
    for optimizer, other in zip(optimizers, side.optimizers, strict=True):
        optimizer.load_state_dict(stored(other.state_dict()))
    for _ in range(2):
        losses = model(*batch_of(rng, side.training.dtype))
        for i, optimizer in enumerate(optimizers):
            optimizer.zero_grad()
            losses[side.training.members[i].loss].backward(retain_graph=True)
        for optimizer in optimizers:
            optimizer.step()
    side.tell("torch's weights", model.state_dict())
    if rng.random() < 0.5:
        side.model.load_state_dict(model.state_dict())
        for optimizer, other in zip(optimizers, side.optimizers, strict=True):
            _load(side, other, stored(optimizer.state_dict()))


def dcp_gets(side: Side, rng: Random) -> None:
    _, optimizer = side.any_optimizer(rng)
    side.tell("dcp", get_optimizer_state_dict(side.model, optimizer, options=_OPTIONS))


def dcp_gets_and_sets(side: Side, rng: Random) -> None:
    """One optimizer at a time: of several without any state, torch takes the groups together."""
    states = [
        stored(get_optimizer_state_dict(side.model, optimizer, options=_OPTIONS))
        for optimizer in side.optimizers
    ]
    if rng.random() < 0.5:
        side.forget()
        side.build(copy.deepcopy(side.model))
    for optimizer, state in zip(side.optimizers, states, strict=True):
        set_optimizer_state_dict(side.model, optimizer, state, options=_OPTIONS)
    side.held.clear()


def resume_from_the_librarys_own_state(side: Side, rng: Random) -> None:
    side.resume()


def go_on_with_a_copy(side: Side, rng: Random) -> None:
    if not any(side.pending):  # torch copies no gradients
        left = side.model
        side.copy()
        side.rest(left)


def train_a_copy_and_leave_it(side: Side, rng: Random) -> None:
    if not any(side.pending):
        model, optimizers = copy.deepcopy((side.model, side.optimizers))
        losses = model(*batch_of(rng, side.training.dtype))
        losses[side.training.members[0].loss].backward()
        optimizers[0].step()
        side.tell("the copy's weights", model.state_dict())
        side.tell("the copy's state", optimizers[0].state_dict())


def pickle_the_optimizer(side: Side, rng: Random) -> None:
    _, optimizer = side.any_optimizer(rng)
    found = pickle.loads(pickle.dumps(optimizer))
    side.tell("pickled", [type(found).__name__, type(found.state).__name__, found.state_dict()])


EVENTS = table(
    look_at_the_state_dict,
    load_its_own_state_dict,
    load_its_own_state_dict_from_a_file,
    keep_a_state_dict,
    go_back_to_a_kept_state_dict,
    a_new_run_with_the_old_state_dict,
    a_few_steps_of_torch_with_the_state_dict,
    dcp_gets,
    dcp_gets_and_sets,
    resume_from_the_librarys_own_state,
    go_on_with_a_copy,
    train_a_copy_and_leave_it,
    pickle_the_optimizer,
)

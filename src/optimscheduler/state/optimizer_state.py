"""Optimizer state under parameter names, so that it survives regrouping, wrapping and a change of library.

`torch_state` reads a plain `torch.optim` optimizer's, by index.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from optimscheduler._torch_compat import copy_of, is_wrapper
from optimscheduler.errors import CheckpointError
from optimscheduler.gradients.packable import SCALARS
from optimscheduler.shards import is_sharded, laid_as
from optimscheduler.state.first_step import FirstStep, state_after_first_step
from optimscheduler.state.group_numbers import IMPLEMENTATION, constructor_names

__all__ = ["first_step_with", "load_optimizer", "optimizer_by_name", "taken_by_groups"]

_PLAIN: Final = ("state", "param_groups")  # what every optimizer's state has

_NESTED: Final = (dict, list, tuple, str)  # of which torch's load casts what is inside, also letters

State = dict[str, Any]  # Any: a state dict is a tree of plain values and tensors


def optimizer_by_name(optimizer: Optimizer, names: Sequence[str]) -> State:
    """The state of a torch optimizer, with names for indices.

    It has entries for every trainable parameter, also for those that were never updated: a loader that fills
    what it is given, as `torch.distributed.checkpoint` does, needs them. `present` says which ones count.

    Args:
        optimizer: whose parameters, through all groups, are `names` in that order.
        names: canonical parameter names.

    Returns:
        `{"state": {name: {...}}, "present": [names], "groups": [{..., "params": [names]}]}`; tensors are
        references. Where the class keeps something that belongs to no parameter, `more` has that:
        `{"state": {key: ...}, other parts of its state dict}`.

    Raises:
        CheckpointError: there is state of a parameter that is in no group, which torch cannot save.
    """
    try:
        raw = optimizer.state_dict()
    except KeyError as error:
        raise CheckpointError(
            "optim.optimizer.state has an entry for a tensor that is in none of its groups. After a "
            "parameter was replaced write optim.optimizer.state.pop(old, None)"
        ) from error
    groups = [{**group, "params": [names[i] for i in group["params"]]} for group in raw["param_groups"]]
    state = {names[i]: dict(kept) for i, kept in raw["state"].items() if kept and isinstance(i, int)}
    present = [name for name in names if name in state]
    more = {key: value for key, value in raw.items() if key not in _PLAIN}
    if of_none := {key: kept for key, kept in raw["state"].items() if not isinstance(key, int)}:
        more["state"] = of_none
    return {
        "state": state | _to_come(optimizer, names, present),
        "present": present,
        "groups": groups,
        **({"more": more} if more else {}),
    }


def _to_come(optimizer: Optimizer, names: Sequence[str], there: Collection[str]) -> State:
    """What the first update of the other trainable parameters will make."""
    places = [(group, p) for group in optimizer.param_groups for p in group["params"]]
    made = {
        name: state_after_first_step(optimizer, group, parameter)
        for name, (group, parameter) in zip(names, places, strict=True)
        if name not in there and parameter.requires_grad and not is_lazy(parameter)
    }
    return {name: state for name, state in made.items() if state}


def load_optimizer(
    optimizer: Optimizer,
    names: Sequence[str],
    saved: Mapping[str, Any],
    *,
    settings: bool,
    first: FirstStep | None = None,
) -> None:
    """Load a state by name; the tensors are copied.

    Args:
        optimizer: whose parameters, through all groups, are `names` in that order.
        names: canonical parameter names.
        saved: from `optimizer_by_name`.
        settings: take the groups' settings (lr, betas, ...) too, where a saved group has these parameters.
            Its state (`step`, `k`, see `group_numbers`), and what others have put into groups, as torch's
            schedulers do, are taken in any case.
        first: of the optimizer, where somebody has asked it already.

    Raises:
        CheckpointError: the class refuses it.
    """
    first = first or FirstStep(optimizer)
    saved = {**saved, "state": _on_its_mesh(optimizer, names, saved["state"])}
    raw, more = optimizer.state_dict(), _copied(saved.get("more", {}))
    index = {name: i for i, name in enumerate(names)}
    present = [name for name in saved.get("present", saved["state"]) if name in index]
    kept = {index[name]: _copied(saved["state"][name]) for name in present}
    raw |= {key: value for key, value in more.items() if key != "state"}
    raw["state"] = {i: {k: v for k, v in state.items() if not _is_wrapped(v)} for i, state in kept.items()}
    raw["state"] |= more.get("state", {})
    taken = taken_by_groups(optimizer, names, saved, first, settings=settings)
    for group, numbers in zip(raw["param_groups"], taken, strict=True):
        group.update(numbers)
    try:
        optimizer.load_state_dict(raw)
    except Exception as error:  # whatever a class raises that looks at its state itself
        raise CheckpointError(
            f"{type(optimizer).__name__}.load_state_dict refuses this state: {type(error).__name__}: {error}"
        ) from error
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, state in kept.items():
        _keep_dtype(optimizer, parameters[i], state, first)


def _on_its_mesh(optimizer: Optimizer, names: Sequence[str], states: Mapping[str, State]) -> dict[str, State]:
    """The saved states; whole tensors are spread where the parameter is, as after saving in one process."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sharded = {name: p for name, p in zip(names, parameters, strict=True) if is_sharded(p)}
    return {
        name: {key: laid_as(v, sharded[name]) if isinstance(v, Tensor) else v for key, v in state.items()}
        if name in sharded
        else dict(state)
        for name, state in states.items()
    }


def taken_by_groups(
    optimizer: Optimizer,
    names: Sequence[str],
    saved: Mapping[str, Any],
    first: FirstStep,
    *,
    settings: bool,
) -> list[State]:
    """What each group takes of the saved group of its first parameter that was saved.

    See `load_optimizer` for the arguments.
    """
    group_of = {name: group for group in saved["groups"] for name in group["params"]}
    place, taken = iter(names), []
    for own in optimizer.param_groups:
        held = [next(place) for _ in own["params"]]
        theirs: Mapping[str, Any] = next((group_of[name] for name in held if name in group_of), {})
        offered = [key for key in theirs if key not in IMPLEMENTATION]
        keys = [key for key in offered if settings or key not in own or first.is_state(own, key)]
        taken.append({key: theirs[key] for key in keys})
    return taken


def first_step_with(optimizer: Optimizer, taken: Sequence[Mapping[str, Any]], first: FirstStep) -> FirstStep:
    """The first step of an optimizer with the settings that it has after a load.

    Args:
        optimizer: the optimizer.
        taken: from `taken_by_groups`.
        first: with the settings that it has now.
    """
    known = constructor_names(type(optimizer))
    told = [{key: value for key, value in group.items() if key in known} for group in taken]
    return FirstStep(optimizer, told, first.named) if any(told) else first


def _keep_dtype(
    optimizer: Optimizer, parameter: nn.Parameter, saved: Mapping[str, Any], first: FirstStep
) -> None:
    """Undo casts: torch casts all but `step` to the parameter's dtype, also what the class keeps in another.

    Numbers kept once per tensor have a dtype of their own. Of the others the class's first step tells; where
    nobody can say, they stay as they were saved.
    """
    state, known = optimizer.state[parameter], SCALARS.get(type(optimizer))
    for key, value in saved.items():
        held = state.get(key)
        once = key in known if known is not None else isinstance(value, Tensor) and not value.ndim
        if isinstance(value, Tensor) and isinstance(held, Tensor) and held.dtype is not value.dtype:
            made = None if once else (first.state(parameter) or {}).get(key)
            state[key] = _as_kept(value, made, held.device)
        elif _is_wrapped(value) or (isinstance(value, _NESTED) and type(held) is type(value)):
            state[key] = _as_kept(value, (first.state(parameter) or {}).get(key), parameter.device)


def _as_kept(value: Any, made: Any, device: torch.device) -> Any:  # Any: whatever an optimizer keeps
    """A saved entry in the dtype in which a first step has made it, or else in its own."""
    if isinstance(value, Tensor):
        both = isinstance(made, Tensor) and made.is_floating_point() and value.is_floating_point()
        return value.to(device) if is_wrapper(value) or not both else value.to(device, made.dtype)
    if type(value) is dict:
        inner = made if isinstance(made, Mapping) else {}
        return {key: _as_kept(part, inner.get(key), device) for key, part in value.items()}
    if type(value) in (list, tuple):
        parts = made if isinstance(made, list | tuple) and len(made) == len(value) else [None] * len(value)
        return type(value)(_as_kept(*pair, device) for pair in zip(value, parts, strict=True))
    return value


def _is_wrapped(value: object) -> bool:
    """Whether it is a tensor around other tensors, as of quantised state, which torch's load may not cast."""
    return isinstance(value, Tensor) and is_wrapper(value)


def _copied(value: Any) -> Any:  # Any: whatever an optimizer keeps
    if isinstance(value, Tensor):
        return copy_of(value)
    if type(value) is dict:
        return {key: _copied(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    return copy.deepcopy(value)  # a deque, an object of the class's own

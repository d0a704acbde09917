"""Whether an optimizer can step with a saved state: by what its class keeps after a first step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from optimscheduler._torch_compat import copy_of, is_of_torch, is_wrapper
from optimscheduler.errors import CheckpointError
from optimscheduler.gradients.packable import SCALARS
from optimscheduler.state.first_step import FirstStep
from optimscheduler.state.group_numbers import IMPLEMENTATION, constructor_names

__all__ = ["Entries", "check_entries", "compare_entries", "is_of_class"]

_LISTED: Final = 3  # parameters named in a line
_OF_SCHEDULERS: Final = ("initial_lr", "swa_lr", "max_momentum", "base_momentum", "max_lr", "min_lr", "name")

State = dict[str, Any]  # Any: a tree of plain values and tensors


@dataclass(slots=True, kw_only=True)
class Entries:
    """A saved state by name, beside what the class keeps.

    Attributes:
        taken: what may be loaded: with what is missing made anew, and without what is too much.
        wrong: a line for everything that cannot be stepped with.
        missing: a line for every entry that the class keeps and the state has not.
        extra: a line for every entry that the state has and the class does not keep.
    """

    taken: State
    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)


def compare_entries(
    optimizer: Optimizer,
    parameters: Mapping[str, nn.Parameter],
    saved: Mapping[str, Any],
    first: FirstStep,
    *,
    same_class: bool,
) -> Entries:
    """Compare a saved state with what the class of an optimizer keeps; nothing is changed.

    A missing entry of the shape of its parameter is made as a first step with gradient 0 makes it. Numbers
    that count from step to step cannot begin in the middle, nor can anything in a state of another class.

    Args:
        optimizer: that is to step with it.
        parameters: canonical name -> parameter, those that fit.
        saved: from `optimizer_by_name`.
        first: of the optimizer.
        same_class: the state was saved by an optimizer of this class. What a class that is not torch's keeps
            besides, it may have made later.
    """
    found, state = _Found(), {}
    rules = _Rules(
        once=SCALARS.get(type(optimizer)),
        exact=is_of_torch(type(optimizer)),
        keeps_extra=same_class and not is_of_torch(type(optimizer)),
    )
    named = [name for name in saved.get("present", saved["state"]) if name in parameters]
    for name in named:
        made = None if is_lazy(parameters[name]) else first.state(parameters[name])
        kept = {key: value for key, value in saved["state"][name].items() if value is not None}
        empty = {key: None for key in saved["state"][name] if key not in kept}
        state[name] = empty | _compared(name, kept, made, parameters[name], found, rules) if kept else {}
        for key in made or () if "present" in saved and not kept else ():
            found.missing.setdefault(key, []).append(name)
    if not same_class and found.missing and found.extra:
        found.wrong |= {f"missing: {key}": names for key, names in found.missing.items()}
        found.missing = {}
    present = [name for name in named if state.get(name)]
    taken = {**saved, "state": {**saved["state"], **state}, "present": present}
    lines = [_lines(each) for each in (found.wrong, found.missing, found.extra)]
    return Entries(taken=taken, wrong=lines[0], missing=lines[1], extra=lines[2])


def _lines(names_of: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{what} ({_named(names)})" for what, names in names_of.items()]


@dataclass(slots=True)
class _Found:
    """What differs -> names of the parameters."""

    wrong: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    extra: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """How a class is looked at: what it keeps once per tensor, where known; whether shapes are exact."""

    once: Collection[str] | None
    exact: bool
    keeps_extra: bool


def _compared(
    name: str,
    kept: State,
    made: State | None,
    parameter: nn.Parameter,
    found: _Found,
    rules: _Rules,
) -> State:
    """The entries of one parameter, as they may be loaded; what differs is written down."""
    for key, value in kept.items():
        if reason := _unfit(key, value, (made or {}).get(key), parameter, rules):
            found.wrong.setdefault(f"{key} {reason}", []).append(name)
    if made is None:
        return kept
    taken = dict(kept)
    for key in () if rules.keeps_extra else [key for key in kept if key not in made]:
        found.extra.setdefault(key, []).append(name)
        del taken[key]
    for key in [key for key, value in made.items() if key not in kept and value is not None]:
        counts = key in rules.once if rules.once is not None else not _is_buffer(made[key], parameter)
        (found.wrong if counts else found.missing).setdefault(
            f"missing: {key}" if counts else key, []
        ).append(name)
        taken[key] = made[key]
    return taken


def _is_buffer(value: object, parameter: nn.Parameter) -> bool:
    """Whether it has an element for each of the parameter."""
    return isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim > 0


def _unfit(key: str, value: object, made: object, parameter: nn.Parameter, rules: _Rules) -> str | None:
    """Why a saved entry cannot stand where a first step has made that; None if it can."""
    if isinstance(value, Tensor) and is_wrapper(value):
        try:
            copy_of(value)
        except NotImplementedError as error:
            return f"is a {type(value).__name__}, which cannot be loaded: {error}"
    if isinstance(made, Tensor):
        alone = made.numel() == 1 and not _is_buffer(made, parameter)
        once = alone if rules.once is None else key in rules.once
        if not (once and _is_number(value)):
            return _unfit_tensor(value, made, parameter, exact=rules.exact)
    elif isinstance(made, bool) or not isinstance(made, int | float):
        return None if isinstance(value, bool) or not isinstance(made, bool) else "must be True or False"
    if not _is_number(value):
        return f"must be a number, got {_shown(value)}"
    return f"must be finite and >= 0, got {_shown(value)}" if rules.exact and not _is_count(value) else None


def _unfit_tensor(value: object, made: Tensor, parameter: nn.Parameter, *, exact: bool) -> str | None:
    """The same of a tensor. A class that is not torch's may keep one number where others have many."""
    if not isinstance(value, Tensor):
        return f"must be a tensor of shape {tuple(made.shape)}, got {_shown(value)}"
    known = exact or _is_buffer(made, parameter) or not made.ndim
    if known and value.shape != made.shape and (exact or value.numel() > 1):
        return f"has shape {tuple(value.shape)} in the checkpoint, {tuple(made.shape)} here"
    if _kind(value) != _kind(made) and value.numel() > 1:
        return f"is {_kind(value)} in the checkpoint, {_kind(made)} here"
    return None


def _kind(tensor: Tensor) -> str:
    """What casting may not change."""
    if is_wrapper(tensor):
        return type(tensor).__name__
    if tensor.is_floating_point():
        return "floating-point"
    return "complex" if tensor.is_complex() else str(tensor.dtype)


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.dtype is not torch.bool
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:  # Any: a number, or a tensor of one
    """Whether it can be a number that counts or multiplies from step to step; these are float32."""
    return 0 <= float(value) <= torch.finfo(torch.float32).max


def _shown(value: object) -> str:
    if isinstance(value, Tensor) and value.numel() > 1:
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{value!r:.60}"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def check_entries(optimizer: Optimizer, entries: Entries, *, in_part: bool) -> list[str]:
    """Refuse a state that the class cannot step with.

    Args:
        optimizer: that is to step with it.
        entries: from `compare_entries`.
        in_part: begin anew what is missing, and leave out what is too much.

    Returns:
        A line for everything that begins anew or is left out.

    Raises:
        CheckpointError: it cannot; everything that differs is listed.
    """
    name = type(optimizer).__name__
    if entries.wrong or not in_part:
        lines = list(entries.wrong)
        lines += [f"missing: {line}" for line in entries.missing]
        lines += [f"too much: {line}" for line in entries.extra]
        hint = (
            ""
            if entries.wrong
            else ("\non_mismatch='config' begins anew what is missing, and leaves out what is too much")
        )
        if lines:
            raise CheckpointError(
                f"{name} with the settings it has here cannot go on with this optimizer state:\n  "
                + "\n  ".join(lines)
                + hint
            )
    fresh = [f"{line} is not in the checkpoint; {name} begins it anew" for line in entries.missing]
    return fresh + [f"{line} is of no use to {name} here, and is left out" for line in entries.extra]


def is_of_class(optimizer: Optimizer, groups: Sequence[Mapping[str, Any]], first: FirstStep) -> bool:
    """Whether saved groups have the settings of this class and no others, so that they may be its own.

    Args:
        optimizer: whose class is meant.
        groups: of a plain optimizer's state.
        first: of the optimizer.
    """
    own, known = optimizer.param_groups[0], constructor_names(type(optimizer))
    ours = {key for key in own if key in known}.difference(IMPLEMENTATION)
    usual = {*own, *first.numbers(own), *IMPLEMENTATION, *_OF_SCHEDULERS}
    return all(ours <= set(group) <= usual for group in groups)

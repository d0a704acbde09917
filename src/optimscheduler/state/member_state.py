"""The state of one OptimScheduler as a plain nested dict, and what to do where a saved one differs.

version     1
config      the constructor's arguments, as YAML would hold them
parameters  canonical name -> shape
optimizer   state by name, groups
scaler      the loss scale, or None
clock, ledger, guard, feedback
values      what was left in the optimizer's groups, or left out
layout      which small parameters lie side by side, by name; None, or left out, for none
window      the open window, with its gradients by name
averages    running averages of the weights, by name; left out where there are none
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from optimscheduler.backward.precision import Precision
from optimscheduler.errors import CheckpointError
from optimscheduler.line.member import Member
from optimscheduler.plain_config import differences
from optimscheduler.state.entries import check_entries, compare_entries
from optimscheduler.state.first_step import FirstStep
from optimscheduler.state.optimizer_state import (
    first_step_with,
    load_optimizer,
    optimizer_by_name,
    taken_by_groups,
)
from optimscheduler.state.parts import check_parts
from optimscheduler.state.same_parameters import fitting_parameters, misfits, shape_of
from optimscheduler.state.saved_numbers import unfit_numbers
from optimscheduler.update.weight_average import settings_in

__all__ = [
    "Fit",
    "average_differences",
    "check_fits",
    "check_whole",
    "load_averages",
    "load_state",
    "state_of",
]

VERSION: Final = 1
_KEYS = ("config", "parameters", "optimizer", "scaler", "clock", "ledger", "guard", "feedback", "window")

State = dict[str, Any]  # Any: a tree of plain values and tensors


def state_of(m: Member, config: Mapping[str, Any], precision: Precision) -> State:
    """Everything that a resumed run needs, the model's weights aside; tensors are references.

    Args:
        m: the member.
        config: the constructor's arguments as plain values.
        precision: of the line; gradients of an open window are scaled by it.
    """
    scaler = precision.scaler(m.loss)
    pending = (
        {"gradients": m.gradients.by_name(), "scale": float(precision.scale(m.loss))} if m.window else {}
    )
    return {
        "version": VERSION,
        "config": copy.deepcopy(config),  # loaders may write into what they are given
        "parameters": {name: shape_of(parameter) for name, parameter in m.owned.by_name.items()},
        "optimizer": optimizer_by_name(m.optimizer, list(m.owned.by_name)),
        "scaler": None if scaler is None else scaler.state_dict(),
        "clock": m.clock.state_dict(),
        "ledger": m.ledger.state_dict(),
        "guard": m.guard.state_dict(),
        "feedback": copy.deepcopy(m.feedback),
        "values": m.values.state_dict(),
        "layout": m.gradients.arrangement(),
        "window": m.window.state_dict() | {"gradients": {}, "scale": 1.0} | pending,
        **({"averages": [a.state_dict(m.owned.by_name) for a in m.averages]} if m.averages else {}),
    }


def check_whole(state: Mapping[str, Any]) -> None:
    """Check that a saved state is one that this package reads.

    Raises:
        CheckpointError: its version is another, or a part is missing or not what it should be.
    """
    if type(state["version"]) is not int or state["version"] != VERSION:
        raise CheckpointError(f"this state has version {state['version']!r}; this package reads {VERSION}")
    if missing := [key for key in _KEYS if key not in state]:
        raise CheckpointError(f"this state is damaged: it has no {', '.join(missing)}")
    with _damage_named():
        check_parts(state)


@contextmanager
def _damage_named() -> Iterator[None]:
    """Whatever reading a part that is not what it should be raises becomes an error that says so."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"this state is damaged inside one of its parts: {error!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A saved state that fits.

    Attributes:
        optimizer: the part of it that may be loaded into the optimizer.
        first: what the optimizer's first step makes.
        changed: a line for everything that begins anew or is left out.
    """

    optimizer: Mapping[str, Any]
    first: FirstStep
    changed: list[str]


def check_fits(
    m: Member,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    settings: bool = True,
    in_part: bool = False,
) -> Fit:
    """Check that a saved state belongs to these parameters and this optimizer.

    Args:
        m: the member.
        config: its configuration.
        state: the saved state.
        settings: the groups' lr, betas, ... are taken from it too.
        in_part: take what fits, where parameters or the options of the optimizer differ.

    Returns:
        What of it may be loaded.

    Raises:
        CheckpointError: it does not fit; every difference is listed. Or a loader has left a part of it out.
    """
    with _damage_named():
        there, here = state["config"]["optim_type"], config["optim_type"]
        saved, wrong = state["optimizer"], misfits(m, state)
        lost = [name for name in saved.get("present", ()) if name not in saved["state"]]
    if lost:
        raise CheckpointError(
            f"{len(lost)} parameters had optimizer state when this was saved, and it was not loaded: "
            f"{', '.join(lost[:5])}. dcp.load fills only what is there already. Where they are frozen, set "
            "requires_grad=True, load, and freeze them again; with an optimizer that is not of torch.optim, "
            "take one step before you load"
        )
    if there != here:
        wrong.append(f"optim_type: {there} in the checkpoint, {here} here")
    if there != here or (wrong and not in_part):
        hint = "" if there != here else "\non_mismatch='config' takes what fits"
        raise CheckpointError("the checkpoint does not fit:\n  " + "\n  ".join(wrong) + hint)
    with _damage_named():
        named = {*_named_settings(config), *_named_settings(state["config"])}
        return _fit_of(m, state, named, settings=settings, in_part=in_part)


def _named_settings(config: Mapping[str, Any]) -> Iterator[str]:
    """The settings of the optimizer that a configuration names."""
    yield from config["optim_conf"]
    for rule in config.get("param_groups") or []:
        yield from rule


def _fit_of(
    m: Member, state: Mapping[str, Any], named: Collection[str], *, settings: bool, in_part: bool
) -> Fit:
    """What of a saved state the optimizer can go on with."""
    names, saved = list(m.owned.by_name), state["optimizer"]
    asked = FirstStep(m.optimizer, named=named)
    taken = taken_by_groups(m.optimizer, names, saved, asked, settings=settings)
    if lines := unfit_numbers(m.optimizer, taken):
        raise CheckpointError("this state is damaged: " + "; ".join(lines))
    first = first_step_with(m.optimizer, taken, asked)
    fitting = fitting_parameters(m, state)
    _check_pending(fitting, state["window"]["gradients"])
    entries = compare_entries(m.optimizer, fitting, saved, first, same_class=True)
    changed = [f"{line}; its optimizer state {_fate(line)}" for line in misfits(m, state)]
    changed += check_entries(m.optimizer, entries, in_part=in_part)
    if _begins(m, state, first):
        name = type(m.optimizer).__name__
        changed.append(f"no optimizer state of {name} is in the checkpoint; all of it begins anew")
    return Fit(optimizer=entries.taken, first=first, changed=changed)


def _check_pending(fitting: Mapping[str, nn.Parameter], gradients: Mapping[str, Tensor]) -> None:
    """Check the gradients of parameters that had no shape yet when the state was saved."""
    for name, gradient in gradients.items():
        here = shape_of(fitting[name]) if name in fitting else None
        if here is not None and list(gradient.shape) != here:
            raise CheckpointError(
                f"this state is damaged: window.gradients.{name} has shape {tuple(gradient.shape)}, and its "
                f"parameter {tuple(here)}"
            )


def _begins(m: Member, state: Mapping[str, Any], first: FirstStep) -> bool:
    """Whether a run that had no optimizer state goes on with an optimizer that keeps some."""
    if state["optimizer"].get("present", state["optimizer"]["state"]) or not state["ledger"]["applied"]:
        return False
    return any(first.state(p) for p in m.owned.by_name.values() if p.requires_grad and not is_lazy(p))


def _fate(line: str) -> str:
    return "is dropped" if line.endswith("alone") else "starts anew"


def average_differences(m: Member, state: Mapping[str, Any]) -> list[str]:
    """A line for every setting of an `Average` that differs, or that one side alone has."""
    with _damage_named():
        saved = _numbered([settings_in(average) for average in state.get("averages", ())])
    return list(differences(saved, _numbered([average.settings for average in m.averages])))


def _numbered(settings: Sequence[State]) -> dict[str, State]:
    return {f"Average {number}": each for number, each in enumerate(settings, start=1)}


def load_averages(m: Member, state: Mapping[str, Any], *, settings: bool) -> None:
    """Go on with the averages that the state has; the others begin anew with the next update.

    Args:
        m: the member.
        state: the saved state, or one of another library, which has none.
        settings: take decay, ... from the state, too.
    """
    for average in m.averages:
        average.restart()
    for average, saved in zip(m.averages, state.get("averages", ()), strict=False):
        average.load_state_dict(saved, m.gradients, settings=settings)


def load_state(
    m: Member,
    config: Mapping[str, Any],
    precision: Precision,
    state: Mapping[str, Any],
    fit: Fit,
    *,
    settings: bool,
) -> None:
    """Go on from a saved state that `check_fits` has found good.

    Args:
        m: the member.
        config: its configuration.
        precision: of the line.
        state: the saved state.
        fit: from `check_fits`.
        settings: take the groups' lr, betas, ... from it too.

    Raises:
        CheckpointError: the class of the optimizer refuses its part.
    """
    load_optimizer(m.optimizer, list(m.owned.by_name), fit.optimizer, settings=settings, first=fit.first)
    with _damage_named():
        _load_parts(m, config, precision, state, settings=settings)


def _load_parts(
    m: Member, config: Mapping[str, Any], precision: Precision, state: Mapping[str, Any], *, settings: bool
) -> None:
    scaler, fitting = precision.scaler(m.loss), fitting_parameters(m, state)
    if scaler is not None and state["scaler"] is not None:
        scaler.load_state_dict(state["scaler"])
    m.clock.load_state_dict(state["clock"])
    m.ledger.load_state_dict(state["ledger"])
    m.guard.load_state_dict(state["guard"])
    m.window.load_state_dict(state["window"], m.gradients.parameters[0].device)
    m.gradients.restore({name: g for name, g in state["window"]["gradients"].items() if name in fitting})
    m.gradients.arrange(state.get("layout"))
    _rescale(m, precision, state["window"]["scale"])
    values = state.get("values") or {"written": sum(state["ledger"].values()) > 0}
    if settings:
        m.values.load_state_dict(values)
    else:
        same = _rates(state["config"]) == _rates(config)
        m.values.take_over(values, state["optimizer"]["groups"], same=same)
    if state["config"]["schedule"] == config["schedule"]:
        m.feedback = state["feedback"]


def _rates(config: Mapping[str, Any]) -> list[Any]:
    """What a configuration says of learning rates. Any: plain values."""
    keys = ("optim_type", "updated_modules", "exclude", "ft_factor", "schedule", "param_groups")
    return [config["optim_conf"].get("lr"), *(config.get(key) for key in keys)]


def _rescale(m: Member, precision: Precision, saved: float) -> None:
    """Bring pending gradients that were made under another loss scale to the present one."""
    pending, scaler = m.gradients.by_name().values(), precision.scaler(m.loss)
    if not pending:
        return
    if scaler is not None and not scaler.reference_weight:
        scaler.reference_weight = float(max(m.window.weights))
    factor = float(precision.scale(m.loss)) / saved
    if factor != 1.0:
        for gradient in pending:
            gradient.mul_(factor)

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from torch import nn
from torch.nn.parameter import is_lazy

from optimscheduler.errors import CheckpointError
from optimscheduler.member import Member
from optimscheduler.optimizer_state import load_optimizer, optimizer_by_name
from optimscheduler.plain_config import differences
from optimscheduler.precision import Precision
from optimscheduler.weight_average import settings_in

__all__ = [
    "average_differences",
    "check_fits",
    "check_whole",
    "load_averages",
    "load_state",
    "misfits",
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
        "parameters": {name: _shape(parameter) for name, parameter in m.owned.by_name.items()},
        "optimizer": optimizer_by_name(m.optimizer, list(m.owned.by_name)),
        "scaler": None if scaler is None else scaler.state_dict(),
        "clock": m.clock.state_dict(),
        "ledger": m.ledger.state_dict(),
        "guard": m.guard.state_dict(),
        "feedback": copy.deepcopy(m.feedback),
        "values": m.values.state_dict(),
        "layout": m.gradients.arrangement(),
        "window": m.window.state_dict() | {"gradients": {}, "scale": 1.0} | pending,
        **({"averages": [average.state_dict() for average in m.averages]} if m.averages else {}),
    }


def check_whole(state: Mapping[str, Any]) -> None:
    """Check that a saved state is one that this package reads.

    Raises:
        CheckpointError: its version is another, or a part is missing.
    """
    if state["version"] != VERSION:
        raise CheckpointError(f"this state has version {state['version']!r}; this package reads {VERSION}")
    if missing := [key for key in _KEYS if key not in state]:
        raise CheckpointError(f"this state is damaged: it has no {', '.join(missing)}")


@contextmanager
def _damage_named() -> Iterator[None]:
    """Whatever reading a part that is not what it should be raises becomes an error that says so."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"this state is damaged inside one of its parts: {error!r}") from error


def check_fits(
    m: Member, config: Mapping[str, Any], state: Mapping[str, Any], *, in_part: bool = False
) -> None:
    """Check that a saved state belongs to these parameters and this optimizer.

    Args:
        m: the member.
        config: its configuration.
        state: the saved state.
        in_part: take what fits, where parameters differ.

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


def misfits(m: Member, state: Mapping[str, Any]) -> list[str]:
    """A line for every parameter whose optimizer state starts anew here, or is of no use here."""
    missing, gone = parameter_differences(state["parameters"], m.owned.by_name)
    kept = state["optimizer"].get("present", state["optimizer"]["state"])
    return missing + [line for name, line in gone.items() if name in kept or not kept]


def load_state(
    m: Member, config: Mapping[str, Any], precision: Precision, state: Mapping[str, Any], *, settings: bool
) -> None:
    """Go on from a saved state that fits; `settings` takes the groups' lr, betas, ... from it too.

    Raises:
        CheckpointError: a part of it is not what it should be.
    """
    with _damage_named():
        _load_parts(m, config, precision, state, settings=settings)


def _load_parts(
    m: Member, config: Mapping[str, Any], precision: Precision, state: Mapping[str, Any], *, settings: bool
) -> None:
    scaler = precision.scaler(m.loss)
    owned, shapes = m.owned.by_name, state["parameters"]
    fitting = {name for name in owned if name in shapes and shapes[name] in (None, _shape(owned[name]))}
    saved = state["optimizer"]
    present = [name for name in saved.get("present", saved["state"]) if name in fitting]
    load_optimizer(m.optimizer, list(owned), {**saved, "present": present}, settings=settings)
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


def _shape(parameter: nn.Parameter) -> list[int] | None:
    return None if is_lazy(parameter) else list(parameter.shape)


def parameter_differences(
    saved: Mapping[str, Sequence[int] | None], now: Mapping[str, nn.Parameter]
) -> tuple[list[str], dict[str, str]]:
    """Where the parameters of a saved state and those of now differ.

    Args:
        saved: canonical name -> shape in the checkpoint; None of a lazy one.
        now: canonical name -> parameter.

    Returns:
        A line for every parameter that is missing in the checkpoint or has another shape there; and for those
        that are in the checkpoint alone, name -> line.
    """
    lines = [f"{name} is not in the checkpoint" for name in now if name not in saved]
    for name in (name for name in saved if name in now):
        there, here = saved[name], _shape(now[name])
        if there is not None and here is not None and list(there) != here:
            lines.append(f"{name} has shape {tuple(there)} in the checkpoint, {tuple(here)} here")
    return lines, {name: f"{name} is in the checkpoint alone" for name in saved if name not in now}

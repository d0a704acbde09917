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
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from torch import Tensor, nn

from optimscheduler.errors import CheckpointError
from optimscheduler.member import Member
from optimscheduler.optimizer_state import load_optimizer, named_from_torch, optimizer_by_name
from optimscheduler.precision import LossScale, Precision

__all__ = [
    "check_fits",
    "check_torch_state",
    "check_whole",
    "config_differences",
    "differences",
    "fingerprint",
    "load_state",
    "load_torch_state",
    "plain",
    "state_of",
]

VERSION: Final = 1
_KEYS = ("config", "parameters", "optimizer", "scaler", "clock", "ledger", "guard", "feedback", "window")
_SPEED = ("foreach", "fused", "capturable", "differentiable")  # settings that change no result

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
        "config": dict(config),
        "parameters": {name: list(p.shape) for name, p in m.owned.by_name.items()},
        "optimizer": optimizer_by_name(m.optimizer, list(m.owned.by_name)),
        "scaler": None if scaler is None else scaler.state_dict(),
        "clock": m.clock.state_dict(),
        "ledger": m.ledger.state_dict(),
        "guard": m.guard.state_dict(),
        "feedback": m.feedback,
        "values": m.values.state_dict(),
        "layout": m.gradients.arrangement(),
        "window": m.window.state_dict() | {"gradients": {}, "scale": 1.0} | pending,
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


def check_fits(m: Member, config: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Check that a saved state belongs to these parameters and this optimizer.

    Raises:
        CheckpointError: it does not; every difference is listed.
    """
    wrong = list(_parameter_differences(state["parameters"], m.owned.by_name))
    if state["config"]["optim_type"] != config["optim_type"]:
        wrong.append(
            f"optim_type: {state['config']['optim_type']} in the checkpoint, {config['optim_type']} here"
        )
    if wrong:
        raise CheckpointError("the checkpoint does not fit:\n  " + "\n  ".join(wrong))


def load_state(
    m: Member, config: Mapping[str, Any], precision: Precision, state: Mapping[str, Any], *, settings: bool
) -> None:
    """Go on from a saved state that fits; `settings` takes the groups' lr, betas, ... from it too.

    Raises:
        CheckpointError: a part of it is not what it should be.
    """
    try:
        _load_parts(m, config, precision, state, settings=settings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"this state is damaged inside one of its parts: {error!r}") from error


def _load_parts(
    m: Member, config: Mapping[str, Any], precision: Precision, state: Mapping[str, Any], *, settings: bool
) -> None:
    scaler = precision.scaler(m.loss)
    load_optimizer(m.optimizer, list(m.owned.by_name), state["optimizer"], settings=settings)
    if scaler is not None and state["scaler"] is not None:
        scaler.load_state_dict(state["scaler"])
    m.clock.load_state_dict(state["clock"])
    m.ledger.load_state_dict(state["ledger"])
    m.guard.load_state_dict(state["guard"])
    m.window.load_state_dict(state["window"], m.gradients.parameters[0].device)
    m.gradients.restore(state["window"]["gradients"])
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


def check_torch_state(m: Member, state: Mapping[str, Any]) -> State:
    """Check the origin's `{"optimizer": ..., "scaler": ...}`, or a plain torch optimizer's state.

    Returns:
        The optimizer's state, with names for indices.

    Raises:
        CheckpointError: it is neither, or is not of these parameters.
    """
    raw = state.get("optimizer", state)
    if not isinstance(raw, Mapping) or not {"state", "param_groups"} <= set(raw):
        raise CheckpointError(f"this is no optimizer state: its keys are {sorted(map(str, state))}")
    return named_from_torch(raw, m.owned)


def load_torch_state(m: Member, scaler: LossScale | None, state: Mapping[str, Any]) -> None:
    """Load what `check_torch_state` has found good."""
    named = check_torch_state(m, state)
    load_optimizer(m.optimizer, list(m.owned.by_name), named, settings=False)
    if scaler is not None and state.get("scaler"):
        scaler.load_state_dict(state["scaler"])


def config_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for every setting that differs; settings that change speed alone do not count."""
    return list(differences(_without_speed(saved), _without_speed(now)))


def fingerprint(config: Mapping[str, Any]) -> int:
    """A number that stands for a configuration, exact as a float; the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(config).encode(), digest_size=6).digest())


def _without_speed(config: Mapping[str, Any]) -> State:
    return {**config, "optim_conf": {k: v for k, v in config["optim_conf"].items() if k not in _SPEED}}


def plain(value: object) -> Any:  # Any: a tree of plain values
    """The value as YAML would hold it: tuples become lists, mappings dicts, everything unknown its repr."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if hasattr(value, "__qualname__"):  # a function or class: its repr holds an address
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def differences(saved: object, now: object, place: str = "") -> Iterator[str]:
    """A line for every place where two trees of plain values differ.

    >>> list(differences({"lr": 1, "betas": [0.9, 0.99]}, {"lr": 2, "betas": [0.9, 0.99]}))
    ['lr: 1 in the checkpoint, 2 in the configuration']
    """
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        for key in [*saved, *(k for k in now if k not in saved)]:
            inner = f"{place}.{key}" if place else str(key)
            yield from differences(saved.get(key, _MISSING), now.get(key, _MISSING), inner)
    elif saved != now and not (saved != saved and now != now):  # NaN is the same as NaN here
        yield f"{place}: {saved!r} in the checkpoint, {now!r} in the configuration"


class _Missing:
    def __repr__(self) -> str:
        return "missing"


_MISSING = _Missing()


def _parameter_differences(
    saved: Mapping[str, Sequence[int]], now: Mapping[str, nn.Parameter]
) -> Iterator[str]:
    """A line for every parameter that is missing, extra or of another shape.

    Args:
        saved: canonical name -> shape in the checkpoint.
        now: canonical name -> parameter.
    """
    for name in [n for n in now if n not in saved]:
        yield f"{name} is not in the checkpoint"
    for name, shape in saved.items():
        if name not in now:
            yield f"{name} is in the checkpoint alone"
        elif list(shape) != list(now[name].shape):
            yield f"{name} has shape {tuple(shape)} in the checkpoint, {tuple(now[name].shape)} here"

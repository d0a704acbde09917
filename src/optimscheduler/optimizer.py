"""Build the torch optimizer that a configuration names, checked before it is called."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from optimscheduler._torch_compat import takes_scale
from optimscheduler.checks import boolean, number
from optimscheduler.errors import ConfigError
from optimscheduler.lookup import check_call, class_at, reason
from optimscheduler.parameters import OwnedParameters
from optimscheduler.shards import is_sharded

__all__ = [
    "build_optimizer",
    "check_drivable",
    "find_optimizer",
    "group_keys",
    "may_be_fused",
    "path_of",
    "peak_lr",
]

_IMPLEMENTATIONS = ("foreach", "fused", "capturable", "differentiable")
_FUSED_DEVICES = {"cpu", "cuda"}
_HALF = (torch.float16, torch.bfloat16)


def find_optimizer(optim_type: str | type[Optimizer]) -> type[Optimizer]:
    """The optimizer class of that name.

    Args:
        optim_type: a name in `torch.optim`, a dotted path to an `Optimizer` subclass, or one itself.

    Raises:
        ConfigError: no such class, no optimizer, or one whose `step` needs a closure.
    """
    known = {n: c for n, c in vars(torch.optim).items() if isinstance(c, type) and issubclass(c, Optimizer)}
    del known["Optimizer"]
    found: type[Optimizer] = (
        optim_type
        if isinstance(optim_type, type) and issubclass(optim_type, Optimizer)
        else class_at(optim_type, Optimizer, "optim_type", known)
    )
    check_drivable(found)
    return found


def check_drivable(optimizer_class: type[Optimizer]) -> None:
    """Check that an optimizer takes its step from one gradient.

    Raises:
        ConfigError: it is the base class, or its `step` needs a closure.
    """
    closure = inspect.signature(optimizer_class.step).parameters.get("closure")
    if optimizer_class is Optimizer:
        raise ConfigError("optim_type: Optimizer is the base class; name one of its subclasses")
    if closure is not None and closure.default is closure.empty:
        raise ConfigError(
            f"optim_type: {optimizer_class.__name__}.step needs a closure that evaluates the model several "
            "times for one batch; an OptimScheduler is given one loss per batch, so it cannot drive it"
        )


def path_of(optimizer_class: type[Optimizer]) -> str:
    """What a configuration calls the class, always in the same way."""
    ours = optimizer_class.__module__.startswith("torch.optim")
    return (
        optimizer_class.__name__ if ours else f"{optimizer_class.__module__}.{optimizer_class.__qualname__}"
    )


def peak_lr(optimizer_class: type[Optimizer], optim_conf: Mapping[str, Any]) -> float:
    """The base learning rate: `optim_conf["lr"]`, or the optimizer's own default.

    Raises:
        ConfigError: it is missing, no number, or not positive.
    """
    parameter = inspect.signature(optimizer_class).parameters.get("lr")
    default = None if parameter is None or parameter.default is parameter.empty else parameter.default
    lr = optim_conf.get("lr", default)
    if isinstance(lr, torch.Tensor) and lr.numel() == 1:
        lr = lr.item()
    if lr is None:
        raise ConfigError(f"optim_conf: {optimizer_class.__name__} needs an lr, which is missing")
    return number("optim_conf: lr", lr, above=0)


def group_keys(optimizer_class: type[Optimizer]) -> list[str]:
    """The settings that a parameter group may have of its own."""
    return [
        k for k in inspect.signature(optimizer_class).parameters if k not in ("params", *_IMPLEMENTATIONS)
    ]


def build_optimizer(
    optimizer_class: type[Optimizer], optim_conf: Mapping[str, Any], owned: OwnedParameters
) -> Optimizer:
    """The optimizer over the owned parameters, as it was asked for.

    Args:
        optimizer_class: from `find_optimizer`.
        optim_conf: its keyword arguments.
        owned: groups in order.

    Raises:
        ConfigError: a key that the optimizer does not take, or a value that it refuses.
    """
    check_call(optimizer_class, optim_conf, "optim_conf", "params")
    conf = dict(optim_conf)
    if "lr" in conf:
        conf["lr"] = peak_lr(optimizer_class, conf)
    _check_settings(optimizer_class, conf, owned)
    groups = [{"params": list(group.parameters.values()), **group.settings} for group in owned.groups]
    try:
        optimizer = optimizer_class(groups, **conf)
    except Exception as error:  # whatever an optimizer raises
        raise ConfigError(f"optim_conf: {optimizer_class.__name__} refuses this: {reason(error)}") from error
    if any("lr" not in group for group in optimizer.param_groups):
        raise ConfigError(
            f"optim_type: {optimizer_class.__name__} keeps no lr in its groups, so there is nothing that a "
            "schedule could drive. Name a class whose groups have an lr"
        )
    return optimizer


def _check_settings(
    optimizer_class: type[Optimizer], conf: Mapping[str, Any], owned: OwnedParameters
) -> None:
    """Let the optimizer look at the settings of every group, which it would take as they are."""
    stand_in = torch.nn.Parameter(torch.zeros(2, 2))
    plain = {key: value for key, value in conf.items() if key not in _IMPLEMENTATIONS}
    _check_kinds(optimizer_class, conf, "optim_conf")
    for group in owned.groups:
        where = "optim_conf" if not group.settings else f"param_groups: the rule '{group.label:.80}'"
        _check_kinds(optimizer_class, group.settings, where)
        try:
            optimizer_class([stand_in], **{**plain, **group.settings})
        except Exception as error:  # whatever an optimizer raises
            raise ConfigError(f"{where}: {optimizer_class.__name__} refuses this: {reason(error)}") from error


def _check_kinds(optimizer_class: type[Optimizer], settings: Mapping[str, Any], where: str) -> None:
    """Refuse what optimizers take as it is, and stumble over in the first update or never train with."""
    parameters = inspect.signature(optimizer_class).parameters
    for key, value in settings.items():
        default = parameters[key].default if key in parameters else None
        if isinstance(default, bool):
            boolean(f"{where}: {key}", value)
        elif isinstance(default, tuple) and (
            not isinstance(value, list | tuple) or len(value) != len(default)
        ):
            raise ConfigError(
                f"{where}: {key} must be {len(default)} numbers like {default}, got {value!r:.80}"
            )
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, int | float) and not abs(part) <= sys.float_info.max:  # nan, too
                raise ConfigError(f"{where}: {key} must be finite, got {value!r:.80}")


def may_be_fused(optimizer: Optimizer) -> bool:
    """Whether its fused kernel does the same as what was asked for, and nothing else was asked for."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sharded = set(map(is_sharded, parameters))
    if True in sharded and (False in sharded or type(optimizer) not in (Adam, AdamW)):
        return False  # the other fused kernels do not know DTensors, and none knows both kinds at once
    if type(optimizer) is SGD and any(p.device.type == "cpu" and p.dtype in _HALF for p in parameters):
        return False  # torch's kernel leaves most of these weights where they are, without an error
    return (
        type(optimizer).__module__.startswith("torch.optim.")
        and all(map(_leaves_kernel_open, optimizer.param_groups))
        and all(p.is_floating_point() and p.device.type in _FUSED_DEVICES for p in parameters)
        and all(_steps_fused(type(optimizer), d) for d in {p.device for p in parameters})  # type: ignore[arg-type]  # classes can be hashed
    )


@functools.cache
def _steps_fused(optimizer_class: type[Optimizer], device: torch.device) -> bool:
    """Whether the class has a fused kernel for the device that takes a scale; torches differ in that."""
    parameter = torch.nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    try:
        tried = optimizer_class([parameter], lr=1.0, fused=True)  # type: ignore[call-arg]  # its own
        with torch.no_grad():
            inspect.unwrap(optimizer_class.step)(tried)  # no hook is to hear of it
    except (RuntimeError, TypeError, ValueError):
        return False
    return takes_scale(tried)


def _leaves_kernel_open(group: Mapping[str, Any]) -> bool:
    chosen = [group.get(key, False) for key in ("fused", "foreach")]
    return chosen == [None, None] and not (group.get("capturable") or group.get("differentiable"))

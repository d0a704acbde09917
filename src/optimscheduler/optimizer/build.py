"""Build the torch optimizer that a configuration names, checked before it is called."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from optimscheduler._torch_compat import is_of_torch, takes_scale
from optimscheduler.checks import boolean, number
from optimscheduler.errors import ConfigError
from optimscheduler.lookup import check_call, class_at, reason
from optimscheduler.optimizer.keys import IMPLEMENTATIONS, parameters_name
from optimscheduler.parameters.owned import OwnedParameters, ParameterGroup
from optimscheduler.shards import is_sharded

__all__ = [
    "build_optimizer",
    "check_drivable",
    "find_optimizer",
    "may_be_fused",
    "path_of",
    "peak_lr",
    "sets_own_lr",
]

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
    ours = is_of_torch(optimizer_class)
    return (
        optimizer_class.__name__ if ours else f"{optimizer_class.__module__}.{optimizer_class.__qualname__}"
    )


def peak_lr(optimizer_class: type[Optimizer], optim_conf: Mapping[str, Any]) -> float | None:
    """The base learning rate: `optim_conf["lr"]`, or the optimizer's own default.

    Returns:
        None where that is None: the class may set its own step size.

    Raises:
        ConfigError: it is missing, no number, or not positive.
    """
    parameter = inspect.signature(optimizer_class).parameters.get("lr")
    default = None if parameter is None or parameter.default is parameter.empty else parameter.default
    lr = optim_conf.get("lr", default)
    if isinstance(lr, torch.Tensor) and lr.numel() == 1:
        lr = lr.item()
    if lr is None and parameter is not None and parameter.default is None:
        return None
    if lr is None:
        raise ConfigError(f"optim_conf: {optimizer_class.__name__} needs an lr, which is missing")
    return number("optim_conf: lr", lr, above=0)


def sets_own_lr(group: Mapping[str, Any]) -> bool:
    """Whether the class computes the step size of a group by itself, and reads no `lr`: Adafactor's way."""
    return group.get("lr") is None or group.get("relative_step") is True


def build_optimizer(
    optimizer_class: type[Optimizer], optim_conf: Mapping[str, Any], owned: OwnedParameters
) -> Optimizer:
    """The optimizer over the owned parameters, as it was asked for.

    Args:
        optimizer_class: from `find_optimizer`.
        optim_conf: its keyword arguments. An `lr` that the constructor does not take goes into the groups.
        owned: groups in order.

    Raises:
        ConfigError: a key that the optimizer does not take, or a value that it refuses.
    """
    conf, rest = dict(optim_conf), {}
    if conf.get("lr") is not None:
        conf["lr"] = peak_lr(optimizer_class, conf)
        if not _takes(optimizer_class, "lr"):
            rest["lr"] = conf.pop("lr")
    check_call(optimizer_class, conf, "optim_conf", parameters_name(optimizer_class))
    settings = [{**rest, **group.settings} for group in owned.groups]
    _check_settings(optimizer_class, conf, list(zip(owned.groups, settings, strict=True)))
    groups = [
        {"params": list(group.parameters.values()), **own}
        for group, own in zip(owned.groups, settings, strict=True)
    ]
    try:
        return optimizer_class(groups, **conf)
    except Exception as error:  # whatever an optimizer raises
        raise ConfigError(
            f"optim_conf: {optimizer_class.__name__} refuses this: {reason(error)}"
            f"{_taken_alone(optimizer_class, conf, owned)}"
        ) from error


def _takes(optimizer_class: type[Optimizer], key: str) -> bool:
    parameters = inspect.signature(optimizer_class).parameters
    return key in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _taken_alone(optimizer_class: type[Optimizer], conf: Mapping[str, Any], owned: OwnedParameters) -> str:
    """What to type where the class takes parameters with some numbers of dimensions and no others."""
    taken: dict[int, bool] = {}
    for group in owned.groups:
        for parameter in group.parameters.values():
            if parameter.ndim not in taken:
                try:
                    optimizer_class([{"params": [parameter], **group.settings}], **conf)
                    taken[parameter.ndim] = True
                except Exception:  # whatever it raises
                    taken[parameter.ndim] = False
    fit = sorted(ndim for ndim, fits in taken.items() if fits)
    if not fit or len(fit) == len(taken):
        return ""
    return (
        f". It takes parameters with {', '.join(map(str, fit))} dimensions: write updated_modules: "
        f"{{ndim: {fit[0]}}}, and give the others to another OptimScheduler"
    )


def _check_settings(
    optimizer_class: type[Optimizer],
    conf: Mapping[str, Any],
    groups: Sequence[tuple[ParameterGroup, Mapping[str, Any]]],
) -> None:
    """Let the optimizer look at the settings of every group, which it would take as they are."""
    stand_in = torch.nn.Parameter(torch.zeros(2, 2))
    plain = {key: value for key, value in conf.items() if key not in IMPLEMENTATIONS}
    _check_kinds(optimizer_class, conf, "optim_conf")
    for group, settings in groups:
        where = "optim_conf" if not group.settings else f"param_groups: the rule '{group.label:.80}'"
        _check_kinds(optimizer_class, settings, where)
        named = inspect.signature(optimizer_class).parameters
        hidden = {key: value for key, value in settings.items() if key not in named}
        known = {key: value for key, value in settings.items() if key not in hidden}
        try:
            tried = optimizer_class([{"params": [stand_in], **hidden}], **{**plain, **known})
        except Exception as error:  # whatever an optimizer raises
            raise ConfigError(f"{where}: {optimizer_class.__name__} refuses this: {reason(error)}") from error
        _check_lr(tried, {**plain, **settings}, where)


def _check_lr(tried: Optimizer, settings: Mapping[str, Any], where: str) -> None:
    """Check that a class which is given no lr has one of its own, and one which is given one reads it."""
    group, name = tried.param_groups[0], type(tried).__name__
    if "lr" not in group:
        raise ConfigError(
            f"optim_type: {name} keeps no lr in its groups, so there is nothing that a schedule could drive. "
            "Name a class whose groups have an lr"
        )
    if group.get("relative_step") is True and settings.get("lr") is not None:
        raise ConfigError(
            f"{where}: lr: with relative_step=True {name} sets its own step size and does not read lr. Leave "
            "lr out, or write relative_step: false"
        )
    if group.get("lr") is None and group.get("relative_step") is not True:
        raise ConfigError(
            f"{where}: {name} needs an lr, which is missing"
            + ("; with relative_step=True it would set its own" if "relative_step" in group else "")
        )


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
        is_of_torch(type(optimizer))
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

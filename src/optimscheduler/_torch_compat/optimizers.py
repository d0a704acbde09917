"""Optimizers: who listens to their steps, and their fused kernels."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import profiler
from torch.optim import Adam, AdamW, Optimizer
from torch.optim import optimizer as _module

__all__ = [
    "bare_step",
    "has_step_hooks",
    "is_of_torch",
    "is_scheduled",
    "let_take_scale",
    "say_stepped",
    "step_fused_adam",
    "takes_scale",
]


def is_of_torch(optimizer_class: type) -> bool:
    """Whether a class is one of `torch.optim`, also one that says so of itself, as Muon does."""
    return f"{optimizer_class.__module__}.".startswith("torch.optim.")


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Whether somebody wants to be called before or after `optimizer.step`; True where torch does not say."""
    try:
        return bool(
            optimizer._optimizer_step_pre_hooks
            or optimizer._optimizer_step_post_hooks
            or _module._global_optimizer_pre_hooks
            or _module._global_optimizer_post_hooks
        )
    except AttributeError:
        return True


def is_scheduled(optimizer: Optimizer) -> bool:
    """Whether a learning-rate scheduler of torch, which counts, and nobody else has wrapped its `step`."""
    replaced = vars(optimizer).get("step")
    if not getattr(replaced, "_wrapped_by_lr_sched", False):
        return False
    return getattr(replaced, "__wrapped__", None) is type(optimizer).step


def say_stepped(optimizer: Optimizer) -> None:
    """Tell torch's learning-rate schedulers that the optimizer has stepped."""
    optimizer._opt_called = True  # type: ignore[attr-defined]  # what their wrapper writes


def takes_scale(optimizer: Optimizer) -> bool:
    """Whether `step` divides by `optimizer.grad_scale` and obeys `optimizer.found_inf`."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))  # the mark that GradScaler reads


def let_take_scale(optimizer: Optimizer, *, fused: bool) -> None:
    """Choose the kernel of a torch optimizer whose class has a fused one."""
    for group in optimizer.param_groups:
        group["fused"] = fused or None
    vars(optimizer)["_step_supports_amp_scaling"] = fused


def bare_step(optimizer: Optimizer) -> Callable[[Optimizer], Any] | None:
    """The `step` of a torch optimizer without torch's wrappers; None where somebody needs them.

    They serve hooks, profilers, the compiler, and callers who have not disabled gradients; they take a tenth
    of the whole step of a tiny model.
    """
    step = type(optimizer).step
    needed = (
        not getattr(step, "hooked", False)  # torch's mark of its wrapper
        or torch.is_grad_enabled()
        or "step" in vars(optimizer)
        or getattr(profiler, "_is_profiler_enabled", True)
        or has_step_hooks(optimizer)
        or optimizer.defaults.get("differentiable")
        or not is_of_torch(type(optimizer))
    )
    return None if needed else _unwrapped(step)


_unwrapped = functools.cache(inspect.unwrap)


def step_fused_adam(optimizer: Optimizer, scale: Tensor | None, found_inf: Tensor | None) -> bool:
    """The fused step of Adam and AdamW without torch's Python around it, a sixth of the step of a tiny model.

    Args:
        optimizer: any, whose step nobody watches; gradients are disabled.
        scale: 0-d, float32: what the gradients are divided by; None is 1.
        found_inf: 0-d, float32: more than 0 where nothing may move; None is 0.

    Returns:
        Whether it was done; if not, nothing is changed, and it is for `optimizer.step()` to do.
    """
    if type(optimizer) not in (Adam, AdamW) or getattr(profiler, "_is_profiler_enabled", True):
        return False
    if not getattr(type(optimizer).step, "hooked", False):  # torch's mark: somebody has replaced it
        return False
    groups = optimizer.param_groups
    lists = [_lists_of_fused_adam(optimizer.state, group) for group in groups]
    if None in lists:
        return False
    for group, tensors in zip(groups, lists, strict=True):
        if not tensors or not tensors[0]:
            continue
        beta1, beta2 = group["betas"]
        torch._foreach_add_(tensors[-1], 1)
        (torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_)(
            *tensors,
            amsgrad=group["amsgrad"],
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
            grad_scale=scale,
            found_inf=found_inf,
        )
        if found_inf is not None:
            torch._foreach_sub_(tensors[-1], [found_inf] * len(tensors[-1]))
    return True


def _lists_of_fused_adam(
    states: Mapping[Tensor, Mapping[str, Any]], group: Mapping[str, Any]
) -> list[list[Tensor]] | None:
    """What the operator takes, the counters last; None where it needs what only torch's Python prepares."""
    settings = [group.get("lr"), *group.get("betas", [None])]
    if "decoupled_weight_decay" not in group or any(type(setting) is not float for setting in settings):
        return None
    parameters = [p for p in group["params"] if p.grad is not None]
    if len(parameters) > 1 and len({(p.device, p.dtype) for p in parameters}) > 1:
        return None
    try:
        kept = [states[p] for p in parameters]
        return [
            parameters,
            [p.grad for p in parameters],
            [state["exp_avg"] for state in kept],
            [state["exp_avg_sq"] for state in kept],
            [state["max_exp_avg_sq"] for state in kept] if group["amsgrad"] else [],
            [state["step"] for state in kept],
        ]
    except KeyError:
        return None

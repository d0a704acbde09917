"""The optimizer that an update steps in place of the user's: of the same class, over tensors of our choice.

The user's optimizer stays as torch made it: over the model's own parameters, with the settings that were
asked for. Nothing in it is replaced. Its twin may be fused, or be over packed parameters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler._torch_compat import has_step_hooks, is_scheduled, let_take_scale
from optimscheduler.gradients.packable import is_dense

__all__ = ["is_laid_for_fused", "is_watched", "take_settings", "twin_of"]


def twin_of(optimizer: Optimizer, *, fused: bool) -> Optimizer:
    """An optimizer of the same class and settings, over nothing yet and without state.

    Args:
        optimizer: the user's. The constructor is not called again: it may have checked, made or registered
            something.
        fused: let the twin use the fused kernel; False leaves that as the user has it.
    """
    twin = object.__new__(type(optimizer))
    vars(twin).update(vars(optimizer))
    vars(twin).pop("step", None)  # somebody's wrapper around the user's
    twin.state = defaultdict(dict)
    twin.param_groups = [{**group, "params": []} for group in optimizer.param_groups]
    if fused:
        let_take_scale(twin, fused=True)
    return twin


def take_settings(twin: Optimizer, optimizer: Optimizer) -> None:
    """Hand learning rates and all other numbers of the user's groups to the twin; the kernel is its own."""
    for ours, theirs in zip(twin.param_groups, optimizer.param_groups, strict=True):
        kept = ours["params"], ours.get("fused"), ours.get("foreach")
        ours.update(theirs)
        ours["params"], ours["fused"], ours["foreach"] = kept
        if ours.get("dampening"):
            ours["fused"] = None  # fused SGD dampens the first gradient too, and fails at a late one


def is_watched(optimizer: Optimizer) -> bool:
    """Whether somebody wants to be told of its steps: by a hook, or by a `step` put in place of the class's.

    A learning-rate scheduler of torch only wants to know that there was one; `say_stepped` tells it.
    """
    return has_step_hooks(optimizer) or ("step" in vars(optimizer) and not is_scheduled(optimizer))


def is_laid_for_fused(parameters: Iterable[nn.Parameter], states: Mapping[Tensor, Mapping[str, Any]]) -> bool:
    """Whether parameters, gradients and state lie in the same order; fused kernels do not look at that."""
    for parameter in parameters:
        if parameter.grad is not None and not _lie_alike(parameter, states.get(parameter, {})):
            return False
    return True


def _lie_alike(parameter: nn.Parameter, state: Mapping[str, Any]) -> bool:
    tensors = [value for value in state.values() if isinstance(value, Tensor) and value.ndim]
    if parameter.grad is not None:
        tensors.append(parameter.grad)
    if any(tensor.layout is not torch.strided for tensor in tensors):
        return False
    if parameter.is_contiguous():
        return all(tensor.is_contiguous() for tensor in tensors)
    return is_dense(parameter) and all(tensor.stride() == parameter.stride() for tensor in tensors)

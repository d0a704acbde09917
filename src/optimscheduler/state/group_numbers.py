"""Which numbers of an optimizer's groups are settings, and which are its state.

A setting is what the constructor takes (`lr`, `betas`), what a configuration names, or what was given with a
group (`use_muon`). State is what the constructor puts in by itself (`k`, `weight_sum` of schedule-free ones),
and what a step puts in (`step` of many). `FirstStep.is_state` decides.
"""

from __future__ import annotations

import functools
import inspect
from typing import Final

from torch.optim import Optimizer

__all__ = ["IMPLEMENTATION", "constructor_names"]

IMPLEMENTATION: Final = ("params", "param_names", "foreach", "fused", "capturable", "differentiable")
"""Entries of a group that say what it holds and which kernel is used, and change no result."""


def constructor_names(optimizer_class: type[Optimizer]) -> frozenset[str]:
    """The names of the arguments of its constructor and of those of the classes that it inherits from.

    >>> import torch
    >>> sorted(constructor_names(torch.optim.SGD))[:3], "step" in constructor_names(torch.optim.SGD)
    (['dampening', 'differentiable', 'foreach'], False)
    """
    return _names(optimizer_class)  # type: ignore[arg-type]  # classes can be hashed


@functools.cache
def _names(optimizer_class: type[Optimizer]) -> frozenset[str]:
    classes = optimizer_class.__mro__[: optimizer_class.__mro__.index(Optimizer)]
    signatures = [inspect.signature(vars(each)["__init__"]) for each in classes if "__init__" in vars(each)]
    return frozenset(name for signature in signatures for name in signature.parameters)

"""Which numbers of an optimizer's groups are settings, and which are its state.

A setting is what the constructor takes (`lr`, `betas`), or what was given with a group (`use_muon`). State is
what the constructor puts in by itself (`k`, `weight_sum` of schedule-free ones), and what a step puts in
(`step` of many).
"""

from __future__ import annotations

import functools
import inspect
from typing import Final

from torch.optim import Optimizer

__all__ = ["IMPLEMENTATION", "constructor_names", "is_put_in"]

IMPLEMENTATION: Final = ("params", "param_names", "foreach", "fused", "capturable", "differentiable")
"""Entries of a group that say what it holds and which kernel is used, and change no result."""


def constructor_names(optimizer_class: type[Optimizer]) -> frozenset[str]:
    """The names of the arguments of its constructor and of those of the classes that it inherits from.

    >>> import torch
    >>> sorted(constructor_names(torch.optim.SGD))[:3], "step" in constructor_names(torch.optim.SGD)
    (['dampening', 'differentiable', 'foreach'], False)
    """
    return frozenset(_arguments_of(optimizer_class))  # type: ignore[arg-type]  # classes can be hashed


def is_put_in(optimizer: Optimizer, key: str) -> bool:
    """Whether the constructor puts an entry into the groups that is none of its arguments: it is state.

    Of a constructor with `**keywords`, whose names do not tell all settings, nobody can say.
    """
    known = _arguments_of(type(optimizer))  # type: ignore[arg-type]  # classes can be hashed
    takes_anything = inspect.Parameter.VAR_KEYWORD in known.values()
    return key in optimizer.defaults and key not in known and not takes_anything


@functools.cache
def _arguments_of(optimizer_class: type[Optimizer]) -> dict[str, object]:
    """Name -> kind, of the class and those that it inherits from."""
    classes = optimizer_class.__mro__[: optimizer_class.__mro__.index(Optimizer)]
    signatures = [inspect.signature(vars(each)["__init__"]) for each in classes if "__init__" in vars(each)]
    return {name: p.kind for signature in signatures for name, p in signature.parameters.items()}

"""What an optimizer keeps about a parameter after its first step, tried with tensors that are thrown away.

A loader that fills what it is given, as `torch.distributed.checkpoint` does, needs a place for each tensor.
And what a class keeps says whether a saved state can be stepped by it.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer, SparseAdam

from optimscheduler._torch_compat import is_of_torch
from optimscheduler.gradients.twin import twin_of
from optimscheduler.state.group_numbers import constructor_names
from optimscheduler.state.undisturbed import undisturbed

__all__ = ["FirstStep", "state_after_first_step"]

_HOOKS: Final = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")

State = dict[str, Any]  # Any: what an optimizer keeps about one parameter


@torch.no_grad()
def state_after_first_step(
    optimizer: Optimizer, group: Mapping[str, Any], parameter: nn.Parameter
) -> dict[str, Any]:
    """The state that a first step with a gradient of zeros makes; optimizer and parameter are left alone.

    Args:
        optimizer: any whose `step` needs no closure.
        group: that of the parameter.
        parameter: sharded or not.

    Returns:
        Its entries. None where the optimizer keeps nothing, or is not torch's: its step may do anything.
    """
    if not is_of_torch(type(optimizer)):
        return {}
    twin, stand_in = twin_of(optimizer, fused=False), _stand_in(optimizer, parameter)
    for hooks in _HOOKS:
        setattr(twin, hooks, OrderedDict())
    twin.param_groups = [{**group, "params": [stand_in]}]
    inspect.unwrap(type(optimizer).step)(twin)
    return dict(twin.state.get(stand_in, {}))


def _stand_in(optimizer: Optimizer, parameter: nn.Parameter) -> nn.Parameter:
    """Ones like a parameter, with a gradient of zeros."""
    differentiable = parameter.is_floating_point() or parameter.is_complex()
    stand_in = nn.Parameter(torch.ones_like(parameter), requires_grad=differentiable)
    zeros = torch.zeros_like(parameter)
    stand_in.grad = zeros.to_sparse() if isinstance(optimizer, SparseAdam) else zeros
    return stand_in


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """What a first step of a throwaway optimizer has made; None of what nobody can say."""

    state: State | None
    numbers: frozenset[str]  # entries of the group that it has made or changed


class FirstStep:
    """Asks an optimizer's class what its first step makes, once for parameters that are alike.

    A class that is not torch's is asked with a copy of the optimizer over ones, in which nothing of the
    user's is left: no parameter, no state, no hook. Random numbers, warnings and what it prints are kept
    apart. Where that copy cannot be made or stepped, nobody can say.

    Args:
        optimizer: the user's; it is left alone.
        told: for each of its groups, settings that are to count in place of those that are there.
        named: settings that a configuration names; a constructor may take others than it lists.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        told: Sequence[Mapping[str, Any]] = (),
        named: Collection[str] = (),
    ) -> None:
        self._optimizer, self.named = optimizer, named
        groups = optimizer.param_groups
        pairs = zip(groups, told or [{}] * len(groups), strict=True)
        merged = [{**group, **settings} for group, settings in pairs]
        self._group_of = {p: new for new in merged for p in new["params"]}
        self._tried: dict[tuple[object, ...], _Tried] = {}

    def state(self, parameter: nn.Parameter) -> State | None:
        """What is kept about a parameter, by name; None where nobody can say."""
        return self._try(parameter).state

    def is_state(self, group: Mapping[str, Any], key: str) -> bool:
        """Whether an entry of one of the groups is state, not a setting."""
        if key in constructor_names(type(self._optimizer)) or key in self.named:
            return False
        return key in self._optimizer.defaults or key in self.numbers(group)

    def numbers(self, group: Mapping[str, Any]) -> frozenset[str]:
        """Which entries of a group a step makes or changes, as far as that can be said."""
        dense = [p for p in group["params"] if not is_lazy(p)]
        return self._try(dense[0]).numbers if dense else frozenset()

    def _try(self, parameter: nn.Parameter) -> _Tried:
        group = self._group_of[parameter]
        placed = str(getattr(parameter, "placements", ""))
        key = (id(group), tuple(parameter.shape), parameter.dtype, parameter.device, placed)
        if key not in self._tried:
            self._tried[key] = self._newly(group, parameter)
        return self._tried[key]

    def _newly(self, group: Mapping[str, Any], parameter: nn.Parameter) -> _Tried:
        if is_of_torch(type(self._optimizer)):
            try:
                state = state_after_first_step(self._optimizer, group, parameter)
            except Exception:  # whatever a step raises, over parameters that it does not take
                return _Tried(state=None, numbers=frozenset())
            return _Tried(state=state, numbers=frozenset())
        known = constructor_names(type(self._optimizer))
        asked = {key: value for key, value in group.items() if key in known or key in self.named}
        new = {**self._optimizer.defaults, **asked}
        tried = _tried(self._optimizer, {**group, **self._put_in(group)}, parameter)
        if not set(group) <= {"params", "param_names", *new}:  # it may have stepped before
            begun = _tried(self._optimizer, new, parameter)
            tried = begun if tried.state is None else replace(tried, numbers=tried.numbers | begun.numbers)
        return tried

    def _put_in(self, group: Mapping[str, Any]) -> State:
        """State that the constructor puts into a group, as it is before any step."""
        own, known = self._optimizer.defaults, constructor_names(type(self._optimizer))
        return {key: own[key] for key in group if key in own and key not in known}


def _tried(optimizer: Optimizer, given: Mapping[str, Any], parameter: nn.Parameter) -> _Tried:
    """A first step of a class that may do anything, with nothing of the user's in reach."""
    numbers = {key: value for key, value in given.items() if key not in ("params", "param_names")}
    try:
        with undisturbed(parameter.device), torch.no_grad():
            stand_in = _stand_in(optimizer, parameter)
            group = {**copy.deepcopy(numbers), "params": [stand_in]}
            twin = _copy_over(optimizer, group, stand_in)
            if callable(train := getattr(twin, "train", None)):
                train()  # schedule-free ones refuse a step otherwise
            inspect.unwrap(type(optimizer).step)(twin)
    except Exception:  # whatever such a step raises
        return _Tried(state=None, numbers=frozenset())
    now = {key: value for key, value in twin.param_groups[0].items() if key != "params"}
    moved = frozenset(key for key, value in now.items() if key not in numbers or _differ(value, numbers[key]))
    return _Tried(state=_as_saved(twin, stand_in), numbers=moved)


def _as_saved(twin: Optimizer, stand_in: nn.Parameter) -> State:
    """What it keeps about its only parameter, under the names that the class saves it with."""
    try:
        saved = twin.state_dict()["state"].get(0, {})
    except Exception:  # whatever such a class raises, of a copy that nobody has constructed
        saved = twin.state.get(stand_in, {})
    return dict(saved)


def _differ(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return not torch.equal(one, other)
    return bool(one != other)


def _copy_over(optimizer: Optimizer, group: State, stand_in: nn.Parameter) -> Optimizer:
    """An optimizer with copies of all attributes, in which every parameter is the stand-in.

    Raises:
        TypeError: it holds another optimizer or a model, or something that cannot be copied.
    """
    apart = ("param_groups", "state", "step", "defaults", *_HOOKS)
    held = {key: value for key, value in vars(optimizer).items() if key not in apart}
    if any(isinstance(value, Optimizer | nn.Module) for value in held.values()):
        raise TypeError(f"{type(optimizer).__name__} holds another optimizer or a model")
    memo: dict[int, Any] = {id(p): stand_in for each in optimizer.param_groups for p in each["params"]}
    twin = object.__new__(type(optimizer))
    memo |= {id(optimizer.param_groups): [group], id(optimizer.state): {}, id(optimizer): twin}
    vars(twin).update(copy.deepcopy(held, memo), defaults=dict(optimizer.defaults), param_groups=[group])
    twin.state = defaultdict(dict)
    for hooks in _HOOKS:
        setattr(twin, hooks, OrderedDict())
    return twin

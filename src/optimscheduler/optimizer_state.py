"""Optimizer state under parameter names, so that it survives regrouping, wrapping and a change of library.

`torch_state` reads a plain `torch.optim` optimizer's, by index.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from optimscheduler.errors import CheckpointError
from optimscheduler.first_step import state_after_first_step
from optimscheduler.gradients.suited import SCALARS
from optimscheduler.shards import is_sharded, laid_as

__all__ = ["load_optimizer", "optimizer_by_name"]

_IMPLEMENTATION: Final = ("params", "param_names", "foreach", "fused", "capturable", "differentiable")

State = dict[str, Any]  # Any: a state dict is a tree of plain values and tensors


def optimizer_by_name(optimizer: Optimizer, names: Sequence[str]) -> State:
    """The state of a torch optimizer, with names for indices.

    It has entries for every trainable parameter, also for those that were never updated: a loader that fills
    what it is given, as `torch.distributed.checkpoint` does, needs them. `present` says which ones count.

    Args:
        optimizer: whose parameters, through all groups, are `names` in that order.
        names: canonical parameter names.

    Returns:
        `{"state": {name: {...}}, "present": [names], "groups": [{..., "params": [names]}]}`; tensors are
        references.

    Raises:
        CheckpointError: there is state of a parameter that is in no group, which torch cannot save.
    """
    try:
        raw = optimizer.state_dict()
    except KeyError as error:
        raise CheckpointError(
            "optim.optimizer.state has an entry for a tensor that is in none of its groups. After a "
            "parameter was replaced write optim.optimizer.state.pop(old, None)"
        ) from error
    groups = [{**group, "params": [names[i] for i in group["params"]]} for group in raw["param_groups"]]
    state = {names[i]: dict(state) for i, state in raw["state"].items() if state}
    present = [name for name in names if name in state]
    return {"state": state | _to_come(optimizer, names, present), "present": present, "groups": groups}


def _to_come(optimizer: Optimizer, names: Sequence[str], there: Collection[str]) -> State:
    """What the first update of the other trainable parameters will make."""
    places = [(group, p) for group in optimizer.param_groups for p in group["params"]]
    made = {
        name: state_after_first_step(optimizer, group, parameter)
        for name, (group, parameter) in zip(names, places, strict=True)
        if name not in there and parameter.requires_grad and not is_lazy(parameter)
    }
    return {name: state for name, state in made.items() if state}


def load_optimizer(
    optimizer: Optimizer, names: Sequence[str], saved: Mapping[str, Any], *, settings: bool
) -> None:
    """Load a state by name; the tensors are copied.

    Args:
        optimizer: whose parameters, through all groups, are `names` in that order.
        names: canonical parameter names.
        saved: from `optimizer_by_name`.
        settings: take the groups' settings (lr, betas, ...) too, where a saved group has these parameters.
            What others have put into groups, as torch's schedulers do, is taken in any case.
    """
    saved = {**saved, "state": _on_its_mesh(optimizer, names, saved["state"])}
    raw = optimizer.state_dict()
    index = {name: i for i, name in enumerate(names)}
    present = [name for name in saved.get("present", saved["state"]) if name in index]
    raw["state"] = {index[name]: _copied(saved["state"][name]) for name in present}
    saved_group = {name: group for group in saved["groups"] for name in group["params"]}
    for group in raw["param_groups"]:
        theirs = saved_group.get(names[group["params"][0]], {}) if group["params"] else {}
        added = {key: value for key, value in theirs.items() if settings or key not in group}
        group.update({key: value for key, value in added.items() if key not in _IMPLEMENTATION})
    kept = raw["state"]
    optimizer.load_state_dict(raw)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, state in kept.items():
        _keep_dtype(optimizer, parameters[i], state)


def _on_its_mesh(optimizer: Optimizer, names: Sequence[str], states: Mapping[str, State]) -> dict[str, State]:
    """The saved states; whole tensors are spread where the parameter is, as after saving in one process."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sharded = {name: p for name, p in zip(names, parameters, strict=True) if is_sharded(p)}
    return {
        name: {key: laid_as(v, sharded[name]) if isinstance(v, Tensor) else v for key, v in state.items()}
        if name in sharded
        else dict(state)
        for name, state in states.items()
    }


def _keep_dtype(optimizer: Optimizer, parameter: nn.Parameter, saved: Mapping[str, Any]) -> None:
    """Torch casts all but `step` to the parameter's dtype; numbers kept once per tensor have their own."""
    known = SCALARS.get(type(optimizer))
    state = optimizer.state[parameter]
    for key, value in saved.items():
        if isinstance(value, Tensor) and (
            key in known if known is not None else value.ndim == 0 < parameter.ndim
        ):
            state[key] = value.to(state[key].device)


def _copied(state: Mapping[str, Any]) -> State:
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in state.items()}

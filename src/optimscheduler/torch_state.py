"""States of others: a plain `torch.optim` optimizer's, by index, and the origin's, which adds a scaler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from optimscheduler.errors import CheckpointError
from optimscheduler.member import Member
from optimscheduler.optimizer_state import State, load_optimizer
from optimscheduler.parameters import OwnedParameters, canonical
from optimscheduler.precision import LossScale

__all__ = ["check_torch_state", "load_torch_state", "named_from_torch"]


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


def named_from_torch(raw: Mapping[str, Any], owned: OwnedParameters) -> State:
    """A torch optimizer's own state, with names for indices.

    The names are those it was saved with (`named_parameters`). Otherwise one group is taken to be in the
    order of the selection (all of it, or what is trainable of it), and several groups to be ours.

    Args:
        raw: `{"state": {index: ...}, "param_groups": [...]}`.
        owned: what is owned here.

    Raises:
        CheckpointError: number or shapes do not fit.
    """
    groups = raw["param_groups"]
    if all("param_names" in group for group in groups):
        orders = [[canonical(name) for group in groups for name in group["param_names"]]]
    elif len(groups) == 1:
        orders = [[*owned.selection], [n for n in owned.selection if owned.by_name[n].requires_grad]]
    else:
        ours = [len(group.parameters) for group in owned.groups]
        orders = [list(owned.by_name)] if ours == [len(group["params"]) for group in groups] else []
    indices = [i for group in groups for i in group["params"]]
    names = next((order for order in orders if _fits(raw["state"], indices, order, owned.by_name)), None)
    if names is None:
        raise CheckpointError(
            f"this optimizer state ({len(indices)} parameters, groups: {len(groups)}) does not fit the "
            f"{len(owned.by_name)} parameters owned here in number, shapes or groups. Save it from an "
            "optimizer that was given model.named_parameters(), and the names decide"
        )
    by_index = dict(zip(indices, names, strict=True))
    named = [{**group, "params": [by_index[i] for i in group["params"]]} for group in groups]
    return {"state": {by_index[i]: state for i, state in raw["state"].items()}, "groups": named}


def _fits(
    state: Mapping[int, Mapping[str, Any]],
    indices: Sequence[int],
    names: Sequence[str],
    owned: Mapping[str, nn.Parameter],
) -> bool:
    """Whether number and shapes are right; state tensors of one element have no shape to check."""
    return len(indices) == len(names) and all(
        name in owned and value.shape == owned[name].shape
        for i, name in zip(indices, names, strict=True)
        for value in state.get(i, {}).values()
        if isinstance(value, Tensor) and value.numel() > 1
    )

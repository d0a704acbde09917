"""States of others: a plain `torch.optim` optimizer's, by index, and the origin's, which adds a scaler."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from optimscheduler.backward.precision import LossScale
from optimscheduler.errors import CheckpointError
from optimscheduler.line.member import Member
from optimscheduler.parameters.owned import OwnedParameters, canonical
from optimscheduler.state.entries import check_entries, compare_entries, is_of_class
from optimscheduler.state.first_step import FirstStep
from optimscheduler.state.optimizer_state import State, load_optimizer, taken_by_groups
from optimscheduler.state.parts import check_scale
from optimscheduler.state.saved_numbers import unfit_numbers

__all__ = ["TorchState", "check_torch_state", "load_torch_state", "named_from_torch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchState:
    """A state of others that fits.

    Attributes:
        optimizer: by name, as it may be loaded.
        first: what the optimizer's first step makes.
        changed: a line for everything that begins anew, or is left out.
    """

    optimizer: State
    first: FirstStep
    changed: list[str]


def check_torch_state(
    m: Member, state: Mapping[str, Any], settings: Collection[str] = (), *, in_part: bool = False
) -> TorchState:
    """Check the origin's `{"optimizer": ..., "scaler": ...}`, or a plain torch optimizer's state.

    Args:
        m: the member.
        state: the saved state.
        settings: those of the optimizer that the configuration names.
        in_part: take what fits.

    Raises:
        CheckpointError: it is neither, or is not of these parameters, or of another class of optimizer.
    """
    raw = state.get("optimizer", state)
    if not isinstance(raw, Mapping) or not {"state", "param_groups"} <= set(raw):
        raise CheckpointError(f"this is no optimizer state: its keys are {sorted(map(str, state))}")
    _check_shape(raw)
    if state.get("scaler"):
        check_scale("scaler", state["scaler"])
    first, names = FirstStep(m.optimizer, named=settings), list(m.owned.by_name)
    named, changed = named_from_torch(raw, m.owned, first, in_part=in_part)
    same_class = is_of_class(m.optimizer, raw["param_groups"], first)
    entries = compare_entries(m.optimizer, m.owned.by_name, named, first, same_class=same_class)
    entries.wrong += unfit_numbers(
        m.optimizer, taken_by_groups(m.optimizer, names, named, first, settings=False)
    )
    changed += check_entries(m.optimizer, entries, in_part=in_part)
    return TorchState(optimizer=entries.taken, first=first, changed=changed)


def load_torch_state(
    m: Member, scaler: LossScale | None, state: Mapping[str, Any], found: TorchState
) -> None:
    """Load what `check_torch_state` has found good."""
    load_optimizer(m.optimizer, list(m.owned.by_name), found.optimizer, settings=False, first=found.first)
    if scaler is not None and state.get("scaler"):
        scaler.load_state_dict(state["scaler"])


def _check_shape(raw: Mapping[str, Any]) -> None:
    """Check that it is built as torch's are."""
    groups, state = raw["param_groups"], raw["state"]
    if not isinstance(groups, list) or not isinstance(state, Mapping):
        raise CheckpointError(
            f"this is no optimizer state: param_groups must be a list, got {type(groups).__name__}, and "
            f"state a mapping, got {type(state).__name__}"
        )
    for i, group in enumerate(groups):
        if not isinstance(group, Mapping) or not isinstance(group.get("params"), list):
            raise CheckpointError(f"this optimizer state is damaged: param_groups[{i}] has no list 'params'")
    indices = [index for group in groups for index in group["params"]]
    for index, entries in state.items():
        if isinstance(index, int) and (index not in indices or not isinstance(entries, Mapping)):
            raise CheckpointError(
                f"this optimizer state is damaged: state[{index}] must be a mapping, of a parameter that is "
                f"in a group, got {entries!r:.80}"
            )


def named_from_torch(
    raw: Mapping[str, Any], owned: OwnedParameters, first: FirstStep, *, in_part: bool = False
) -> tuple[State, list[str]]:
    """A torch optimizer's own state, with names for indices.

    The names are those it was saved with (`named_parameters`). Otherwise one group is taken to be in the
    order of the selection (all of it, or what is trainable of it), and several groups to be ours.

    Args:
        raw: `{"state": {index: ...}, "param_groups": [...]}`.
        owned: what is owned here.
        first: of the optimizer here; its shapes tell which order is right.
        in_part: where it has names, take what fits.

    Returns:
        The state, and a line for everything that is left out or not there.

    Raises:
        CheckpointError: number or shapes do not fit.
    """
    groups = raw["param_groups"]
    indices = [i for group in groups for i in group["params"]]
    has_names = all("param_names" in group for group in groups)
    orders = [order for order in _orders(groups, owned) if len(order) == len(indices)]
    states = [raw["state"].get(i, {}) for i in indices]
    names = next((order for order in orders if _all_fit(states, order, owned.by_name, first)), None)
    changed: list[str] = []
    if names is None and has_names and in_part and orders:
        names = orders[0]
        changed = list(_misfits(states, names, owned.by_name, first))
    if names is None:
        raise CheckpointError(
            f"this optimizer state ({len(indices)} parameters, groups: {len(groups)}) does not fit the "
            f"{len(owned.by_name)} parameters owned here in number, shapes or groups. "
            + _hint(named=has_names)
        )
    return _by_name(
        raw, dict(zip(indices, names, strict=True)), {line.split()[0] for line in changed}
    ), changed


def _hint(*, named: bool) -> str:
    if named:
        return "on_mismatch='config' takes what fits, by name"
    return "Save it from an optimizer that was given model.named_parameters(), and the names decide"


def _by_name(raw: Mapping[str, Any], names: Mapping[int, str], left_out: Collection[str]) -> State:
    """The state under these names, without those that are left out."""
    groups = [{**group, "params": [names[i] for i in group["params"]]} for group in raw["param_groups"]]
    kept = {names[i]: state for i, state in raw["state"].items() if isinstance(i, int)}
    more = {key: value for key, value in raw.items() if key not in ("state", "param_groups", "scaler")}
    if of_none := {key: value for key, value in raw["state"].items() if not isinstance(key, int)}:
        more["state"] = of_none
    state = {name: entries for name, entries in kept.items() if name not in left_out}
    return {"state": state, "groups": groups, **({"more": more} if more else {})}


def _orders(groups: Sequence[Mapping[str, Any]], owned: OwnedParameters) -> Iterator[list[str]]:
    """The orders in which the parameters may be."""
    if all("param_names" in group for group in groups):
        yield [canonical(name) for group in groups for name in group["param_names"]]
    elif len(groups) == 1:
        yield [*owned.selection]
        yield [name for name in owned.selection if owned.by_name[name].requires_grad]
    elif [len(group.parameters) for group in owned.groups] == [len(group["params"]) for group in groups]:
        yield list(owned.by_name)


def _misfits(
    states: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    owned: Mapping[str, nn.Parameter],
    first: FirstStep,
) -> Iterator[str]:
    for name, state in zip(names, states, strict=True):
        if name not in owned:
            yield f"{name} is in the checkpoint alone; its optimizer state is dropped"
        elif not _fits(state, owned[name], first):
            yield f"{name} has another shape in the checkpoint; its optimizer state starts anew"
    for name in owned:
        if name not in names:
            yield f"{name} is not in the checkpoint; its optimizer state starts anew"


def _all_fit(
    states: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    owned: Mapping[str, nn.Parameter],
    first: FirstStep,
) -> bool:
    pairs = zip(names, states, strict=True)
    return all(name in owned and _fits(state, owned[name], first) for name, state in pairs)


def _fits(state: Mapping[str, Any], parameter: nn.Parameter, first: FirstStep) -> bool:
    """Whether shapes are right: of the entries that the class keeps, and that have many elements."""
    made = {} if is_lazy(parameter) or not state else first.state(parameter) or {}
    return all(
        value.shape == made[key].shape
        for key, value in state.items()
        if isinstance(value, Tensor) and value.numel() > 1 and isinstance(made.get(key), Tensor)
    )

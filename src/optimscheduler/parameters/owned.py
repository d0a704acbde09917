"""Which parameters an OptimScheduler owns, under which names, in which groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler._torch_compat import unsaved_buffers
from optimscheduler.errors import ParameterError, nearest
from optimscheduler.parameters.group_rules import GroupRule
from optimscheduler.parameters.selection import Selector, pattern, read_selector

__all__ = [
    "OwnedParameters",
    "ParameterGroup",
    "canonical",
    "first_names",
    "own",
    "own_again",
    "saved_buffers",
    "select",
]

_WRAPPERS = {
    "module",  # DistributedDataParallel
    "_orig_mod",  # torch.compile
    "_checkpoint_wrapped_module",
    "_fsdp_wrapped_module",
    "_forward_module",  # Lightning Fabric, which holds the model twice
    "_original_module",
}


def canonical(name: str) -> str:
    """A parameter's name without what DDP, compile, checkpoint and Fabric wrappers put into it.

    >>> canonical("module._orig_mod.encoder.weight")
    'encoder.weight'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def saved_buffers(model: nn.Module) -> Iterator[Tensor]:
    """The buffers that are saved with the model; the others are computed, and the same everywhere."""
    for module in model.modules():
        unsaved = unsaved_buffers(module)
        yield from (buffer for name, buffer in module.named_buffers(recurse=False) if name not in unsaved)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters that share their settings.

    Attributes:
        label: the rule they were chosen by, for people.
        parameters: canonical name -> parameter.
        settings: what differs from `optim_conf`, for example `{"weight_decay": 0}`.
        schedules: number of the group -> schedule of its own, as written.
    """

    label: str
    parameters: dict[str, nn.Parameter]
    settings: dict[str, Any]  # Any: values of torch's optimizers have many types
    schedules: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OwnedParameters:
    """The parameters of one OptimScheduler.

    Attributes:
        selection: canonical names, in the order in which they were selected.
        groups: the groups, in the optimizer's order; the one without a rule first.
        whole_model: whether the model has no other parameter.
        others: canonical names of the model's other parameters.
    """

    selection: tuple[str, ...]
    groups: tuple[ParameterGroup, ...]
    whole_model: bool
    others: frozenset[str] = frozenset()

    @cached_property
    def by_name(self) -> dict[str, nn.Parameter]:
        """Canonical name -> parameter, in the optimizer's order."""
        return {name: p for group in self.groups for name, p in group.parameters.items()}

    def new_parameters(self, model: nn.Module) -> list[str]:
        """Canonical names of trainable parameters that the model did not have when these were selected."""
        ours = set(map(id, self.by_name.values()))
        names, parameters = _all_names(model)
        return [
            aliases[0]
            for key, aliases in names.items()
            if key not in ours and parameters[key].requires_grad and self.others.isdisjoint(aliases)
        ]


def select(
    model: nn.Module, updated_modules: Sequence[object] | None, exclude: Sequence[object]
) -> dict[str, nn.Parameter]:
    """The parameters of the named modules, less the excluded ones.

    Args:
        model: wrapped or not.
        updated_modules: names, patterns or mappings, see `read_selector`; None is the whole model.
        exclude: the same, for what is taken out again.

    Returns:
        Canonical name -> parameter, module by module as they are listed, in a module in the model's
        order; a tied parameter once, under its first name.

    Raises:
        ParameterError: a name matches nothing, or nothing trainable is left.
    """
    names, parameters = _all_names(model)
    if updated_modules is None:
        chosen = list(names)
    else:
        chosen = _matching("updated_modules", updated_modules, names, parameters)
    excluded = set(_matching("exclude", exclude, names, parameters))
    owned = {names[key][0]: parameters[key] for key in chosen if key not in excluded}
    if not any(parameter.requires_grad for parameter in owned.values()):
        what = "the model" if updated_modules is None else f"updated_modules={list(updated_modules)}"
        raise ParameterError(
            f"{what} has no trainable parameter: {len(owned)} selected, none with requires_grad=True"
        )
    return owned


def first_names(model: nn.Module) -> dict[int, str]:
    """By identity, the canonical name of every parameter; of a tied one the first."""
    names, _ = _all_names(model)
    return {key: aliases[0] for key, aliases in names.items()}


def _all_names(model: nn.Module) -> tuple[dict[int, list[str]], dict[int, nn.Parameter]]:
    """By identity, the canonical names of every parameter, tied ones have several, and the parameter.

    Where the canonical names of two parameters are the same, because a module of the user's own is called
    like a wrapper's, both keep their full names.
    """
    full = list(model.named_parameters(remove_duplicate=False))
    holders: dict[str, set[int]] = {}
    for name, parameter in full:
        holders.setdefault(canonical(name), set()).add(id(parameter))
    names: dict[int, list[str]] = {}
    for name, parameter in full:
        short = canonical(name)
        names.setdefault(id(parameter), []).append(name if len(holders[short]) > 1 else short)
    return names, {id(parameter): parameter for _, parameter in full}


def _matching(
    what: str,
    written: Sequence[object],
    names: Mapping[int, list[str]],
    parameters: Mapping[int, nn.Parameter],
) -> list[int]:
    """The parameters that the selectors match, one after the other."""
    chosen: dict[int, None] = {}
    for each in written:
        selector = read_selector(what, each)
        found = [key for key, aliases in names.items() if selector.fits(aliases, parameters[key].ndim)]
        if not found:
            raise ParameterError(
                f"{what}: {each!r:.80} matches no parameter. {_instead(selector, names, parameters)}"
            )
        chosen |= dict.fromkeys(found)
    return list(chosen)


def _instead(
    selector: Selector, names: Mapping[int, list[str]], parameters: Mapping[int, nn.Parameter]
) -> str:
    """What there is, for a selector that nothing fits."""
    by_name = replace(selector, ndim="")
    if there := {parameters[key].ndim for key, aliases in names.items() if by_name.fits(aliases, 0)}:
        return f"Those of that name have {', '.join(map(str, sorted(there)))} dimensions."
    known = {name.rsplit(".", depth)[0] for a in names.values() for name in a for depth in range(1, 9)}
    return nearest(selector.names[0], known)


def own(
    model: nn.Module,
    updated_modules: Sequence[object] | None = None,
    exclude: Sequence[object] = (),
    rules: Sequence[GroupRule] = (),
    base_lr: float = 1.0,
) -> OwnedParameters:
    """Select the parameters and put them into groups; the first rule that fits wins.

    Args:
        model: wrapped or not.
        updated_modules: see `select`.
        exclude: see `select`.
        rules: the rules of `param_groups`.
        base_lr: what `layer_decay` multiplies where the rule gives no `lr`.

    Raises:
        ParameterError: a selection or a rule matches nothing.
    """
    selected = select(model, updated_modules, exclude)
    rest = dict(selected)
    groups: list[ParameterGroup] = []
    for rule in rules:
        layers = {
            name: layer for name, p in rest.items() if (layer := rule.layer_of(name, p.ndim)) is not None
        }
        if not layers:
            raise ParameterError(
                f"param_groups: the rule '{rule.label}' matches no parameter that an earlier rule left. "
                f"{nearest(rule.label, rest)}"
            )
        groups += _groups_of(
            rule, {name: (layers[name], rest.pop(name)) for name in layers}, selected, base_lr
        )
    if rest:
        groups.insert(0, ParameterGroup(label="rest" if rules else "all", parameters=rest, settings={}))
    whole_model = {id(p) for p in selected.values()} == {id(p) for p in model.parameters()}
    others = frozenset(
        name for aliases in _all_names(model)[0].values() for name in aliases if name not in selected
    )
    return OwnedParameters(
        selection=tuple(selected), groups=tuple(groups), whole_model=whole_model, others=others
    )


def own_again(owned: OwnedParameters, model: nn.Module, optimizer: Optimizer) -> OwnedParameters:
    """The parameters that an optimizer has now, somebody having replaced some in its groups.

    Args:
        owned: those that it had, in as many groups.
        model: the model, wrapped or not.
        optimizer: the optimizer.

    Raises:
        ParameterError: a parameter is not the model's, or there are other groups.
    """
    now = optimizer.param_groups
    if len(now) != len(owned.groups):
        raise ParameterError(
            f"optim.optimizer has {len(now)} parameter groups and was built with {len(owned.groups)}; groups "
            "cannot come or go. Append new parameters to a group that is there: "
            "optim.optimizer.param_groups[0]['params'] += [...], or build a new OptimScheduler"
        )
    names, _ = _all_names(model)
    groups = []
    for i, (group, held) in enumerate(zip(owned.groups, now, strict=True)):
        for p in held["params"]:
            if id(p) not in names:
                raise ParameterError(
                    f"optim.optimizer.param_groups[{i}] has a parameter of shape {tuple(p.shape)} that is "
                    "not the model's; replace it in the model too (model.x = parameter), or take it out"
                )
        groups.append(replace(group, parameters={names[id(p)][0]: p for p in held["params"]}))
    selection = tuple(name for group in groups for name in group.parameters)
    ours = {id(p) for group in groups for p in group.parameters.values()}
    return OwnedParameters(
        selection=selection,
        groups=tuple(groups),
        whole_model=ours == {id(p) for p in model.parameters()},
        others=owned.others | (set(owned.by_name) - set(selection)),
    )


def _groups_of(
    rule: GroupRule,
    matched: Mapping[str, tuple[int, nn.Parameter]],
    selected: Mapping[str, nn.Parameter],
    base_lr: float,
) -> list[ParameterGroup]:
    if rule.layer_decay is None:
        parameters = {name: parameter for name, (_, parameter) in matched.items()}
        return [
            ParameterGroup(
                label=rule.label, parameters=parameters, settings=rule.settings, schedules=rule.schedules
            )
        ]
    fits = pattern(rule.name[0]).fullmatch
    top = max(int(found[1]) for name in selected if (found := fits(name)))
    lr = rule.settings.get("lr", base_lr)
    return [
        ParameterGroup(
            label=rule.label.replace("#", str(layer)),
            parameters={name: parameter for name, (at, parameter) in matched.items() if at == layer},
            settings={**rule.settings, "lr": lr * rule.layer_decay ** (top - layer)},
            schedules=rule.schedules,
        )
        for layer in sorted({layer for layer, _ in matched.values()})
    ]

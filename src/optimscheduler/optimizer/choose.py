"""The optimizer of an OptimScheduler: built from its name or class, or one that is there already."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler.checks import number
from optimscheduler.errors import CheckpointError, ConfigError, ParameterError
from optimscheduler.optimizer.build import (
    build_optimizer,
    check_drivable,
    find_optimizer,
    path_of,
    peak_lr,
    sets_own_lr,
)
from optimscheduler.optimizer.keys import group_keys
from optimscheduler.parameters.group_rules import read_rules
from optimscheduler.parameters.owned import OwnedParameters, ParameterGroup, first_names, own, own_again
from optimscheduler.written import OptimType

__all__ = ["Chosen", "choose"]

_LISTED = 5  # parameters told one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An optimizer, and what a configuration would say of it.

    Attributes:
        optimizer: over the owned parameters.
        owned: they, in its groups.
        base_lr: what every learning rate is in proportion to, > 0; None where the optimizer sets its own step
            size, and nothing is written.
        handed_in: it was there already.
        config: `optim_type`, `optim_conf`, `updated_modules`, `param_groups` and `exclude`, as written.
    """

    optimizer: Optimizer
    owned: OwnedParameters
    base_lr: float | None
    handed_in: bool
    config: Mapping[str, Any]  # Any: as YAML would hold it

    def lr_before(self, driver: str | None) -> float | None:
        """What the learning rate is before the first update; of one that nobody drives, what is there."""
        stays = self.handed_in and driver is None and self.base_lr is not None
        return float(self.optimizer.param_groups[0]["lr"]) if stays else self.base_lr

    def check_driven(self, driver: str | None, ft_factor: object) -> None:
        """Check that there is a learning rate to drive, if anything drives it.

        Args:
            driver: what does, for people; None is nothing.
            ft_factor: another factor of it.

        Raises:
            ConfigError: the optimizer sets its own.
        """
        rules = [g.label for g in self.owned.groups if "lr" in g.settings or "lr" in g.schedules]
        told = driver or (f"ft_factor={ft_factor!r:.80}" if ft_factor != 1 else "")
        told = told or (f"the rule '{rules[0]:.80}' of param_groups" if rules else "")
        if self.base_lr is None and told:
            name = type(self.optimizer).__name__
            raise ConfigError(
                f"optim_conf: {name} sets its own step size here (relative_step) and reads no lr, so {told} "
                "has nothing to drive. Leave that out, or write optim_conf: {lr: 1e-3, relative_step: false}"
            )

    def check_buildable(self, changed: Sequence[str]) -> None:
        """Check that another configuration may win.

        Raises:
            CheckpointError: the optimizer was handed in, and is not built here.
        """
        if self.handed_in:
            raise CheckpointError(
                "on_mismatch='checkpoint': the optimizer was handed in, and is not built anew here. Build it "
                "with the checkpoint's settings before you hand it in, or use on_mismatch='config':\n  "
                + "\n  ".join(changed)
            )


def choose(
    optim_type: OptimType,
    optim_conf: Mapping[str, Any] | None,
    model: nn.Module,
    updated_modules: Sequence[object] | None,
    exclude: Sequence[object],
    param_groups: object,
) -> Chosen:
    """Build the optimizer, or take the one that was handed in with the groups and the state that it has.

    Args:
        optim_type: a name, a dotted path, a class, or an optimizer over parameters of the model.
        optim_conf: keyword arguments of the class.
        model: wrapped or not.
        updated_modules: see `own`.
        exclude: see `own`.
        param_groups: rules; see `read_rules`.

    Raises:
        ConfigError: a setting is wrong, or has nothing to set because the optimizer was handed in.
        ParameterError: a selection matches nothing, or the optimizer holds what is not the model's.
    """
    told = {"updated_modules": updated_modules, "param_groups": param_groups or [], "exclude": exclude}
    if isinstance(optim_type, Optimizer):
        return _taken(optim_type, model, {"optim_conf": optim_conf, **told})
    if not isinstance(optim_conf, Mapping):
        raise ConfigError(f"optim_conf must be a mapping like {{'lr': 1e-3}}, got {optim_conf!r:.80}")
    found = find_optimizer(optim_type)
    base_lr = peak_lr(found, optim_conf)
    rules = read_rules(param_groups, group_keys(found) if param_groups else ())
    owned = own(model, updated_modules, exclude, rules, 1.0 if base_lr is None else base_lr)
    optimizer = build_optimizer(found, optim_conf, owned)
    return Chosen(
        optimizer=optimizer,
        owned=_in_its_order(owned, model, optimizer),
        base_lr=None if _sets_own_lr(optimizer) else base_lr,
        handed_in=False,
        config={"optim_type": path_of(found), "optim_conf": optim_conf, **told},
    )


def _in_its_order(owned: OwnedParameters, model: nn.Module, optimizer: Optimizer) -> OwnedParameters:
    """The same parameters, in the order in which the optimizer has them: some sort theirs."""
    ordered = [
        list(map(id, group.parameters.values())) == list(map(id, held["params"]))
        for group, held in zip(owned.groups, optimizer.param_groups, strict=True)
    ]
    return owned if all(ordered) else own_again(owned, model, optimizer)


def _sets_own_lr(optimizer: Optimizer) -> bool:
    """Whether it sets the step size of all groups.

    Raises:
        ConfigError: of some groups only.
    """
    own_lr = list(map(sets_own_lr, optimizer.param_groups))
    if any(own_lr) and not all(own_lr):
        raise ConfigError(
            f"param_groups: {type(optimizer).__name__} sets its own step size in group "
            f"{own_lr.index(True)} and is given an lr for group {own_lr.index(False)}; give all groups one, "
            "or none"
        )
    return all(own_lr)


def _taken(optimizer: Optimizer, model: nn.Module, told: Mapping[str, object]) -> Chosen:
    """The optimizer that was handed in, beside which nothing may be told that it says itself."""
    for key, value in told.items():
        if value:
            raise ConfigError(
                f"{key}: {value!r:.80} has nothing to set, because the optimizer was handed in with its "
                f"parameters, groups and settings. Build it otherwise, or give its class: "
                f"OptimScheduler({type(optimizer).__name__}, {{'lr': 1e-3}}, model, ...)"
            )
    check_drivable(type(optimizer))
    owned = _held(optimizer, model)
    return Chosen(
        optimizer=optimizer,
        owned=owned,
        base_lr=_base_lr(optimizer),
        handed_in=True,
        config=_described(optimizer, owned, model),
    )


def _held(optimizer: Optimizer, model: nn.Module) -> OwnedParameters:
    """What the optimizer holds, under the model's names."""
    names, groups = first_names(model), optimizer.param_groups
    if strange := list(_strangers(groups, names)):
        more = f" and {len(strange) - _LISTED} more" if len(strange) > _LISTED else ""
        raise ParameterError(
            f"the optimizer holds {len(strange)} parameters that are not the model's: "
            f"{', '.join(strange[:_LISTED])}{more}. Build it over this model's parameters, after whatever "
            "replaces them (fully_shard, load_state_dict(assign=True)), and hand it in once"
        )
    held = tuple(
        ParameterGroup(
            label=str(group.get("name", "all" if len(groups) == 1 else f"group {i}")),
            parameters={names[id(p)]: p for p in group["params"]},
            settings={},
        )
        for i, group in enumerate(groups)
    )
    by_name = {name: p for group in held for name, p in group.parameters.items()}
    if not any(p.requires_grad for p in by_name.values()):
        raise ParameterError(
            f"the optimizer has no trainable parameter: it holds {len(by_name)}, none with requires_grad=True"
        )
    whole_model = {id(p) for p in by_name.values()} == set(names)
    others = frozenset(names.values()).difference(by_name)
    return OwnedParameters(selection=tuple(by_name), groups=held, whole_model=whole_model, others=others)


def _strangers(groups: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> Iterator[str]:
    for i, group in enumerate(groups):
        own_names = group.get("param_names", [f"number {j}" for j in range(len(group["params"]))])
        for name, parameter in zip(own_names, group["params"], strict=False):
            if id(parameter) not in names:
                yield f"{name} of group {i}, of shape {tuple(parameter.shape)}"


def _base_lr(optimizer: Optimizer) -> float | None:
    """That of the optimizer's defaults; where they have none, that of its first group; None for its own."""
    for i, group in enumerate(optimizer.param_groups):
        if "lr" not in group:
            raise ConfigError(f"optimizer: group {i} of {type(optimizer).__name__} has no lr to drive")
    if _sets_own_lr(optimizer):
        return None
    lr = optimizer.defaults.get("lr")
    lr = lr.item() if isinstance(lr, Tensor) and lr.numel() == 1 else lr
    if isinstance(lr, int | float) and not isinstance(lr, bool) and lr > 0:
        return number("optimizer: defaults['lr']", lr)
    first = _first_lr(optimizer.param_groups[0])
    if first == 0:
        raise ConfigError(
            "optimizer: it was built with lr=0; build it with the peak learning rate, which is > 0"
        )
    return number("optimizer: lr of group 0, as its defaults have none,", first, above=0)


def _first_lr(group: Mapping[str, Any]) -> float:
    """What a group began with, before a scheduler of torch's moved it."""
    return float(group.get("initial_lr", group["lr"]))


def _described(optimizer: Optimizer, owned: OwnedParameters, model: nn.Module) -> dict[str, Any]:
    """How a configuration would say it: by names, and by settings that are not the class's own defaults."""
    signature, base_lr = inspect.signature(type(optimizer)).parameters, _base_lr(optimizer)
    keys = [key for key in group_keys(type(optimizer)) if key in signature]
    defaults = {k: v for k, v in optimizer.defaults.items() if k in keys}
    conf = {
        k: v
        for k, v in defaults.items()
        if signature[k].default is signature[k].empty or v != signature[k].default
    }
    rules = []
    for described, group in zip(owned.groups, optimizer.param_groups, strict=True):
        now = {k: _first_lr(group) if k == "lr" and group[k] else group[k] for k in defaults if k in group}
        if own_settings := {k: v for k, v in now.items() if v != defaults[k]}:
            rules.append({"name": list(described.parameters), **own_settings})
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    whole = trainable <= {id(p) for p in owned.by_name.values()}
    return {
        "optim_type": path_of(type(optimizer)),
        "optim_conf": {**conf, "lr": base_lr} if base_lr is not None else conf,
        "updated_modules": None if whole else sorted(owned.by_name),
        "param_groups": rules,
        "exclude": [],
    }

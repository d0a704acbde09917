"""Which parameters an OptimScheduler owns, under which names, in which groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from optimscheduler.checks import number
from optimscheduler.errors import ConfigError, ParameterError, nearest

__all__ = ["GroupRule", "OwnedParameters", "ParameterGroup", "canonical", "own", "select"]

_WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "<=": int.__le__,
    ">=": int.__ge__,
    "==": int.__eq__,
    "<": int.__lt__,
    ">": int.__gt__,
}


def canonical(name: str) -> str:
    """A parameter's name without what DDP, compile and checkpoint wrappers put into it.

    >>> canonical("module._orig_mod.encoder.weight")
    'encoder.weight'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters that share their settings.

    Attributes:
        label: the rule they were chosen by, for people.
        parameters: canonical name -> parameter.
        settings: what differs from `optim_conf`, for example `{"weight_decay": 0}`.
    """

    label: str
    parameters: dict[str, nn.Parameter]
    settings: dict[str, Any]  # Any: values of torch's optimizers have many types


@dataclass(frozen=True, kw_only=True)
class OwnedParameters:
    """The parameters of one OptimScheduler.

    Attributes:
        groups: the groups, in the optimizer's order; the one without a rule first.
        whole_model: whether the model has no other parameter.
    """

    groups: tuple[ParameterGroup, ...]
    whole_model: bool

    @cached_property
    def by_name(self) -> dict[str, nn.Parameter]:
        """Canonical name -> parameter, in the optimizer's order."""
        return {name: p for group in self.groups for name, p in group.parameters.items()}


def _pattern(text: str) -> re.Pattern[str]:
    """A module's or parameter's name; `*` is anything, `#` a number, and a module stands for all in it."""
    body = re.escape(text).replace(r"\*", ".*").replace(r"\#", r"(\d+)")
    return re.compile(rf"{body}(\..*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRule:
    """One rule of `param_groups`: which parameters, and what is different for them.

    Args:
        name: a module's or parameter's name or pattern (`*` anything, `#` a number), or several.
        ndim: number of dimensions: `1`, `"<2"`, `">=2"`.
        layer_decay: the factor of the learning rate from layer to layer, in (0, 1]; `name` must then
            hold one `#`, the layer's number. Layer i of n gets `lr * layer_decay ** (n - 1 - i)`.
        settings: keyword arguments of the optimizer, for these parameters.

    Raises:
        ConfigError: an argument is malformed.
    """

    name: tuple[str, ...] = ()
    ndim: str = ""
    layer_decay: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)  # Any: see ParameterGroup

    def __post_init__(self) -> None:
        names = (self.name,) if isinstance(self.name, str) else tuple(self.name)
        if not all(isinstance(n, str) and n for n in names):
            raise ConfigError(
                f"param_groups: name must be a pattern or a list of patterns, got {self.name!r}"
            )
        object.__setattr__(self, "name", names)
        if isinstance(self.ndim, int) and not isinstance(self.ndim, bool):
            object.__setattr__(self, "ndim", f"=={self.ndim}")
        if not isinstance(self.ndim, str) or (
            self.ndim and not re.fullmatch(r"(<=|>=|==|<|>)\s*\d+", self.ndim)
        ):
            raise ConfigError(f"param_groups: ndim must be like 1, '<2' or '>=2', got {self.ndim!r}")
        if self.layer_decay is not None:
            number("param_groups: layer_decay", self.layer_decay, above=0, most=1)
            if len(names) != 1 or names[0].count("#") != 1:
                raise ConfigError(
                    "param_groups: layer_decay needs a name with one '#' for the layer's number"
                )
        if not names and not self.ndim:
            raise ConfigError("param_groups: a rule needs a 'name' or an 'ndim'")

    @classmethod
    def read(cls, rule: object, allowed: Iterable[str]) -> GroupRule:
        """A rule from a configuration; keys that are no selector are settings of the optimizer."""
        if not isinstance(rule, Mapping):
            raise ConfigError(
                f"param_groups: a rule is a mapping like {{ndim: '<2', weight_decay: 0}}, got {rule!r}"
            )
        selectors = {"name", "ndim", "layer_decay"}
        for key in rule:
            if key not in selectors and key not in allowed:
                raise ConfigError(
                    f"param_groups: unknown key {key!r}. {nearest(key, [*selectors, *allowed])}"
                )
        settings = {key: value for key, value in rule.items() if key not in selectors}
        if "lr" in settings:
            number("param_groups: lr", settings["lr"], least=0)
        return cls(settings=settings, **{key: rule[key] for key in selectors if key in rule})

    @property
    def label(self) -> str:
        """The rule in short."""
        told = [*self.name, *([f"ndim {self.ndim}"] if self.ndim else [])]
        return " ".join(told)

    def layer_of(self, name: str, ndim: int) -> int | None:
        """The number at `#` (0 where the rule has none) if the rule fits, otherwise None."""
        if self.ndim:
            sign = self.ndim.rstrip("0123456789 ")
            if not _COMPARISONS[sign](ndim, int(self.ndim[len(sign) :])):
                return None
        for text in self.name or ("*",):
            if found := _pattern(text).fullmatch(name):
                return int(found[1]) if text.count("#") == 1 else 0
        return None


def select(
    model: nn.Module, updated_modules: Sequence[str] | None, exclude: Sequence[str]
) -> dict[str, nn.Parameter]:
    """The parameters of the named modules, less the excluded ones.

    Args:
        model: wrapped or not.
        updated_modules: names or patterns; None is the whole model.
        exclude: names or patterns of what is taken out again.

    Returns:
        Canonical name -> parameter, in the model's order; a tied parameter once, under its first name.

    Raises:
        ParameterError: a name matches nothing, or nothing trainable is left.
    """
    names: dict[int, list[str]] = {}
    parameters: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(canonical(name))
        parameters[id(parameter)] = parameter
    chosen = set(names) if updated_modules is None else _matching("updated_modules", updated_modules, names)
    chosen -= _matching("exclude", exclude, names)
    owned = {names[key][0]: parameters[key] for key in names if key in chosen}
    if not any(parameter.requires_grad for parameter in owned.values()):
        what = "the model" if updated_modules is None else f"updated_modules={list(updated_modules)}"
        raise ParameterError(
            f"{what} has no trainable parameter: {len(owned)} selected, none with requires_grad=True"
        )
    return owned


def _matching(what: str, patterns: Sequence[str], names: Mapping[int, list[str]]) -> set[int]:
    chosen: set[int] = set()
    for text in patterns:
        pattern = _pattern(text)
        found = {key for key, aliases in names.items() if any(map(pattern.fullmatch, aliases))}
        if not found:
            known = {
                name.rsplit(".", depth)[0] for a in names.values() for name in a for depth in range(1, 9)
            }
            raise ParameterError(f"{what}: {text!r} matches no parameter. {nearest(text, known)}")
        chosen |= found
    return chosen


def own(
    model: nn.Module,
    updated_modules: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
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
    return OwnedParameters(groups=tuple(groups), whole_model=whole_model)


def _groups_of(
    rule: GroupRule,
    matched: Mapping[str, tuple[int, nn.Parameter]],
    selected: Mapping[str, nn.Parameter],
    base_lr: float,
) -> list[ParameterGroup]:
    if rule.layer_decay is None:
        parameters = {name: parameter for name, (_, parameter) in matched.items()}
        return [ParameterGroup(label=rule.label, parameters=parameters, settings=rule.settings)]
    pattern = _pattern(rule.name[0])
    top = max(int(found[1]) for name in selected if (found := pattern.fullmatch(name)))
    lr = rule.settings.get("lr", base_lr)
    return [
        ParameterGroup(
            label=rule.label.replace("#", str(layer)),
            parameters={name: parameter for name, (at, parameter) in matched.items() if at == layer},
            settings={**rule.settings, "lr": lr * rule.layer_decay ** (top - layer)},
        )
        for layer in sorted({layer for layer, _ in matched.values()})
    ]

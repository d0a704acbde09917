"""The rules of `param_groups`: which parameters, and what is different for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from optimscheduler.checks import number
from optimscheduler.errors import ConfigError, nearest
from optimscheduler.parameters.selection import check_ndim, fits_ndim, pattern, read_ndim

__all__ = ["GroupRule", "pattern", "read_rules"]

_SELECTORS: Final = ("name", "ndim", "layer_decay", "schedule", "schedules")
_EXAMPLE: Final = "{ndim: '<2', weight_decay: 0}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRule:
    """One rule of `param_groups`.

    Args:
        name: modules' or parameters' names or patterns: `*` is anything, `#` a number.
        ndim: number of dimensions: `"==1"`, `"<2"`, `">=2"`; empty for any.
        layer_decay: the factor of the learning rate from layer to layer, in (0, 1]; `name` must then
            hold one `#`, the layer's number. Layer i of n gets `lr * layer_decay ** (n - 1 - i)`.
        settings: keyword arguments of the optimizer, for these parameters.
        schedules: number of the group -> schedule, as written; `schedule` in a rule is that of `lr`.

    Raises:
        ConfigError: an argument is malformed.
    """

    name: tuple[str, ...] = ()
    ndim: str = ""
    layer_decay: float | None = None
    settings: dict[str, Any] = field(
        default_factory=dict
    )  # Any: values of torch's optimizers have many types
    schedules: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) and name for name in self.name):
            raise ConfigError(
                f"param_groups: name must be a pattern or a list of patterns, got {self.name!r:.80}"
            )
        if self.ndim:
            check_ndim("param_groups", self.ndim)
        if not self.name and not self.ndim:
            raise ConfigError("param_groups: a rule needs a 'name' or an 'ndim'")
        if self.layer_decay is not None:
            number("param_groups: layer_decay", self.layer_decay, above=0, most=1)
            if len(self.name) != 1 or self.name[0].count("#") != 1:
                raise ConfigError(
                    "param_groups: layer_decay needs a name with one '#' for the layer's number"
                )

    @property
    def label(self) -> str:
        """The rule in short."""
        return " ".join([*self.name, *([f"ndim {self.ndim}"] if self.ndim else [])])

    def layer_of(self, name: str, ndim: int) -> int | None:
        """The number at `#` (0 where the rule has none) if the rule fits, otherwise None."""
        if self.ndim and not fits_ndim(self.ndim, ndim):
            return None
        for text in self.name or ("*",):
            if found := pattern(text).fullmatch(name):
                return int(found[1]) if text.count("#") == 1 else 0
        return None


def read_rules(rules: object, allowed: Iterable[str]) -> list[GroupRule]:
    """The rules that a configuration holds.

    Args:
        rules: a list of mappings, or None.
        allowed: the settings that the optimizer's groups take.

    Raises:
        ConfigError: it holds something else; with the nearest key.
    """
    if rules is None:
        return []
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise ConfigError(f"param_groups must be a list of rules like {_EXAMPLE}, got {rules!r:.80}")
    return [_read(rule, list(allowed)) for rule in rules]


def _read(rule: object, allowed: Sequence[str]) -> GroupRule:
    if not isinstance(rule, Mapping):
        raise ConfigError(f"param_groups: a rule is a mapping like {_EXAMPLE}, got {rule!r:.80}")
    for key in rule:
        if key not in _SELECTORS and key not in allowed:
            raise ConfigError(
                f"param_groups: unknown key {key!r:.80}. {nearest(key, [*_SELECTORS, *allowed])}"
            )
    name, ndim = rule.get("name", ()), read_ndim(rule.get("ndim", ""))
    settings = {key: value for key, value in rule.items() if key not in _SELECTORS}
    schedules = {} if rule.get("schedules") is None else rule["schedules"]
    if not isinstance(schedules, Mapping):
        raise ConfigError(
            f"param_groups: schedules must be a mapping like {{weight_decay: 'Linear(steps=100)'}}, got "
            f"{schedules!r:.80}"
        )
    if rule.get("schedule") is not None:
        if "lr" in schedules:
            raise ConfigError(
                "param_groups: the schedule of lr is given twice, as 'schedule' and in 'schedules'"
            )
        schedules = {**schedules, "lr": rule["schedule"]}
    if "lr" in settings:
        number("param_groups: lr", settings["lr"], least=0)
    return GroupRule(
        name=tuple(name) if isinstance(name, list | tuple) else (name,),
        ndim=ndim,
        layer_decay=rule.get("layer_decay"),
        settings=settings,
        schedules=dict(schedules),
    )

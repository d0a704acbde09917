"""Say where a key belongs that stands at another level of the configuration."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from torch.optim import SGD, Adam

from optimscheduler.api.optim_scheduler import OptimScheduler
from optimscheduler.build import TYPES
from optimscheduler.errors import usual

__all__ = ["Section", "place_of", "section_in", "with_place"]

Section = type[BaseModel]

_UNKNOWN: Final = re.compile(r"(?:takes no|unknown key) '(\w+)'\. ")  # as lookup, hooks and build say it
_EVERYWHERE: Final = ("type", "conf")  # which no place has to itself
_GIVEN: Final = ("self", "model", "params", "sche_conf")  # by the program


def place_of(key: str, schema: Section, values: Mapping[str, Any], *, beyond: bool = True) -> str:
    """A sentence that says where to write a key; empty where it is known at no level.

    Args:
        key: as it was written; other libraries' names count as ours.
        schema: of the whole configuration.
        values: the whole configuration. Any: as it stands in the YAML.
        beyond: look at the arguments of the ready-made subclasses and of the optimizers too, which not every
            class takes.
    """
    ours, conf = usual(key), _conf_of(values)
    homes = dict(_sections_of(schema))
    for place, names in ((conf, _taken([OptimScheduler.__init__])), *(_beyond(conf) if beyond else ())):
        homes = {**dict.fromkeys(names, place), **homes}
    if ours not in homes or ours in _EVERYWHERE:
        return ""
    return f"Write {ours} {f'in {homes[ours]}' if homes[ours] else 'at the top, beside train_cfg'}."


def with_place(message: str, schema: Section, values: Mapping[str, Any]) -> str:
    """A message about a key that some class does not take, with its place where that is another level.

    Args:
        message: of an error.
        schema: as in `place_of`.
        values: as in `place_of`.
    """
    found = _UNKNOWN.search(message)
    if found is None or f"Did you mean {usual(found[1])!r}" in message:
        return message
    place = place_of(found[1], schema, values, beyond=False)
    return message[: found.end()] + place if place else message


def section_in(field: FieldInfo) -> Section | None:
    """The section that a field holds, if it holds one."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _sections_of(section: Section, place: str = "") -> Iterator[tuple[str, str]]:
    """Every key of the schema and the section that it stands in; the outer ones come last, and win."""
    for name, field in section.model_fields.items():
        if inner := section_in(field):
            yield from _sections_of(inner, f"{place}.{name}".strip("."))
    yield from ((name, place) for name in section.model_fields)


def _conf_of(values: Mapping[str, Any]) -> str:
    """Where the arguments of an OptimScheduler stand."""
    train_cfg = values.get("train_cfg")
    optim_sches = train_cfg.get("optim_sches") if isinstance(train_cfg, Mapping) else None
    several = isinstance(optim_sches, Mapping) and optim_sches and not {"type", "conf"} & set(optim_sches)
    return f"train_cfg.optim_sches.{'NAME.' if several else ''}conf"


def _beyond(conf: str) -> Iterator[tuple[str, list[str]]]:
    yield conf, _taken(cls.sche_init for cls in TYPES.values() if cls is not OptimScheduler)
    yield f"{conf}.optim_conf", _taken([Adam, SGD])


def _taken(targets: Iterable[Any]) -> list[str]:  # Any: what can be called
    return [name for each in targets for name in inspect.signature(each).parameters if name not in _GIVEN]

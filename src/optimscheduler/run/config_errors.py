"""Say what is wrong with a configuration: dotted place, what was given, what is allowed, nearest key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from optimscheduler.errors import nearest

__all__ = ["told"]

_LONGEST: Final = 80  # characters of a key

Values = Mapping[str, Any]  # Any: whatever stands in the YAML
Section = type[BaseModel]


def told(error: ValidationError, schema: Section, values: Values) -> list[str]:
    """A line for every mistake; several findings about one place are one mistake.

    Args:
        error: what pydantic found.
        schema: what was to be built; the description of a field says what is allowed there.
        values: what it was to be built from.
    """
    lines: dict[str, str] = {}
    for finding in error.errors(include_url=False, include_context=False, include_input=False):
        place, line = _mistake(list(map(str, finding["loc"])), schema, values)
        lines.setdefault(place, line)
    return list(lines.values())


def _mistake(path: list[str], schema: Section, values: Values) -> tuple[str, str]:
    """The place that a finding is about, and a line on it.

    Args:
        path: pydantic's; what it appends below a field (a branch of a union, a key of a `conf`) is no place.
        schema: as in `told`.
        values: as in `told`.
    """
    place, section, given = [], schema, values
    for depth, name in enumerate(path):
        place.append(_written(name))
        if name not in section.model_fields:
            return ".".join(place), _unknown(".".join(place), name, section, schema)
        field = section.model_fields[name]
        if name not in given:
            return ".".join(place), f"{'.'.join(place)} is missing; give {field.description}"
        inner, given = _section_in(field), given[name]
        if inner is None or not isinstance(given, Mapping) or depth == len(path) - 1:
            break
        section = inner
    return ".".join(place), f"{'.'.join(place)} must be {field.description}, got {given!r:.80}"


def _written(key: str) -> str:
    """A key as a part of a place: quoted where it would not be seen, and cut if it is long."""
    return key if key.isprintable() and key.strip() and len(key) <= _LONGEST else f"{key!r:.{_LONGEST}}"


def _unknown(place: str, key: str, section: Section, schema: Section) -> str:
    homes = [home for home in _places(schema) if home.rpartition(".")[2] == key]
    hint = f"Did you mean {homes[0]}?" if homes else nearest(key, section.model_fields)
    return f"{place}: unknown key. {hint}"


def _places(section: Section, prefix: str = "") -> Iterator[str]:
    """Every dotted place of the schema."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if inner := _section_in(field):
            yield from _places(inner, f"{prefix}{name}.")


def _section_in(field: FieldInfo) -> Section | None:
    """The section that a field holds, if it holds one."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)

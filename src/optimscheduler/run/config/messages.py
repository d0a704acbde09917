"""Say what is wrong with a configuration: dotted place, what was given, what is allowed, nearest key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from optimscheduler.checks import shown
from optimscheduler.errors import nearest, usual
from optimscheduler.run.config.places import Section, place_of, section_in

__all__ = ["told"]

_LONGEST: Final = 80  # characters of a key

Hyperparameters = Mapping[str, Any]  # Any: whatever stands in the YAML


def told(error: ValidationError, schema: Section, values: Hyperparameters) -> list[str]:
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


def _mistake(path: list[str], schema: Section, values: Hyperparameters) -> tuple[str, str]:
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
            return ".".join(place), _unknown(".".join(place), name, section, schema, values)
        field = section.model_fields[name]
        if name not in given:
            return ".".join(place), f"{'.'.join(place)} is missing; give {field.description}"
        inner, given = section_in(field), given[name]
        if inner is None or not isinstance(given, Mapping) or depth == len(path) - 1:
            break
        section = inner
    got = shown(given) if "number" in str(field.description) else f"{given!r:.80}"
    return ".".join(place), f"{'.'.join(place)} must be {field.description}, got {got}"


def _written(key: str) -> str:
    """A key as a part of a place: quoted where it would not be seen, and cut if it is long."""
    return key if key.isprintable() and key.strip() and len(key) <= _LONGEST else f"{key!r:.{_LONGEST}}"


def _unknown(place: str, key: str, section: Section, schema: Section, values: Hyperparameters) -> str:
    """What to say of a key that the section does not know; some are known elsewhere."""
    elsewhere = "" if usual(key) in section.model_fields else place_of(key, schema, values)
    return f"{place}: unknown key. {elsewhere or nearest(key, section.model_fields)}"

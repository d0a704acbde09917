"""Read YAML as a person means it: `3e-4` is a number, a key written twice is a mistake, a tag is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from optimscheduler.errors import ConfigError

__all__ = ["dump", "override", "parse", "read"]

Tree = dict[str, Any]  # Any: a tree of plain values

_LARGEST: Final = 1_000_000  # bytes
_NUMBER = re.compile(
    r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)|[-+]?\d[\d_]*\.[\d_]*|[-+]?\.\d[\d_]*|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the numbers of YAML 1.2 and without duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if key in seen:
                raise ConfigError(f"line {line}: the key {key!r} stands here and in line {seen[key]}")
            seen[key] = line
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_NUMBER.pattern})$"), list("-+0123456789.")
)


def parse(text: str, source: str) -> Any:  # Any: a tree of plain values
    """The plain value that a YAML text holds.

    Args:
        text: the text, at most 1 MB.
        source: where it comes from, for messages.

    Raises:
        ConfigError: it is no YAML, has a key twice or a tag; the message has the line.
    """
    if len(text) > _LARGEST:
        raise ConfigError(f"{source} has {len(text)} characters; a configuration has at most {_LARGEST}")
    try:
        return yaml.load(text, _Loader)  # a subclass of the safe loader
    except ConfigError as error:
        raise ConfigError(f"{source}, {error}") from None
    except yaml.constructor.ConstructorError as error:
        raise ConfigError(f"{source}{_line(error)}: {error.problem}") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(
            f"{source}{_line(error)}: this is no YAML: {error.problem or error.context}"
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{source}: this is no YAML: {error}") from None


def read(path: Path) -> Tree:
    """The mapping that a configuration file holds.

    Raises:
        ConfigError: the file is missing, unreadable, no YAML, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no file {str(path)!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    tree = parse(text, str(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping like 'num_epochs: 3', it holds {tree!r:.60}")
    return tree


def override(tree: Tree, assignments: Sequence[str]) -> None:
    """Carry out `a.b.c=value` in a tree; missing mappings on the way are made, for the schema to judge.

    Args:
        tree: changed in place.
        assignments: the value is YAML; a number in the path is a place in a list.

    Raises:
        ConfigError: an assignment has another form, or leads through something that is no mapping or list.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(
                f"{assignment!r} is no setting; write it as a.b.c=value, for example num_epochs=3"
            )
        place: Any = tree  # Any: a mapping or a list, whatever the path leads to
        for key in keys[:-1]:
            place = _inside(place, key, assignment)
        _put(place, keys[-1], parse(text, f"{path}="), assignment)


def _inside(place: Any, key: str, assignment: str) -> Any:
    if isinstance(place, dict):
        if place.get(key) is None:
            place[key] = {}
        return place[key]
    return place[_index(place, key, assignment)]


def _put(place: Any, key: str, value: object, assignment: str) -> None:
    if isinstance(place, dict):
        place[key] = value
    else:
        place[_index(place, key, assignment)] = value


def _index(place: object, key: str, assignment: str) -> int:
    if not isinstance(place, list):
        raise ConfigError(f"{assignment!r}: {place!r:.40} has nothing inside that could be called {key!r}")
    if not key.isdecimal() or int(key) >= len(place):
        raise ConfigError(f"{assignment!r}: {key!r} is no place in a list of {len(place)}")
    return int(key)


def dump(tree: Tree) -> str:
    """The YAML text of a tree, keys in their order."""
    text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return text


def _line(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f", line {mark.line + 1}" if mark else ""

"""Read a configuration as YAML 1.2, strictly, and write one that reads back as the same.

What is stricter than PyYAML: duplicate keys, unknown tags and the words yes/no/on/off (which YAML 1.1 and
1.2 read differently) are errors with their line; the size of a file is bounded, aliases written out.

>>> read_text("{lr: 1e-4, betas: [0.9, 0.98]}", "here")
{'lr': 0.0001, 'betas': [0.9, 0.98]}
>>> read_text("{lr: 1, lr: 2}", "here")
Traceback (most recent call last):
optimscheduler.errors.ConfigError: here line 1: duplicate key 'lr', first given in line 1
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from optimscheduler.errors import ConfigError

__all__ = ["read_file", "read_text", "write_text"]

_LARGEST_FILE: Final = 1_000_000  # bytes
_MOST_VALUES: Final = 100_000  # with every alias written out
_DEEPEST: Final = (
    100  # values inside each other, with every alias written out; far below what exhausts Python's stack
)
_LONGEST_NUMBER: Final = 1_000  # characters; Python's own limit gives no line
_YAML: Final = "tag:yaml.org,2002:"
_MERGE: Final = _YAML + "merge"
_AMBIGUOUS: Final = "!ambiguous"
_TOO_DEEP: Final = f"nested too deep to be read; at most {_DEEPEST} mappings and lists inside each other"
_HALF: Final = re.compile("[\\ud800-\\udfff]")  # of a pair; no file can hold it

_WORDS: Final[list[tuple[str, str, str]]] = [
    (_MERGE, r"<<", "<"),
    (_YAML + "null", r"~|null|Null|NULL|", "~nN"),
    (_YAML + "bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (_YAML + "int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        _YAML + "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    (_AMBIGUOUS, r"(?i:yes|no|on|off)", "yYnNoO"),
]
"""Tag, whole text, first characters: the core schema of YAML 1.2, and what is refused as ambiguous."""

_PATTERNS: Final = {tag: re.compile(rf"^(?:{text})$") for tag, text, _ in _WORDS}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's way; filled below
    yaml_constructors: ClassVar[dict[Any, Any]] = {  # no dates, sets, bytes
        _YAML + kind: yaml.SafeLoader.yaml_constructors[_YAML + kind]
        for kind in ("null", "bool", "str", "seq", "map")
    }

    def number(self, node: ScalarNode) -> int | float:
        if len(node.value) > _LONGEST_NUMBER:
            raise yaml.MarkedYAMLError(problem="this number is too long", problem_mark=node.start_mark)
        if node.tag.endswith("int"):
            return int(node.value, 0 if node.value.startswith(("0o", "0x")) else 10)
        return float(re.sub(r"\.(inf|nan)", r"\1", node.value.lower()))

    def refuse(self, node: Node) -> None:
        problem = (
            f"{node.value!r:.80} is a truth value to some YAML readers and text to others; "
            "write true or false, or put quotes around it"
            if node.tag == _AMBIGUOUS
            else f"the tag {node.tag!r:.80} is not known here; write plain values, and classes as "
            "{type, conf}"
        )
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would not read as text, and writes no aliases."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # as above

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  # PyYAML's signature
        return True


for _tag, _, _first in _WORDS:
    _characters = [*_first, *([""] if _tag == _YAML + "null" else [])]  # "" stands for the empty text
    _Loader.add_implicit_resolver(_tag, _PATTERNS[_tag], _characters)
    _Dumper.add_implicit_resolver(_tag, _PATTERNS[_tag], _characters)
for _tag in ("int", "float"):
    _Loader.add_constructor(_YAML + _tag, _Loader.number)
_Loader.add_constructor(_AMBIGUOUS, _Loader.refuse)
_Loader.add_constructor(None, _Loader.refuse)


def read_file(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        path: the file, UTF-8, at most 1 MB.

    Raises:
        ConfigError: it cannot be read, is no YAML, or is no mapping; with the line where there is one.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > _LARGEST_FILE:
        raise ConfigError(f"{path}: larger than {_LARGEST_FILE:,} bytes; this is no configuration")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path} line {at}: not UTF-8 text") from None
    found = read_text(text, str(path))
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: a configuration is a mapping (key: value), got {found!r:.80}")
    return found


def read_text(text: str, source: str) -> Any:  # Any: whatever the text holds
    """The value that a YAML text holds.

    Args:
        text: one YAML document.
        source: where it is from, for messages.

    Raises:
        ConfigError: it cannot be read; with the line.
    """
    try:
        loader = _Loader(text)
        node = _root(loader)
        return None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        told = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{source}{line}: {told}") from None
    except yaml.reader.ReaderError as error:
        at = text[: error.position].count("\n") + 1
        raise ConfigError(f"{source} line {at}: a character that YAML does not allow") from None


def write_text(value: object) -> str:
    """Plain values as YAML, in their order.

    >>> print(write_text({"lr": 1e-05, "text": "1e-05", "on": None}), end="")
    lr: 1.0e-05
    text: '1e-05'
    'on': null
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _root(loader: _Loader) -> Node | None:
    """What the whole text is, parsed and checked."""
    root: Node | None = None
    try:
        root = _parsed(loader)
        if root is not None:
            _check(root, {})
    except RecursionError:
        mark = loader.get_mark() if root is None else root.start_mark
        raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=mark) from None
    return root


def _parsed(loader: _Loader) -> Node | None:
    try:
        node: Node | None = loader.get_single_node()
    except (ValueError, OverflowError):  # of Python's chr
        problem = "an escape that is the code of no character"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=loader.get_mark()) from None
    return node


def _check(node: Node, measured: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Refuse duplicate keys, tags that do not fit, too deep nesting, and aliases that grow without bound.

    Args:
        node: what was parsed.
        measured: what was returned already; zeros for what is being measured.

    Returns:
        How many values there are with every alias written out, and how many levels of them.
    """
    if id(node) in measured:
        if not any(measured[id(node)]):
            raise yaml.MarkedYAMLError(problem="an alias inside what it names", problem_mark=node.start_mark)
        return measured[id(node)]
    measured[id(node)] = 0, 0
    if node.tag in _PATTERNS and not (isinstance(node, ScalarNode) and _PATTERNS[node.tag].match(node.value)):
        problem = f"this is no {node.tag.removeprefix(_YAML)}"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    if isinstance(node, ScalarNode) and _HALF.search(node.value):
        raise yaml.MarkedYAMLError(problem="half a character, which is no text", problem_mark=node.start_mark)
    size, levels = 1, 1
    for part in _parts(node):
        part_size, part_levels = _check(part, measured)
        size, levels = size + part_size, max(levels, part_levels + 1)
    if size > _MOST_VALUES:
        problem = f"more than {_MOST_VALUES:,} values; this is no configuration"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    if levels > _DEEPEST:
        raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=node.start_mark)
    measured[id(node)] = size, levels
    return size, levels


def _parts(node: Node) -> list[Node]:
    """What is in it: keys and values, or the parts of a list."""
    if isinstance(node, MappingNode):
        _check_keys(node)
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _check_keys(node: MappingNode) -> None:
    first: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key must be a single word", problem_mark=key.start_mark)
        if (key.tag, key.value) in first:
            line = first[key.tag, key.value]
            raise yaml.MarkedYAMLError(
                problem=f"duplicate key {key.value!r:.80}, first given in line {line}",
                problem_mark=key.start_mark,
            )
        first[key.tag, key.value] = key.start_mark.line + 1

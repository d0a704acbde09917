"""Read a schedule from a configuration: what its `repr` prints, or nested `{type, conf}` mappings.

The text form is a small part of Python's syntax, parsed and then walked, never evaluated:

    value    = number | "text" | True | False | None | [value, ...] | (value, ...) | schedule
    schedule = Name(value, ..., key=value, ...)

`Name` is one of `SCHEDULES`, or the dotted path of one's own subclass.

>>> read_schedule("Warmup(steps=100, then=Cosine(steps=900))", "schedule")(50)
0.5
>>> read_schedule({"type": "Warmup", "conf": {"steps": 100, "then": "Cosine(steps=900)"}}, "schedule")
Warmup(steps=100, then=Cosine(steps=900))
>>> read_schedule("Cosin(steps=900)", "optim_sches.conf.schedule")
Traceback (most recent call last):
optimscheduler.errors.ConfigError: optim_sches.conf.schedule: there is no Schedule or FeedbackSchedule \
'Cosin'. Did you mean 'Cosine'? Known: Cosine, Clamp, Constant, CoolDown, CosineRestarts, Custom, Cyclic, \
Exponential, InfiniteCosine, InverseSqrt, Linear, MultiStep, and 15 more.
"""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from optimscheduler.errors import ConfigError, nearest
from optimscheduler.lookup import class_at, construct
from optimscheduler.schedules import SCHEDULES, FeedbackSchedule, Schedule

__all__ = ["AnySchedule", "read_schedule"]

AnySchedule: TypeAlias = Schedule | FeedbackSchedule[Any]  # Any: a schedule's state is its own affair

_LONGEST: Final = 10_000  # characters
_DEEPEST: Final = 50  # schedules and lists inside each other; far below what exhausts Python's stack
_LARGEST_INTEGER: Final = 2**63 - 1
_CALL = re.compile(r"[\w.]+\(.*\)", re.DOTALL)
_EXAMPLE = "'Warmup(steps=100, then=Cosine(steps=900))'"
_ALLOWED = "A schedule is written with names, numbers, quoted text, lists, tuples and calls"
_UNPACKED: Final = "unpacked; write the arguments one by one"
_SPELT: Final = {"true": "True", "false": "False", "null": "None", "none": "None"}
_REFUSED: Final[Mapping[type[ast.AST], str]] = {
    ast.BinOp: "an operator; instead of a * b write Product(a, b), and work out numbers beforehand",
    ast.UnaryOp: "an operator",
    ast.BoolOp: "an operator",
    ast.Compare: "an operator",
    ast.IfExp: "a condition",
    ast.Attribute: "an attribute",
    ast.Subscript: "a subscript",
    ast.Lambda: 'a lambda; write Custom("package.module.function")',
    ast.JoinedStr: "an f-string",
    ast.Starred: _UNPACKED,
    ast.Dict: "a dict",
    ast.Set: "a set",
    ast.NamedExpr: "an assignment",
}


def read_schedule(value: object, where: str) -> AnySchedule:
    """Build the schedule that a configuration describes.

    Args:
        value: a schedule (returned as it is); its `repr` as text; or a mapping with `type` and, where there
            are arguments, `conf`. Inside a `conf`, lists included, each of the three ways can be used again.
        where: the place in the configuration, for messages: `"optim_sches.conf.schedule"`.

    Raises:
        ConfigError: it describes none; the message has the place, what is wrong there and the nearest name.

    >>> read_schedule("Sequence([(Linear(steps=10, start=0.1, end=1), 10)], Constant())", "schedule")
    Sequence([(Linear(steps=10, start=0.1, end=1.0), 10)], Constant())
    """
    found = _from_text(value, where) if isinstance(value, str) else _from_plain(value, where)
    if isinstance(found, Schedule | FeedbackSchedule):
        return found
    if isinstance(found, type) and issubclass(found, Schedule | FeedbackSchedule):
        raise ConfigError(f"{where}: this is the class alone; write {found.__name__}(), with its arguments")
    raise ConfigError(f"{where} must be a schedule, like {_EXAMPLE}, or {{type, conf}}, got {value!r:.80}")


def _from_plain(value: object, where: str, depth: int = 0) -> object:
    """What a plain value of a configuration stands for; everything but mappings and lists stays as it is."""
    if depth > _DEEPEST:
        raise ConfigError(f"{where}: nested more than {_DEEPEST} deep")
    if isinstance(value, Mapping):
        return _from_mapping(value, where, depth)
    if isinstance(value, list | tuple):
        return [_from_plain(part, f"{where}[{i}]", depth + 1) for i, part in enumerate(value)]
    if isinstance(value, str) and _CALL.fullmatch(value.strip()):
        return _from_text(value, where)
    return value


def _from_mapping(value: Mapping[Any, Any], where: str, depth: int) -> AnySchedule:
    """The schedule of a `{type, conf}` mapping. Any: whatever the configuration holds, checked here."""
    for key in value:
        if key not in ("type", "conf"):
            raise ConfigError(f"{where}: unknown key {key!r:.80}. {nearest(key, ['type', 'conf'])}")
    if "type" not in value:
        raise ConfigError(f"{where} needs a 'type', the name of a schedule. {nearest('', SCHEDULES)}")
    cls = _class(value["type"], f"{where}.type")
    conf = {} if value.get("conf") is None else value["conf"]
    if not isinstance(conf, Mapping) or not all(isinstance(key, str) for key in conf):
        raise ConfigError(f"{where}.conf must be a mapping of arguments, got {conf!r:.80}")
    read = {key: _from_plain(part, f"{where}.conf.{key}", depth + 1) for key, part in conf.items()}
    return _built(cls, read, f"{where}.conf")


def _from_text(text: str, where: str) -> object:
    """What the text says, as a value."""
    if len(text) > _LONGEST:
        raise ConfigError(f"{where}: {len(text)} characters are too many for a schedule (at most {_LONGEST})")
    text = text.strip()
    if not text:
        raise ConfigError(f"{where} is empty; write a schedule like {_EXAMPLE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python only warns of ("1or 2") is wrong here
            tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        at = f" at column {error.offset}" if error.offset and error.lineno == 1 else ""
        raise ConfigError(f"{where}: cannot be read{at}: {error.msg}. Written: {text!r:.80}") from None
    except (RecursionError, MemoryError):
        raise ConfigError(f"{where}: nested too deep to be read") from None
    except ValueError as error:  # null bytes, half characters
        raise ConfigError(f"{where}: cannot be read: {error}") from None
    return _Walk(text, where).value(tree.body)


@dataclass(frozen=True, slots=True)
class _Walk:
    """From the parts of a parsed text to values, one method for each kind of part.

    Args:
        text: what was parsed.
        where: its place in the configuration.
    """

    text: str
    where: str

    def value(self, node: ast.expr, depth: int = 0) -> object:
        if depth > _DEEPEST:
            raise ConfigError(f"{self.at(node)}: nested more than {_DEEPEST} deep")
        match node:
            case ast.Call():
                return self.call(node, depth)
            case ast.List(elts=parts):
                return [self.value(part, depth + 1) for part in parts]
            case ast.Tuple(elts=parts):
                return tuple([self.value(part, depth + 1) for part in parts])
            case ast.Constant():
                return self.constant(node)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as size)):
                if not isinstance(size, bool):
                    return -size
            case ast.Name():
                raise self.bare(node.id, node, depth)
            case ast.Attribute() if depth == 0 and (path := _dotted(node)):
                raise self.bare(path, node, depth)
        raise self.refused(node, _REFUSED.get(type(node), "no part of the grammar"))

    def constant(self, node: ast.Constant) -> object:
        if isinstance(node.value, int) and node.value > _LARGEST_INTEGER:
            raise ConfigError(f"{self.at(node)}: {self.written(node)} is too large (at most 2^63 - 1)")
        if node.value is not None and not isinstance(node.value, bool | int | float | str):
            raise self.refused(node, f"of type {type(node.value).__name__}")
        return node.value

    def call(self, node: ast.Call, depth: int) -> AnySchedule:
        path = _dotted(node.func)
        if path is None:
            raise self.refused(node.func, "not the name of a schedule")
        cls = _class(path, self.at(node))
        names = list(inspect.signature(cls).parameters.values())
        unnamed = [p.name for p in names if p.kind is p.POSITIONAL_OR_KEYWORD]
        if len(node.args) > len(unnamed):
            raise ConfigError(
                f"{self.at(node.args[len(unnamed)])}: {cls.__name__} takes {len(unnamed) or 'no'} arguments "
                f"without a name; write the name before it. {nearest('', [p.name for p in names])}"
            )
        conf = {name: self.value(part, depth + 1) for name, part in zip(unnamed, node.args, strict=False)}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.refused(keyword.value, _UNPACKED)
            if keyword.arg in conf:
                raise ConfigError(f"{self.at(keyword)}: {cls.__name__} is given {keyword.arg!r:.80} twice")
            conf[keyword.arg] = self.value(keyword.value, depth + 1)
        return _built(cls, conf, self.at(node))

    def bare(self, path: str, node: ast.expr, depth: int) -> ConfigError:
        """What to say of a name without brackets or quotes."""
        at = self.at(node)
        if path.lower() in _SPELT:
            return ConfigError(f"{at}: write {_SPELT[path.lower()]} instead of {path}")
        if depth == 0:
            _class(path, at)  # first things first: is there such a schedule?
        text = f', for text "{path}"' if depth else ", with its arguments"
        return ConfigError(f"{at}: {path} alone says too little; for a schedule write {path}(){text}")

    def refused(self, node: ast.expr, kind: str) -> ConfigError:
        return ConfigError(f"{self.at(node)}: {self.written(node)} is {kind}. {_ALLOWED}")

    def at(self, node: ast.expr | ast.keyword) -> str:
        """The place of a part, for messages."""
        line = f", line {node.lineno}" if node.lineno > 1 else ""
        column = f", column {node.col_offset + 1}" if line or node.col_offset else ""
        return self.where + line + column

    def written(self, node: ast.expr) -> str:
        """A part as the user wrote it, cut if it is long."""
        return f"{ast.get_source_segment(self.text, node)!r:.60}"


def _dotted(node: ast.expr) -> str | None:
    """`a.b.C` as text, None where it is no such path."""
    path: list[str] = []
    while isinstance(node, ast.Attribute):
        path.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(path)]) if isinstance(node, ast.Name) else None


def _class(path: str, where: str) -> type[AnySchedule]:
    return class_at(path, (Schedule, FeedbackSchedule), where, SCHEDULES)


def _built(cls: type[AnySchedule], conf: Mapping[str, object], where: str) -> AnySchedule:
    built: AnySchedule = construct(cls, conf, where)
    return built

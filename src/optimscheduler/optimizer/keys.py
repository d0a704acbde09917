"""Which settings the parameter groups of an optimizer class may have, also those that its signature hides.

Optimizers with several algorithms in one class are told by their groups which one is meant: Muon variants by
`group["use_muon"]`, dion's by `group["algorithm"]`. Nothing but the source says that such a key exists.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Final

from torch.optim import Optimizer

from optimscheduler._torch_compat import is_of_torch

__all__ = ["IMPLEMENTATIONS", "group_keys", "parameters_name"]

IMPLEMENTATIONS: Final = ("foreach", "fused", "capturable", "differentiable")
"""Settings that choose a kernel, for all groups at once."""

_NO_SETTINGS: Final = {"params", "param_names", *IMPLEMENTATIONS}
_ASKING: Final = ("get", "setdefault", "pop")
_WALKING: Final = ("enumerate", "zip", "list", "reversed")


def parameters_name(optimizer_class: type[Optimizer]) -> str:
    """What the constructor calls its first argument: `params`, in all classes but a few."""
    return next(iter(inspect.signature(optimizer_class).parameters), "params")


def group_keys(optimizer_class: type[Optimizer]) -> list[str]:
    """The settings that a parameter group may have of its own.

    Those are the constructor's, and what the class, or a base of it, reads from a group or names in its
    defaults: `group["rank"]`, `group.get("rank")`, `"rank" in group`, `defaults = dict(rank=...)`. Where the
    source is not there, every word in its code counts. The classes of `torch.optim` hide nothing.
    """
    unwanted = {*_NO_SETTINGS, parameters_name(optimizer_class)}
    signature = inspect.signature(optimizer_class).parameters.values()
    keys = [p.name for p in signature if p.kind is not p.VAR_KEYWORD and p.name not in unwanted]
    read = _read_by(optimizer_class)  # type: ignore[arg-type]  # classes can be hashed
    hidden = sorted(read.difference(unwanted, keys))
    return [*keys, *(key for key in hidden if not key.startswith("_"))]


@functools.cache
def _read_by(optimizer_class: type[Optimizer]) -> frozenset[str]:
    """What the class and its bases, up to torch's own, read from groups."""
    theirs = [cls for cls in optimizer_class.__mro__ if issubclass(cls, Optimizer) and not is_of_torch(cls)]
    return frozenset(key for cls in theirs for key in _keys_in(cls))


def _keys_in(cls: type) -> Iterator[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        for function in vars(cls).values():
            code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
            yield from _words(code) if code is not None else ()
        return
    aliases = set(_aliases(tree))
    for node in ast.walk(tree):
        yield from _keys_at(node, aliases)


def _words(code: CodeType) -> Iterator[str]:
    """The texts in a function, and in those inside it, that could be keys."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)
        for text in constant if isinstance(constant, tuple | frozenset) else (constant,):
            if isinstance(text, str) and text.isidentifier():
                yield text


def _keys_at(node: ast.AST, aliases: set[str]) -> Iterator[str]:
    """The keys that one node of the source reads from a group, or gives to the defaults."""
    match node:
        case ast.Subscript(value=held, slice=ast.Constant(value=str(key))) if _is_group(held, aliases):
            yield key
        case ast.Call(func=ast.Attribute(value=held, attr=asked), args=[ast.Constant(value=str(key)), *_]):
            if asked in _ASKING and _is_group(held, aliases):
                yield key
        case ast.Compare(
            left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()], comparators=[held]
        ) if _is_group(held, aliases):
            yield key
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if "default" in name:
            yield from _keys_of(value)
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if "default" in name:
            yield from _keys_of(value)
        case ast.Call(func=ast.Attribute(attr="__init__"), args=args, keywords=keywords):
            for value in [*args, *(keyword.value for keyword in keywords)]:
                yield from _keys_of(value)


def _keys_of(mapping: ast.AST | None) -> Iterator[str]:
    """Those of `{...}` or `dict(...)`."""
    match mapping:
        case ast.Dict(keys=keys):
            yield from (k.value for k in keys if isinstance(k, ast.Constant) and isinstance(k.value, str))
        case ast.Call(func=ast.Name(id="dict"), keywords=keywords):
            yield from (keyword.arg for keyword in keywords if keyword.arg)


def _is_group(node: ast.AST, aliases: Iterable[str] = ()) -> bool:
    """Whether an expression is a group, or groups: by its name, or as what is taken out of groups."""
    match node:
        case ast.Name(id=name):
            return "group" in name or name in aliases
        case ast.Attribute(attr=name):
            return "group" in name
        case ast.Subscript(value=held, slice=index):
            named = isinstance(index, ast.Constant) and isinstance(index.value, str)
            return not named and _is_group(held, aliases)
        case ast.Call(func=ast.Name(id=name), args=args) if name in _WALKING:
            return any(_is_group(each, aliases) for each in args)
    return False


def _aliases(tree: ast.AST) -> Iterator[str]:
    """The names that groups have in loops: `for g in self.param_groups`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.comprehension) and _is_group(node.iter):
            targets = node.target.elts if isinstance(node.target, ast.Tuple) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))

"""Find what a dotted name in a configuration points to, and check a call before making it."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from optimscheduler.errors import ConfigError, nearest

__all__ = ["check_call", "class_at", "construct", "object_at"]


def object_at(path: str, where: str) -> Any:  # Any: whatever stands there
    """Import what a dotted path names, `package.module.Name`.

    Args:
        path: at least a module and a name.
        where: the place in the configuration, for the message.

    Raises:
        ConfigError: there is no such module or name; nearest names are listed.
    """
    module_path, _, name = path.rpartition(".")
    if not all(part.isidentifier() for part in path.split(".")) or not module_path:
        raise ConfigError(f"{where}: {path!r} is not a dotted path like 'package.module.Name'")
    try:
        module = importlib.import_module(module_path)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_path + ".").startswith(error.name + "."):
            raise  # the module is there, and something that it needs is not
        raise ConfigError(
            f"{where}: there is no module {error.name!r} (wanted for {path!r}). "
            "Is it installed, or beside the configuration file?"
        ) from None
    if not hasattr(module, name):
        known = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(f"{where}: module {module_path!r} has no {name!r}. {nearest(name, known)}")
    return getattr(module, name)


def class_at(
    path: str, base: type | tuple[type, ...], where: str, known: Mapping[str, type] | None = None
) -> type:
    """The class that `path` names, checked to be a `base` before anybody calls it.

    Args:
        path: a name in `known`, or a dotted path.
        base: what the place needs, for example `torch.nn.Module`; of several, any will do.
        where: the place in the configuration.
        known: classes that go by a short name.

    Raises:
        ConfigError: no such name, no class, or of another kind.
    """
    short = known or {}
    needed = " or ".join(kind.__name__ for kind in (base if isinstance(base, tuple) else (base,)))
    if not isinstance(path, str):
        raise ConfigError(f"{where} must be the name of a {needed}, got {path!r}")
    if path in short:
        found: Any = short[path]
    elif short and "." not in path:
        raise ConfigError(f"{where}: there is no {needed} {path!r}. {nearest(path, short)}")
    else:
        found = _object_near(path, where, short)
    if not (isinstance(found, type) and issubclass(found, base)):
        kind = found.__name__ if isinstance(found, type) else type(found).__name__
        raise ConfigError(f"{where}: {path!r} is of type {kind}, but needed here: {needed}")
    return found


def _object_near(path: str, where: str, short: Mapping[str, type]) -> Any:  # Any: see object_at
    """What a dotted path names; where there is nothing, the message has the nearest short name."""
    try:
        return object_at(path, where)
    except ConfigError as error:
        near = difflib.get_close_matches(path, short, n=1)
        if not near:
            raise
        raise ConfigError(f"{where}: there is no {path!r}. Did you mean {near[0]!r}?") from error


def check_call(target: Callable[..., Any], conf: Mapping[str, Any], where: str, *given: str) -> None:
    """Check keyword arguments against a signature, before the call.

    Args:
        target: what will be called.
        conf: the keyword arguments from a configuration.
        where: their place in the configuration.
        *given: names that the caller supplies itself.

    Raises:
        ConfigError: a key that the target does not take, or one that it needs and does not get.
    """
    name = getattr(target, "__qualname__", repr(target))
    parameters = [p for p in inspect.signature(target).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    named = {p.name: p for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in given}
    if len(parameters) == len(named) + len([p for p in parameters if p.name in given]):  # no **kwargs
        for key in conf:
            if key not in named:
                raise ConfigError(f"{where}: {name} takes no {key!r}. {nearest(key, named)}")
    for key, parameter in named.items():
        if parameter.default is parameter.empty and key not in conf:
            raise ConfigError(f"{where}: {name} needs {key!r}, which is missing")


def construct(
    target: Callable[..., Any], conf: Mapping[str, Any], where: str
) -> Any:  # Any: the target's own
    """Call `target(**conf)`; what it says against its arguments becomes a ConfigError with the place.

    Raises:
        ConfigError: keys that do not fit, or values that the target refuses.
    """
    check_call(target, conf, where)
    try:
        return target(**conf)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: {getattr(target, '__qualname__', target)} refuses this: {error}"
        ) from error

"""Find what a dotted name in a configuration points to, and check a call before making it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from optimscheduler.errors import ConfigError, nearest

__all__ = ["check_call", "class_at", "construct", "function_at", "object_at", "reason"]

_PYTHONS_OWN: Final = sys.stdlib_module_names | {"test"}  # which Python leaves out of its list
_ENDLESS: Final = ("factorial", "perm")  # of a late step they take for ever


def object_at(path: str, where: str) -> Any:  # Any: whatever stands there
    """Import what a dotted path names, `package.module.Name`.

    Args:
        path: at least a module and a name.
        where: the place in the configuration, for the message.

    Raises:
        ConfigError: there is no such module or name, nearest names are listed; or it cannot be imported.
    """
    module_path, _, name = path.rpartition(".")
    if not all(part.isidentifier() for part in path.split(".")) or not module_path:
        raise ConfigError(f"{where}: {path!r:.80} is not a dotted path like 'package.module.Name'")
    try:
        module = importlib.import_module(module_path)
        there = hasattr(module, name)
    except SyntaxError as error:
        place = f"{error.filename} line {error.lineno}"
        raise ConfigError(f"{where}: {place} cannot be read: {error.msg}") from error
    except Exception as error:  # whatever a module does when it is imported
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if not missing or not (module_path + ".").startswith(missing + "."):
            raise ConfigError(f"{where}: {path!r:.80} cannot be imported: {reason(error)}") from error
        raise ConfigError(
            f"{where}: there is no module {missing!r:.80} (wanted for {path!r:.80}). "
            "Is it installed, or beside the configuration file?"
        ) from None
    if not there:
        known = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(f"{where}: module {module_path!r:.80} has no {name!r:.80}. {nearest(name, known)}")
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
        raise ConfigError(f"{where} must be the name of {_article(needed)} {needed}, got {path!r:.80}")
    if path in short:
        found: Any = short[path]
    elif short and "." not in path:
        raise ConfigError(f"{where}: there is no {needed} {path!r:.80}. {nearest(path, short)}")
    else:
        found = _object_near(path, where, short)
    if not (isinstance(found, type) and issubclass(found, base)):
        kind = found.__name__ if isinstance(found, type) else type(found).__name__
        raise ConfigError(f"{where}: {path!r:.80} is of type {kind}, but needed here: {needed}")
    return found


def _article(word: str) -> str:
    return "an" if word[0] in "AEIOU" else "a"


def function_at(path: str, where: str) -> Callable[[int], float]:
    """The function of one number that `path` names, checked before anybody calls it.

    What can be imported is also `os._exit` and `shutil.rmtree`. So of Python's own library only `math` is
    taken, and of everything else only what is written in Python, with `def`.

    Args:
        path: a dotted path.
        where: the place in the configuration.

    Raises:
        ConfigError: no such name, or of another kind.

    >>> function_at("os.removedirs", "Custom: fn")
    Traceback (most recent call last):
    optimscheduler.errors.ConfigError: Custom: fn: 'os.removedirs' may not be called from here. Name a \
function of math, or one of one number that is written with def in a module beside the configuration \
or in a package
    """
    found = object_at(path, where)
    if not (_of_math(found) or _of_somebody(found)):
        raise ConfigError(
            f"{where}: {path!r:.80} may not be called from here. Name a function of math, or one of one "
            "number that is written with def in a module beside the configuration or in a package"
        )
    try:
        if inspect.isfunction(found):
            inspect.signature(found).bind(1)
    except TypeError as error:
        raise ConfigError(f"{where}: {path!r:.80} must take one number, the step: {error}") from None
    function: Callable[[int], float] = found
    return function


def _of_math(found: object) -> bool:
    return inspect.isbuiltin(found) and found.__module__ == "math" and found.__name__ not in _ENDLESS


def _of_somebody(found: object) -> bool:
    """Whether it is a plain function, and no part of Python's own library under another name."""
    return inspect.isfunction(found) and str(found.__module__).partition(".")[0] not in _PYTHONS_OWN


def _object_near(path: str, where: str, short: Mapping[str, type]) -> Any:  # Any: see object_at
    """What a dotted path names; where there is nothing, the message has the nearest short name."""
    try:
        return object_at(path, where)
    except ConfigError as error:
        near = difflib.get_close_matches(path, short, n=1)
        if not near:
            raise
        raise ConfigError(f"{where}: there is no {path!r:.80}. Did you mean {near[0]!r}?") from error


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
                raise ConfigError(f"{where}: {name} takes no {key!r:.80}. {nearest(key, named)}")
    for key, parameter in named.items():
        if parameter.default is parameter.empty and key not in conf:
            raise ConfigError(f"{where}: {name} needs {key!r:.80}, which is missing")


def construct(
    target: Callable[..., Any], conf: Mapping[str, Any], where: str
) -> Any:  # Any: the target's own
    """Call `target(**conf)`; whatever it says against that becomes a ConfigError with the place.

    Raises:
        ConfigError: keys that do not fit, or values that the target refuses.
    """
    check_call(target, conf, where)
    try:
        return target(**conf)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except Exception as error:  # whatever it raises: a path that is not there, too little memory, ...
        raise ConfigError(
            f"{where}: {getattr(target, '__qualname__', target)} refuses this: {reason(error)}"
        ) from error


def reason(error: Exception) -> str:
    """What an error of somebody else's says; with its kind where the text alone says too little.

    >>> reason(ValueError("width must be >= 1")), reason(KeyError("width"))
    ('width must be >= 1', "KeyError: 'width'")
    """
    text = f"{error!s:.500}"
    if not text and isinstance(error, AssertionError) and error.__traceback__:
        import traceback

        text = f"{traceback.extract_tb(error.__traceback__)[-1].line}"  # what was asserted
    return text if isinstance(error, TypeError | ValueError) and text else f"{type(error).__name__}: {text}"

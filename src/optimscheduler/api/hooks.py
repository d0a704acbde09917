"""What the hook `sche_init` of a subclass takes, checked when the class is defined and when it is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from optimscheduler.errors import ConfigError, nearest

__all__ = ["check_collisions", "check_sche_conf"]

Hook = Callable[..., None]


def _arguments(hook: Hook) -> dict[str, inspect.Parameter]:
    """The named arguments of the hook, `self` aside."""
    parameters = inspect.signature(hook).parameters
    stars = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: p for name, p in parameters.items() if p.kind not in stars and name != "self"}


def check_collisions(owner: str, hook: Hook, taken: Iterable[str]) -> None:
    """Refuse a hook with an argument that the constructor would keep for itself.

    Raises:
        ConfigError: it has one.
    """
    for name in sorted(set(_arguments(hook)) & set(taken)):
        raise ConfigError(
            f"{owner}.sche_init: {name!r:.80} is an argument of OptimScheduler; use another name"
        )


def check_sche_conf(owner: str, hook: Hook, sche_conf: Mapping[str, Any], others: Iterable[str]) -> None:
    """Check the arguments meant for the hook.

    Args:
        owner: name of the class, for the message.
        hook: its `sche_init`.
        sche_conf: what was given and the constructor does not take.
        others: the constructor's own names, so that a misspelt one is recognised.

    Raises:
        ConfigError: a key that nobody takes, or one that is missing.
    """
    arguments = _arguments(hook)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(hook).parameters.values())
    for key in sche_conf:
        if key not in arguments and not takes_any:
            raise ConfigError(f"{owner} takes no {key!r:.80}. {nearest(key, [*others, *arguments])}")
    for name, parameter in arguments.items():
        if parameter.default is parameter.empty and name not in sche_conf:
            raise ConfigError(f"{owner} needs {name!r:.80}, which is missing")

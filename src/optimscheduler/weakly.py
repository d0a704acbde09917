"""A method that does not keep its object alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast

__all__ = ["Weakly"]

P = ParamSpec("P")
R = TypeVar("R")


class Weakly(Generic[P, R]):
    """Calls a bound method as long as its object lives, and does nothing afterwards.

    For what an object gives to others that may outlive it, or that it holds itself: it is then freed by
    counting references. A copy made together with the object calls the object's copy.
    """

    def __init__(self, method: Callable[P, R]) -> None:
        self._method: Callable[[], Callable[P, R] | None] = weakref.WeakMethod(cast(Any, method))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """What the method returns; None where its object is gone."""
        method = self._method()
        return None if method is None else method(*args, **kwargs)

    def __reduce__(self) -> tuple[object, ...]:
        method = self._method()
        return (_nothing, ()) if method is None else (Weakly, (method,))


def _nothing() -> Callable[..., None]:
    return _do_nothing


def _do_nothing(*_args: object, **_kwargs: object) -> None:
    pass

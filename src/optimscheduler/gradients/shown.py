"""`optimizer.state` over parameters whose state lies packed: made when somebody looks, and only then."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

__all__ = ["ShownState", "State"]

State = dict[str, Any]  # Any: what an optimizer keeps about one parameter


class ShownState(defaultdict[Tensor, State]):
    """Parameter -> its state, as torch keeps it; the tensors are views of packed ones.

    Whatever is asked of it, but through `dict` itself, opens it first.

    Args:
        fill: puts every parameter's state in; called when somebody looks at what is closed.
        by: whose state it is.
    """

    def __init__(self, fill: Callable[[], None], by: object = None) -> None:
        super().__init__(dict)
        self._fill = fill
        self.by = by
        self.is_open = False

    def serve(self, fill: Callable[[], None], by: object) -> None:
        """Show somebody else's state from now on; what is there stays until that is filled in."""
        self.open()
        self._fill, self.by = fill, by

    def open(self) -> None:
        """Somebody looks."""
        if not self.is_open:
            self._fill()
            self.is_open = True

    def freeze(self) -> None:
        """What it shows now is all that it will ever show."""
        self.serve(lambda: None, None)

    def close(self) -> None:
        """Forget what was shown, until somebody looks again."""
        dict.clear(self)
        self.is_open = False

    def is_held(self, parameters: Iterable[Tensor]) -> bool:
        """Whether somebody holds the state of one of these, and may replace an entry in it later."""
        return max((sys.getrefcount(dict.get(self, p)) for p in parameters), default=0) > _FREE

    def copy(self) -> Any:  # not of this class, as the base promises
        """A plain one."""
        return defaultdict(dict, self)

    def __copy__(self) -> Any:
        return self.copy()

    def __or__(self, other: Any) -> Any:  # as dict's
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:  # as dict's
        return other | self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        """A deep copy, or what is pickled, is a plain one too."""
        self.open()
        return defaultdict, (dict,), None, None, iter(list(dict.items(self)))


def _looking(name: str) -> Callable[..., Any]:
    inherited = getattr(defaultdict, name)

    def looking(self: ShownState, *args: Any) -> Any:
        self.open()
        return inherited(self, *args)

    looking.__name__ = name
    return looking


_LOOKS = """
    __getitem__ __setitem__ __delitem__ __iter__ __len__ __contains__ __eq__ __ne__ __repr__ __reversed__
    __ior__ get items keys values pop popitem setdefault update clear
"""
for _name in _LOOKS.split():
    setattr(ShownState, _name, _looking(_name))


def _references_to_what_only_it_holds() -> int:
    shown = ShownState(lambda: None)
    shown.is_open = True
    key = Tensor()
    shown[key] = {}
    return max(sys.getrefcount(dict.get(shown, p)) for p in [key])


_FREE = _references_to_what_only_it_holds()

"""Plain values as JSON, exactly: what is read back is what was written.

JSON knows neither tuples nor keys that are no text, so those are marked; NaN and infinity are written as
Python writes them. Nothing is executed in reading.

>>> read_plain(write_plain({"betas": (0.9, 0.98), 3: None}))
{'betas': (0.9, 0.98), 3: None}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["read_plain", "write_plain"]

_TUPLE: Final = "!tuple"
_PAIRS: Final = "!pairs"
_MARKS: Final = (_TUPLE, _PAIRS)


def write_plain(tree: object) -> bytes:
    """A tree of mappings, lists, tuples, text, numbers, truth values and None.

    Raises:
        TypeError: something else is in it; the message has its place.
    """
    return json.dumps(_marked(tree, ()), separators=(",", ":")).encode()


def read_plain(text: bytes) -> Any:  # Any: whatever was written
    """What `write_plain` has written.

    Raises:
        ValueError: it is no such text.
    """
    try:
        return json.loads(text, object_hook=_unmarked)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _marked(tree: object, place: tuple[object, ...]) -> object:
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if isinstance(tree, list):
        return [_marked(item, (*place, at)) for at, item in enumerate(tree)]
    if isinstance(tree, tuple):
        return {_TUPLE: [_marked(item, (*place, at)) for at, item in enumerate(tree)]}
    if isinstance(tree, Mapping):
        items = {key: _marked(item, (*place, key)) for key, item in tree.items()}
        if all(isinstance(key, str) and key not in _MARKS for key in items):
            return items
        return {_PAIRS: [[_marked(key, place), item] for key, item in items.items()]}
    raise TypeError(f"{'.'.join(map(str, place))} is a {type(tree).__name__}, which is no plain value")


def _unmarked(found: dict[str, Any]) -> Any:  # Any: see read_plain
    if len(found) == 1:
        if _TUPLE in found:
            return tuple(found[_TUPLE])
        if _PAIRS in found:
            return dict(found[_PAIRS])
    return found

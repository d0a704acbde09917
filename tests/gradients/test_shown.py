"""`optimizer.state` is made when somebody looks, in whatever way they look."""

from __future__ import annotations

import copy
import pickle
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch

from optimscheduler.gradients.shown import ShownState

KEY = torch.zeros(2)
LOOKS: dict[str, Callable[[ShownState], Any]] = {
    "[]": lambda s: s[KEY],
    "[] =": lambda s: s.__setitem__(torch.ones(1), {}),
    "del": lambda s: s.__delitem__(KEY),
    "in": lambda s: KEY in s,
    "len": len,
    "bool": bool,
    "iter": list,
    "reversed": lambda s: list(reversed(s)),
    "==": lambda s: s == {},
    "repr": repr,
    "|": lambda s: s | {},
    "{} |": lambda s: {} | s,
    "**": lambda s: dict(s),
    "get": lambda s: s.get(KEY),
    "items": lambda s: s.items(),
    "keys": lambda s: s.keys(),
    "values": lambda s: s.values(),
    "pop": lambda s: s.pop(KEY),
    "popitem": lambda s: s.popitem(),
    "setdefault": lambda s: s.setdefault(KEY, {}),
    "update": lambda s: s.update({}),
    "clear": lambda s: s.clear(),
    "copy": lambda s: s.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
}


def shown() -> ShownState:
    state = ShownState(lambda: dict.__setitem__(state, KEY, {"step": 1}))
    return state


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_R40_every_way_to_look_opens_it(look: Callable[[ShownState], Any]) -> None:
    state = shown()
    assert not state.is_open
    look(state)
    assert state.is_open


@pytest.mark.parametrize("by", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_R40_a_copy_is_a_plain_one(by: Callable[[ShownState], Any]) -> None:
    copied = by(shown())
    assert type(copied) is defaultdict
    assert list(copied.values()) == [{"step": 1}]
    assert copied[torch.ones(1)] == {}


def test_it_is_filled_once_until_it_is_closed() -> None:
    calls: list[int] = []
    state = ShownState(lambda: calls.append(1))
    len(state)
    len(state)
    assert len(calls) == 1
    state.close()
    len(state)
    assert len(calls) == 2


def test_whoever_holds_a_state_is_noticed() -> None:
    state = shown()
    held = state[KEY]
    assert state.is_held([KEY])
    del held
    assert not state.is_held([KEY])

"""Which models of this process are trained by OptimSchedulers, so that none moves what is another's."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from optimscheduler._torch_compat import quiet

__all__ = ["Claim"]

_NOTHING: Final = nullcontext()


class Claim:
    """The parameters and wrappers of one model, as long as somebody trains it.

    Args:
        model: wrapped or not.
        trainers: the OptimSchedulers, or what stands for them.

    Attributes:
        model: the same.
        parameters: those that it had.
        wrappers: the DistributedDataParallel modules in it.
    """

    def __init__(self, model: nn.Module, trainers: Iterable[object]) -> None:
        self.model = model
        self.parameters = list(model.parameters())
        self.wrappers = [m for m in model.modules() if isinstance(m, DistributedDataParallel)]
        self._trainers = frozenset(map(id, trainers))
        self._enter()

    def __getstate__(self) -> dict[str, Any]:
        """Without the parameters of others."""
        return vars(self) | {"_others": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy is another model's."""
        self.__dict__.update(state)
        self._enter()

    def _enter(self) -> None:
        self._mine = frozenset(id(parameter) for parameter in self.parameters)
        self._when, self._wrapped = 0, False
        self._others: list[weakref.ref[nn.Parameter]] = []
        _claims.add(self)
        weakref.finalize(self, _changed).atexit = False
        _changed()

    def has_others(self) -> bool:
        """Whether parameters of other models are trained in this process."""
        if self._when != _changes:
            self._look()
        return bool(self._others)

    def quiet_others(self) -> AbstractContextManager[None]:
        """Forwards inside, through wrappers of other models that are trained here, prepare no reduction."""
        if self._when != _changes:
            self._look()
        return quiet(self._wrappers_of_others()) if self._wrapped else _NOTHING

    def _look(self) -> None:
        self._when = _changes
        others = {id(p): p for claim in _claims for p in claim.parameters if id(p) not in self._mine}
        self._others = list(map(weakref.ref, others.values()))
        self._wrapped = bool(self._wrappers_of_others())

    def of_others(self) -> list[nn.Parameter]:
        """The parameters of other models that are trained in this process."""
        if self._when != _changes:
            self._look()
        return [parameter for other in self._others if (parameter := other()) is not None]

    def _wrappers_of_others(self) -> list[DistributedDataParallel]:
        wrappers = {id(wrapper): wrapper for claim in _claims for wrapper in claim.wrappers}
        return [w for w in wrappers.values() if self._mine.isdisjoint(map(id, w.parameters()))]

    def is_shared(self) -> bool:
        """Whether others than this claim's train some of its parameters; not quick."""
        gc.collect()  # those that are gone do not count
        others = (claim for claim in _claims if not claim._trainers <= self._trainers)
        return any(self._mine & other._mine for other in others)


_claims: Final = weakref.WeakSet[Claim]()
"""The one thing that OptimSchedulers of different models share: a graph may reach through all of them."""

_changes = 0
"""How often somebody came or went."""


def _changed() -> None:
    global _changes
    _changes += 1

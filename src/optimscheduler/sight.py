"""What the graphs of a loss hold: they are walked when one of their shape was not seen before."""

from __future__ import annotations

import weakref
from collections.abc import Container, Iterator
from typing import Final

from torch import Tensor, nn
from torch.autograd.graph import Node

from optimscheduler._torch_compat import graph_age, leaf_of

__all__ = ["Sight"]

_TRUSTED: Final = 16
"""Graphs that are taken for what their shape says, until they are walked again: a walk takes an eighth of the
step of a small model, and two graphs of one shape may differ, as when a parameter is thawed."""

_KEPT: Final = 1024  # shapes that are remembered


class Sight:
    """What was seen in the graphs of one loss.

    Attributes:
        reentrant: a node ran a backward of its own (torch's reentrant checkpoint, fairscale's, DeepSpeed's).
        blind: torch did not say which leaves there are.
        has_strays: there are, or were, parameters that were reached and are not the owners'.
    """

    def __init__(self) -> None:
        self.reentrant = False
        self.has_strays = False
        self.blind = False
        self._strays: list[weakref.ref[Tensor]] = []
        self._known: set[tuple[object, ...]] = set()
        self._left = _TRUSTED

    @property
    def strays(self) -> list[Tensor]:
        """Parameters that were reached and are not the owners'."""
        return [there for there in (stray() for stray in self._strays) if there is not None]

    def look(self, root: Node | None, since: int | None, owned: Container[int]) -> None:
        """Take note of the graph of a loss.

        Args:
            root: where it begins.
            since: `graph_age` before the forward pass.
            owned: identities of the owners' parameters.
        """
        shape = _shape_of(root, since)
        if shape in self._known:
            self._left -= 1
            if self._left:
                return
        self._walk(root, owned)
        if not self._left or len(self._known) == _KEPT:
            self._known.clear()
            self._left = _TRUSTED
        if shape is not None:
            self._known.add(shape)

    def _walk(self, root: Node | None, owned: Container[int]) -> None:
        known = {id(stray) for stray in self.strays}
        for node in _nodes(root):
            name = type(node).__name__
            if name == "AccumulateGrad":
                leaf = leaf_of(node)
                self.blind = self.blind or leaf is None
                if isinstance(leaf, nn.Parameter) and id(leaf) not in owned and id(leaf) not in known:
                    self._strays.append(weakref.ref(leaf))
                    self.has_strays = True
            elif "CheckpointFunction" in name:
                self.reentrant = True


def _shape_of(root: Node | None, since: int | None) -> tuple[object, ...] | None:
    """What graphs of the same making have in common; None where torch does not say."""
    if root is None or since is None:
        return None
    age = graph_age(root)
    if age is None:
        return None
    return age - since, type(root)


def _nodes(root: Node | None) -> Iterator[Node]:
    """Every node of a graph, once."""
    todo: list[Node | None] = [root]
    seen: set[Node | None] = {None}
    while todo:
        node = todo.pop()
        if node in seen or node is None:
            continue
        seen.add(node)
        yield node
        todo += [following for following, _ in node.next_functions]

"""What the graphs of a loss hold: they are walked when one of their shape was not seen before."""

from __future__ import annotations

import weakref
from collections.abc import Container, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from optimscheduler._torch_compat import dtypes_of, graph_age, leaf_of

__all__ = ["GraphShapes"]

_TRUSTED: Final = 16
"""Graphs of one shape for which one walk counts: a walk takes a twentieth of the step of a small model, and
two graphs of one shape may differ, as when a parameter is thawed."""

_KEPT: Final = 1024  # shapes that are remembered


class GraphShapes:
    """What was seen in the graphs of one loss.

    Attributes:
        reentrant: a node ran a backward of its own (torch's reentrant checkpoint, fairscale's, DeepSpeed's).
        blind: torch did not say which leaves there are.
        has_strays: there are, or were, parameters that were reached and are not the owners'.
        half: a part of a graph was computed in float16. Only graphs of a new shape are looked at for it.
    """

    def __init__(self) -> None:
        self.reentrant = False
        self.has_strays = False
        self.blind = False
        self.half = False
        self._strays: list[weakref.ref[Tensor]] = []
        self._known: dict[tuple[object, ...] | None, int] = {}  # shape -> graphs of it still to be trusted

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
        left = self._known.get(shape, 0)
        if left:
            self._known[shape] = left - 1
            return
        nodes = _nodes(root)
        self._walk(nodes, owned)
        if shape is None or shape not in self._known:
            self._look_for_half(nodes)
        if len(self._known) == _KEPT:
            self._known.clear()
        if shape is not None:
            self._known[shape] = _TRUSTED - 1

    def look_for_half(self, root: Node | None) -> None:
        """Take note of that alone."""
        self._look_for_half(_nodes(root))

    def _look_for_half(self, nodes: Sequence[Node]) -> None:
        self.half = self.half or any(torch.float16 in dtypes_of(node) for node in nodes)

    def _walk(self, nodes: Sequence[Node], owned: Container[int]) -> None:
        kinds = {kind: kind.__name__ for kind in set(map(type, nodes))}
        self.reentrant = self.reentrant or any("CheckpointFunction" in name for name in kinds.values())
        leaves = [leaf_of(node) for node in nodes if kinds[type(node)] == "AccumulateGrad"]
        foreign = [leaf for leaf in leaves if id(leaf) not in owned]
        self.blind = self.blind or any(leaf is None for leaf in foreign)
        known = {id(stray) for stray in self.strays}
        new = [leaf for leaf in foreign if isinstance(leaf, nn.Parameter) and id(leaf) not in known]
        self._strays += map(weakref.ref, new)
        self.has_strays = self.has_strays or bool(new)


def _shape_of(root: Node | None, since: int | None) -> tuple[object, ...] | None:
    """What graphs of the same making have in common; None where torch does not say."""
    if root is None or since is None:
        return None
    age = graph_age(root)
    if age is None:
        return None
    return age - since, type(root)


def _nodes(root: Node | None) -> list[Node]:
    """Every node of a graph, once. It is in the way of a training step: every line of the loop counts."""
    nodes = [] if root is None else [root]
    seen = set(nodes)
    for node in nodes:  # which grows
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    return nodes

"""Graphs of autograd: their age, their leaves."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import Node

__all__ = ["dtypes_of", "graph_age", "leaf_of"]


def graph_age(node: Node | None = None) -> int | None:
    """How many nodes of graphs this thread had made when it made that one, or has made by now.

    Returns:
        None where torch does not say: graphs then have to be looked at.
    """
    try:
        number: int = torch._C._autograd._get_sequence_nr() if node is None else node._sequence_nr()
    except AttributeError:
        return None
    return number


def leaf_of(node: Node) -> Tensor | None:
    """The leaf tensor whose gradient a node of the name AccumulateGrad adds to; None where torch hides it."""
    leaf: Tensor | None = getattr(node, "variable", None)
    return leaf


def dtypes_of(node: Node) -> list[torch.dtype]:
    """In what a node receives its gradients; nothing where torch does not say."""
    return [entry.dtype for entry in getattr(node, "_input_metadata", ())]

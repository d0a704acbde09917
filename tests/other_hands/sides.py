"""What both sides of a comparison have, so that most of what other hands do is written once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tests.other_hands.trainings import Net, Training

__all__ = ["Side", "batch_of"]


def batch_of(rng: Random, dtype: torch.dtype) -> tuple[Tensor, bool]:
    """An input, and whether the head `side` is used."""
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    return torch.randn(5, 4, generator=generator, dtype=torch.float64).to(dtype), rng.random() < 0.75


class Side:
    """A model, its optimizers, and what other hands hold of them.

    Attributes:
        pending: batches in the open window of each optimizer.
        told: what hooks, copies and files were seen to hold, to be compared.
        held: inner dicts of `optimizer.state`.
        shown: from `model.state_dict()`, held across updates.
        kept: a copy of `optimizer.state_dict()` for later.
        at_rest: models that nobody trains any more, with copies of their weights.
    """

    model: Net
    optimizers: list[Optimizer]
    pending: list[int]

    def __init__(self, training: Training) -> None:
        self.training = training
        self.told: list[tuple[str, Any]] = []  # Any: trees of tensors
        self.shown: list[Mapping[str, Tensor]] = []
        self.at_rest: list[tuple[Net, dict[str, Tensor]]] = []
        self.forget()
        self.build(training.model())

    def forget(self) -> None:
        """Nobody holds anything of what was."""
        self.handles: list[Any] = []  # Any: torch's handles
        self.held: list[dict[str, Any]] = []
        self.schedulers: dict[int, LRScheduler] = {}
        self.kept: dict[int, dict[str, Any]] = {}

    # ---- what the two differ in ----

    def build(self, model: Net) -> None:
        """New optimizers over it."""
        raise NotImplementedError

    def batch(self, x: Tensor, side: bool, *, last: bool = False, times: float = 1.0) -> None:
        """One batch of the ordinary training; the last one of its window, or not; the loss times this."""
        raise NotImplementedError

    def flush(self) -> None:
        """Close the open windows as they are."""
        raise NotImplementedError

    def copy(self) -> None:
        """Go on with a copy of model and optimizers."""
        raise NotImplementedError

    def resume(self) -> None:
        """Go on in new objects, as from a file: gradients outside of open windows are lost."""
        raise NotImplementedError

    # ---- what other hands ask for ----

    def loss(self, i: int, rng: Random) -> Tensor:
        """The loss of an optimizer's member, of a batch of one's own."""
        losses = self.model(*batch_of(rng, self.training.dtype))
        loss: Tensor = losses[self.training.members[i].loss]
        return loss

    def any_optimizer(self, rng: Random) -> tuple[int, Optimizer]:
        """One of them, with its number."""
        i = rng.randrange(len(self.optimizers))
        return i, self.optimizers[i]

    def any_parameter(self, rng: Random) -> tuple[Optimizer, nn.Parameter]:
        """One of them, with its optimizer."""
        _, optimizer = self.any_optimizer(rng)
        return optimizer, rng.choice(list(parameters_of(optimizer)))

    def name_of(self, parameter: Tensor) -> str:
        return next(name for name, p in self.model.named_parameters() if p is parameter)

    def tell(self, what: str, tree: Any) -> None:  # Any: a tree of tensors
        """Write down a copy of what was seen."""
        self.told.append((what, copy.deepcopy(tree)))

    def rest(self, model: Net) -> None:
        """Nobody trains this one any more."""
        self.at_rest.append((model, {n: p.detach().clone() for n, p in model.named_parameters()}))


def parameters_of(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    """Through all groups."""
    for group in optimizer.param_groups:
        yield from group["params"]

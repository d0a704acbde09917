"""The open window: which batches have given their gradient to it, and how much each counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from optimscheduler.errors import ConfigError
from optimscheduler.scalars import Scalar

__all__ = ["Window"]


@dataclass(slots=True, kw_only=True)
class Window:
    """What one gradient is made of.

    Attributes:
        batches: numbers of the batches, in order.
        losses: their losses, detached 0-d tensors.
        weights: how much each counts: items behind its mean loss, or 1.
        weighted: whether weights were given; None while the window is empty.
    """

    batches: list[int] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    weights: list[Scalar] = field(default_factory=list)
    weighted: bool | None = None

    def __bool__(self) -> bool:
        return bool(self.batches)

    def add(self, batch: int, loss: Tensor, weight: Scalar | None) -> None:
        """One more batch; a `weight` of None counts 1."""
        self.batches.append(batch)
        self.losses.append(loss)
        self.weights.append(1.0 if weight is None else weight)
        self.weighted = weight is not None

    def expect(self, weight: Scalar | None) -> None:
        """Check that a batch fits to those that are here.

        Raises:
            ConfigError: some batches of one window come with a weight and some without.
        """
        if self.weighted is not None and self.weighted != (weight is not None):
            came = "with" if self.weighted else "without"
            raise ConfigError(
                f"weight: batches {self.batches} of this window came {came} one, and this batch is "
                "different; give a weight for every batch or for none"
            )

    @property
    def total(self) -> Scalar:
        """The sum of the weights."""
        return sum(self.weights, start=0.0)

    @property
    def counting(self) -> list[tuple[int, Tensor]]:
        """Number and loss of the batches whose weight is more than 0."""
        entries = zip(self.batches, self.losses, self.weights, strict=True)
        return [(batch, loss) for batch, loss, weight in entries if _counts(weight)]

    @property
    def loss(self) -> Tensor | None:
        """The weighted mean of the losses; None where no batch counts."""
        counting = [(loss, w) for loss, w in zip(self.losses, self.weights, strict=True) if _counts(w)]
        if not counting:
            return None
        if len(counting) == 1:
            return counting[0][0]
        losses = torch.stack([loss for loss, _ in counting])
        if not self.weighted:
            return losses.mean()
        weights = torch.stack(
            [torch.as_tensor(w, dtype=losses.dtype, device=losses.device) for _, w in counting]
        )
        return torch.dot(losses, weights) / weights.sum()

    def state_dict(self) -> dict[str, Any]:
        """Its contents, plain values and 0-d tensors."""
        return {
            "batches": self.batches,
            "losses": self.losses,
            "weights": self.weights,
            "weighted": self.weighted,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take those contents; tensors come to the device."""
        self.batches, self.weighted = list(state["batches"]), state["weighted"]
        self.losses = [loss.to(device) for loss in state["losses"]]
        self.weights = [w.to(device) if isinstance(w, Tensor) else w for w in state["weights"]]

    def clear(self) -> None:
        """Open a new one."""
        self.batches, self.losses, self.weights, self.weighted = [], [], [], None


def _counts(weight: Scalar) -> bool:
    """Whether the weight is more than 0; one that is on a device is not looked at."""
    return isinstance(weight, Tensor) or weight > 0

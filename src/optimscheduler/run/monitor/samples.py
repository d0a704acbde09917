"""Models that show what they have learned, in text or in pictures."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from optimscheduler.run.monitor import Monitor

__all__ = ["Painter", "Writer", "show"]


@runtime_checkable
class Writer(Protocol):
    """A model that can show in text what it has learned."""

    def write_sample(self, *, generator: torch.Generator) -> str:
        """Some text; the global random generators are left alone."""


@runtime_checkable
class Painter(Protocol):
    """A model that can show in a picture what it has learned."""

    def draw_sample(self, *, generator: torch.Generator) -> Tensor:
        """(H, W), 0 is paper and 1 is ink, or (H, W, 3); the global random generators are left alone."""


def show(model: nn.Module, monitor: Monitor, epoch: int, seed: int) -> None:
    """What the model has learned, in its own words and pictures; the same random numbers each time.

    Args:
        model: a `Writer`, a `Painter`, or both.
        monitor: is told.
        epoch: that is over.
        seed: of the run.
    """
    if isinstance(model, Writer):
        monitor.sampled(model.write_sample(generator=torch.Generator().manual_seed(seed)))
    if isinstance(model, Painter):
        monitor.drawn(epoch, model.draw_sample(generator=torch.Generator().manual_seed(seed)))

"""Where the gradients of an OptimScheduler live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from optimscheduler.gradients.loose import Loose

__all__ = ["Gradients", "Loose"]


class Gradients(Protocol):
    """The gradients of the owned parameters, whatever memory they lie in."""

    leaves: list[nn.Parameter]
    """What the optimizer is built over."""

    def blocks(self) -> list[Tensor]:
        """The gradients there are, as tensors that may be multiplied in place."""

    def missing(self) -> list[str]:
        """Canonical names of the trainable parameters that have no gradient."""

    def by_name(self) -> dict[str, Tensor]:
        """Canonical parameter name -> gradient, for those that have one."""

    def restore(self, gradients: Mapping[str, Tensor]) -> None:
        """Put saved gradients back; parameters without one get none."""

    def clear(self) -> None:
        """Forget all gradients."""

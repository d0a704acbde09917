"""What the straight line asks of the ranks, and the answer where there is one alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from optimscheduler.gradients import Gradients
from optimscheduler.scalars import Scalar
from optimscheduler.update.clip import total_norm
from optimscheduler.window.window import Window

__all__ = ["GradientSync", "ReducedWindow", "SingleProcess"]


@dataclass(slots=True, kw_only=True)
class ReducedWindow:
    """What the ranks know of a window after they have met.

    Attributes:
        weight: what the gradients are to be divided by; on the device, or a number.
        loss: mean of the losses over window and ranks; None where no batch counts.
        blamed: shape (ranks,), true where the loss was not finite; None in a single process.
        alike: parameters lie, and are going to lie, on every rank as they do here.
        watched: on some rank somebody wants to see the user's optimizer step.
    """

    weight: Scalar
    loss: Tensor | None
    blamed: Tensor | None = None
    alike: bool = True
    watched: bool = False


class GradientSync(Protocol):
    """How the gradients of the ranks become one."""

    @property
    def apart(self) -> bool:
        """Whether each rank holds a part of its own of an open window."""

    @property
    def flushable(self) -> bool:
        """Whether a window may be closed after its last backward is over."""

    @property
    def waits(self) -> bool:
        """Whether the other ranks wait for a backward of this rank, even if it has nothing to give."""

    @property
    def past_hooks(self) -> bool:
        """Whether gradients must come to the parameters without a wrapper's hearing of it."""

    def begin(self) -> None:
        """Make the weights of all ranks equal, where nobody else does."""

    def forward(self, completes: bool) -> AbstractContextManager[None]:
        """The context of a forward pass whose batch completes its window or not."""

    def backward(self) -> AbstractContextManager[None]:
        """The context of the backwards of a batch."""

    def reduce(self, gradients: Gradients, window: Window, *, checked: bool) -> ReducedWindow:
        """Bring the gradients of a closed window together, with their weight and loss.

        Args:
            gradients: of the member.
            window: that is closed.
            checked: `compare` may follow; it must on all ranks or on none.

        Raises:
            RankError: another rank did not come, or was told otherwise.
        """

    def norm(self, gradients: Gradients, norm_type: float) -> tuple[Scalar, torch.dtype]:
        """The p-norm of the whole gradient, a 0-d tensor, and its `narrowest`; the same on all ranks."""

    def largest(self, weight: Scalar | None) -> float:
        """The largest weight of a batch over the ranks; 1 where none was given.

        Raises:
            RankError: some ranks were given one and some not.
        """

    def mean(self, metric: float) -> float:
        """The mean of a number over the ranks; the same on all."""

    def broke_off(self) -> None:
        """A backward has failed, and what there was of its window was dropped."""

    def share_buffers(self) -> None:
        """Give everybody the buffers of rank 0."""

    def compare(
        self, config: Mapping[str, Any], facts: Mapping[str, float], parameters: Sequence[nn.Parameter]
    ) -> None:
        """Check that all ranks have the same configuration, numbers and weights.

        Raises:
            RankError: one differs.
        """


class SingleProcess:
    """Nobody else is there."""

    apart = False
    flushable = True
    waits = False
    past_hooks = False

    def begin(self) -> None:
        """Nothing to do."""

    def forward(self, completes: bool) -> AbstractContextManager[None]:  # noqa: ARG002  # the protocol's
        """Nothing to do."""
        return nullcontext()

    def backward(self) -> AbstractContextManager[None]:
        """Nothing to do."""
        return nullcontext()

    def reduce(self, gradients: Gradients, window: Window, *, checked: bool) -> ReducedWindow:  # noqa: ARG002  # the protocol's
        """The window's own."""
        watched = gradients.plan_layout().watched
        return ReducedWindow(weight=window.total, loss=window.loss, watched=watched)

    def norm(self, gradients: Gradients, norm_type: float) -> tuple[Tensor, torch.dtype]:
        """See `total_norm`."""
        return total_norm(gradients.blocks(), norm_type, in_rows=not gradients.bit_for_bit)

    def largest(self, weight: Scalar | None) -> float:
        """The number itself."""
        return 1.0 if weight is None else float(weight)

    def mean(self, metric: float) -> float:
        """The number itself."""
        return metric

    def broke_off(self) -> None:
        """Nothing to do."""

    def share_buffers(self) -> None:
        """Nothing to do."""

    def compare(
        self, config: Mapping[str, Any], facts: Mapping[str, float], parameters: Sequence[nn.Parameter]
    ) -> None:
        """Nothing to compare with."""

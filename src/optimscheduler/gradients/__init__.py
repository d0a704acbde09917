"""Where the gradients of an OptimScheduler live.

- `PerTensor`: as torch leaves them, a tensor for each parameter. The reference, and right for everything.
- `Packed`: small parameters side by side in buffers, so that an update pays for memory and not per tensor.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler.checks import one_of
from optimscheduler.errors import ConfigError
from optimscheduler.gradients.packable import reason_against
from optimscheduler.gradients.packed import Packed
from optimscheduler.gradients.per_tensor import LayoutPlan, PerTensor
from optimscheduler.gradients.stored_tensor import StoredTensor
from optimscheduler.scalars import Flag

__all__ = ["Gradients", "LayoutPlan", "Packed", "PerTensor", "StoredTensor", "gradients_for"]

_log = logging.getLogger("optimscheduler")


class Gradients(Protocol):
    """The gradients of the owned parameters, whatever memory they lie in.

    Once a window is complete: `plan_layout`, the ranks meet, `apply_layout`, the update over `blocks`,
    `clear`.
    """

    bit_for_bit: bool
    """Whether an update must equal that of a hand-written loop in every bit."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The model's own, in the optimizer's order."""

    @property
    def moved_elsewhere(self) -> Sequence[nn.Parameter]:
        """Those that lie packed: views of memory that the twin of the optimizer writes."""

    @property
    def named(self) -> Mapping[str, nn.Parameter]:
        """Canonical name -> parameter."""

    laid: object
    """Another object whenever other parameters lie together."""

    def stored_tensors(self) -> list[StoredTensor]:
        """What an update moves, as it lies now."""

    @property
    def stepped(self) -> Optimizer:
        """The optimizer that an update steps: the user's, or its twin."""

    def is_current(self) -> bool:
        """Whether the user's optimizer still has the parameters that it was built with."""

    def plan_layout(self) -> LayoutPlan:
        """A window is complete: look at what was done to model and optimizer since the last."""

    def apply_layout(self, *, alike: bool = True, watched: bool = False) -> None:
        """After the ranks have met: put every parameter where it belongs, and bring the gradients along.

        Args:
            alike: parameters lie, and will lie, in the same way on all ranks.
            watched: step the user's optimizer, over gradients as they are applied: on some rank somebody
                wants to see that.
        """

    def before_step(self) -> None:
        """The numbers of the groups are written; an update follows."""

    def after_step(self, moved: Flag = True) -> None:
        """The update is done, or was refused."""

    def present(self) -> int:
        """How many parameters have a gradient."""

    def blocks(self) -> list[Tensor]:
        """The gradients there are, as tensors that may be multiplied in place."""

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and gradient of each parameter that has one, in the memory of `blocks` and shaped alike.

        Of a sparse gradient they are the rows that it has; of a sharded one, DTensors.
        """

    def missing(self) -> list[str]:
        """Canonical names of the trainable parameters that have no gradient."""

    def by_name(self) -> dict[str, Tensor]:
        """Canonical parameter name -> gradient, for those that have one."""

    def restore(self, gradients: Mapping[str, Tensor]) -> None:
        """Put saved gradients back; parameters without one get none."""

    def clear(self) -> None:
        """Forget all gradients."""

    def arrangement(self) -> list[Any] | None:
        """Who lies side by side, by name, so that a resumed run adds in the same order; None: nobody."""

    def arrange(self, arrangement: Sequence[Any] | None) -> None:
        """Lay parameters as they lay in a saved run, as far as they can."""

    def release(self) -> None:
        """Give the user's optimizer all state, for good: somebody else takes over."""

    def loosen(self) -> None:
        """Give every parameter optimizer state of its own, until the next update."""


def gradients_for(
    groups: Sequence[Mapping[str, nn.Parameter]],
    optimizer: Optimizer,
    model: nn.Module,
    layout: str,
    *,
    fused: bool,
) -> Gradients:
    """The layout that a configuration asks for.

    Args:
        groups: canonical name -> parameter, for each group of the optimizer.
        optimizer: the user's, over these groups.
        model: that the parameters belong to, with others perhaps.
        layout: `"auto"` is flat where that is possible.
        fused: whether the fused kernel may be used in place of the optimizer's own choice.

    Raises:
        ConfigError: `"flat"` where it is not possible, or an unknown layout.
    """
    named = {name: parameter for group in groups for name, parameter in group.items()}
    reason = reason_against(optimizer, list(named.values()))
    wanted = one_of("layout", layout, ["auto", "flat", "loose"])
    if wanted != "loose" and reason is None:
        return Packed(groups, optimizer, model, fused=fused)
    if wanted == "flat":
        raise ConfigError(f"layout: 'flat' is not possible here: {reason}. Write auto, or leave it out")
    if wanted == "auto":
        _log.info("layout: loose, every tensor on its own: %s", reason)
    return PerTensor(named, optimizer, fused=fused)

"""Every rank holds a part of each parameter: `torch.distributed.fsdp.fully_shard`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from optimscheduler._torch_compat import scatters_gradients
from optimscheduler.errors import ConfigError
from optimscheduler.gradients import Gradients
from optimscheduler.shards import copies, is_fsdp, is_sharded, local, place_as_parameter
from optimscheduler.sync.base import ReducedWindow
from optimscheduler.sync.ranks import Ranks, meeting
from optimscheduler.sync.replicated import FORWARD, Together, loose_tensors
from optimscheduler.update.clip import narrowest, total_norm
from optimscheduler.window.window import Window

__all__ = ["ShardedByFsdp"]


class ShardedByFsdp(Together):
    """`fully_shard` scatters the sum of the gradients in each backward, or in the last of a window.

    Args:
        ranks: of the whole mesh.
        model: with `fully_shard` applied to it or to its parts.
        alone: one OptimScheduler owns every parameter, so that gradients may wait unreduced where FSDP
            keeps them. With several, each backward reduces.
    """

    waits = True
    past_hooks = False

    def __init__(self, ranks: Ranks, model: nn.Module, *, alone: bool) -> None:
        super().__init__(ranks, model, shares_buffers=True)
        self._alone = alone
        self._broken = False
        self._parts: list[Any] = [m for m in model.modules() if is_fsdp(m)]  # Any: torch mixes the class in

    def begin(self) -> None:
        """What is not sharded starts with the values of rank 0."""
        self._ranks.share(loose_tensors(self._model, ()))

    def forward(self, completes: bool) -> AbstractContextManager[None]:
        """The backward will decide.

        Raises:
            ConfigError: a window has broken off in its middle before.
        """
        if self._broken:
            raise ConfigError(
                "under fully_shard a window whose backward has failed cannot be dropped: torch keeps its "
                "gradients out of reach. Build model and OptimScheduler anew from the last saved state"
            )
        self.flushable = completes or not self._alone
        return meeting(FORWARD)

    @contextmanager
    def backward(self) -> Iterator[None]:
        """No traffic of gradients in mid-window, where that is possible; then the parts are as before."""
        before = [(part, scatters_gradients(part)) for part in self._parts]
        for part in self._parts:
            part.set_requires_gradient_sync(self.flushable, recurse=False)
        try:
            yield
        finally:
            for part, scatters in before:
                part.set_requires_gradient_sync(scatters, recurse=False)

    def broke_off(self) -> None:
        """Gradients of the window may lie where they cannot be dropped."""
        self._broken = True

    def reduce(self, gradients: Gradients, window: Window, *, checked: bool) -> ReducedWindow:
        """The gradients are averaged and scattered already, but for those of parameters left whole.

        Raises:
            ConfigError: the last training forward ran outside `forward()` after one that was inside.
        """
        if not self.flushable:
            raise ConfigError(
                "under fully_shard every training forward of a window must run inside forward(): the last "
                "one did not, so its gradients were not reduced. Write: with optim.forward(): "
                "losses = model(batch)"
            )
        self._ranks.average([p for p in gradients.parameters if not is_sharded(p)])
        place_as_parameter(gradients.parameters)
        return self._meet(gradients, window, checked=checked)

    def norm(self, gradients: Gradients, norm_type: float) -> tuple[Tensor, torch.dtype]:
        """Each rank measures its shards; what several ranks hold counts once."""
        there = [p.grad for p in gradients.parameters if p.grad is not None]
        mine = [_share(gradient, norm_type, self._ranks.count) for gradient in there]
        whole = self._ranks.gather(_norm_of(mine, norm_type, self._device)[None])
        dtypes = {gradient.dtype for gradient in there}
        norm = _norm_of(list(whole[:, 0]), norm_type, self._device)
        return (norm if torch.float64 in dtypes else norm.float()), narrowest(dtypes)


def _share(gradient: Tensor, norm_type: float, ranks: int) -> Tensor:
    """The norm of this rank's shard, so that those of all ranks make that of the gradient."""
    block = local(gradient)
    norm, _ = total_norm([block] if block.numel() else [], norm_type)
    norm = norm.to(block.device)
    return norm if math.isinf(norm_type) else norm / copies(gradient, ranks) ** (1 / norm_type)


def _norm_of(norms: Sequence[Tensor], norm_type: float, device: torch.device) -> Tensor:
    """The norm of parts whose norms these are, in double precision."""
    if not norms:
        return torch.zeros((), dtype=torch.float64, device=device)
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.double() for norm in norms]), norm_type)
    return total

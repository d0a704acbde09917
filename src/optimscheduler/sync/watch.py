"""What the forwards of DistributedDataParallel modules do, noted by hooks that are gone when nobody asks."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from optimscheduler._torch_compat import inside_ddp
from optimscheduler.weakly import Weakly

__all__ = ["Watch"]


class Watch:
    """Looks at every forward of some wrappers.

    Args:
        wrapped: the wrappers.

    Attributes:
        reduces: the next backward reduces, for the last forward has prepared for it.
        prepared: there was a forward that did, at some time.
        uncalled: there was one in training while `announced` was false.
        announced: a forward pass is inside `forward()`.
    """

    def __init__(self, wrapped: Sequence[DistributedDataParallel]) -> None:
        self.reduces, self.prepared, self.uncalled, self.announced = False, False, False, False
        self._depth = 0
        for ddp in wrapped:
            before = ddp.register_forward_pre_hook(Weakly(self._before))
            after = ddp.register_forward_hook(Weakly(self._after), always_call=True)
            for handle in (before, after):
                weakref.finalize(self, handle.remove).atexit = False

    @property
    def encloses(self) -> bool:
        """Whether a forward of a wrapper is running, which prepares for a backward when it ends."""
        return self._depth > 0 or inside_ddp()

    def _before(self, ddp: nn.Module, _inputs: Any) -> None:  # Any: whatever the model takes
        self._depth += 1
        if torch.is_grad_enabled():
            self.reduces = bool(ddp.require_backward_grad_sync)
            self.prepared = self.prepared or self.reduces
            self.uncalled = self.uncalled or (self.reduces and ddp.training and not self.announced)

    def _after(self, _ddp: nn.Module, _inputs: Any, _outputs: Any) -> None:
        self._depth -= 1

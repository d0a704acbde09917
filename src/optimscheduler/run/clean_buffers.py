"""Buffers of a model, kept clean of what a refused gradient came from.

A batch that is not finite makes the running statistics of a normalisation so, in its forward pass already,
and for good: the refused update leaves the weights alone, but not those.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from optimscheduler.parameters import saved_buffers

__all__ = ["CleanBuffers"]

_log = logging.getLogger("optimscheduler")


class CleanBuffers:
    """A copy of the floating-point buffers of a model, from when they were finite last.

    Args:
        model: whose buffers are saved in checkpoints.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._copies = [buffer.clone() for buffer in self._buffers()]

    def _buffers(self) -> list[Tensor]:
        return [buffer for buffer in saved_buffers(self._model) if buffer.is_floating_point()]

    def keep(self) -> None:
        """Remember them as they are, if they are finite."""
        buffers = self._buffers()
        if buffers and len(buffers) == len(self._copies) and _all_finite(buffers):
            torch._foreach_copy_(self._copies, buffers)

    def mend(self) -> None:
        """Put back those that are not finite and were."""
        mended = 0
        for buffer, copy in zip(self._buffers(), self._copies, strict=False):
            if buffer.shape == copy.shape and not _all_finite([buffer]) and _all_finite([copy]):
                buffer.copy_(copy)
                mended += 1
        if mended:
            _log.warning("%d of the model's buffers were not finite any more, and were put back", mended)


def _all_finite(tensors: list[Tensor]) -> bool:
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

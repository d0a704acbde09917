"""Buffers of a model, kept clean of what a bad batch has in it.

A batch that is not finite makes the running statistics of a normalisation so, in its forward pass already,
and for good: the refused update leaves the weights alone, but not those. They are put back at once, so that
neither a validation nor a checkpoint nor the next batch ever meets them. Nothing here waits for a device
before `tell`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from optimscheduler._torch_compat import norms_of, products_of
from optimscheduler.parameters.owned import saved_buffers

__all__ = ["CleanBuffers"]

_log = logging.getLogger("optimscheduler")


class CleanBuffers:
    """A copy of the floating-point buffers of a model, from when they were finite last.

    One that never was finite, a mask for example, is left alone, and so is one that becomes infinite in a
    batch with which nothing is wrong.

    Args:
        model: whose buffers are saved in checkpoints.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._begin(self._buffers())

    def _buffers(self) -> list[Tensor]:
        return [buffer for buffer in saved_buffers(self._model) if _is_written_to(buffer)]

    def _begin(self, buffers: list[Tensor]) -> None:
        self._copies = [buffer.clone() for buffer in buffers]
        self._clean = _finite(buffers) if buffers else torch.zeros(0, dtype=torch.bool)
        self._put_back = torch.zeros_like(self._clean)

    def after(self, losses: Iterable[Tensor]) -> None:
        """A batch was done: put back what it has spoilt if its losses are not finite, remember the rest."""
        if self._copies:
            finite = [loss.detach().isfinite().all() for loss in losses]
            self._settle(bad=~torch.stack(finite).all().to(self._clean.device) if finite else False)

    def refused(self) -> None:
        """A gradient was refused: put back what its window has spoilt, also where its losses are finite."""
        if self._copies:
            self._settle(bad=True)

    def _settle(self, *, bad: Tensor | bool) -> None:
        buffers = self._buffers()
        if [buffer.shape for buffer in buffers] != [copy.shape for copy in self._copies]:
            self._begin(buffers)
            return
        finite = _finite(buffers)
        spoilt = ~finite & self._clean & bad
        for buffer, copy, is_spoilt, is_finite in zip(buffers, self._copies, spoilt, finite, strict=True):
            torch.where(is_spoilt.to(buffer.device), copy, buffer, out=buffer)
            torch.where(is_finite.to(buffer.device), buffer, copy, out=copy)
        self._clean = self._clean | finite
        self._put_back = self._put_back | spoilt

    def tell(self) -> None:
        """Say how many were put back since this was asked last."""
        if count := int(self._put_back.sum()):
            _log.warning("%d of the model's buffers were not finite any more, and were put back", count)
            self._put_back = torch.zeros_like(self._put_back)


def _is_written_to(buffer: Tensor) -> bool:
    """Whether a forward pass may change it: no learnt one, none that repeats one number in many places."""
    repeats = any(size > 1 and step == 0 for size, step in zip(buffer.shape, buffer.stride(), strict=True))
    wide = buffer.is_floating_point() and buffer.itemsize > 1  # torch calculates with no float8
    return wide and not repeats and not buffer.requires_grad


def _finite(tensors: list[Tensor]) -> Tensor:
    """Which of them are, in few calls: what is not finite stays so when it is multiplied by 0."""
    norms = norms_of(products_of(tensors, 0.0), 2.0, None)
    return torch.stack([norm.to(norms[0].device) for norm in norms]) == 0

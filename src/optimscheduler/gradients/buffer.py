"""Parameters side by side in one tensor, and a tensor beside it that their gradients are brought into."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import torch
from torch import Tensor, nn

from optimscheduler.gradients.suited import BUFFERS

__all__ = ["Buffer"]

_ALIGNMENT: Final = 64  # bytes: a cache line, and what vectorised kernels like best

_gradient_of = attrgetter("grad")


class Buffer:
    """Parameters of one dtype and device, moved into memory that they share.

    `leaf` is what an optimizer steps over in their place: 1-D, with gaps of zeros between the parameters.
    The parameters are views of it. Their gradients stay tensors of their own, which autograd hands over
    without touching them, until `gather` copies them into the gradient of the leaf.

    Args:
        parameters: dense, with strides in any order.
    """

    @torch.no_grad()
    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        first = self.parameters[0]
        step = _ALIGNMENT // first.element_size()
        self._offsets, end = [], 0
        for parameter in self.parameters:
            self._offsets.append(end)
            end += -(-parameter.numel() // step) * step
        self.leaf = nn.Parameter(first.new_zeros(end))
        BUFFERS.add(self.leaf.untyped_storage())
        self.gradient = first.new_zeros(end)
        self._gradients = self.beside(self.gradient)
        values = self.beside(self.leaf.data)
        torch._foreach_copy_(values, [parameter.data for parameter in self.parameters])
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.data = value
        self._addresses = list(map(Tensor.data_ptr, self.parameters))

    def beside(self, row: Tensor) -> list[Tensor]:
        """Views of a 1-D tensor as long as `leaf`, one for each parameter, shaped like it."""
        return [
            row.as_strided(p.size(), p.stride(), offset)
            for p, offset in zip(self.parameters, self._offsets, strict=True)
        ]

    def is_whole(self) -> bool:
        """Whether every parameter still lies here."""
        return list(map(Tensor.data_ptr, self.parameters)) == self._addresses

    def gather(self) -> list[nn.Parameter]:
        """Copy the gradients into that of the leaf; call it with gradients disabled.

        Returns:
            The parameters that have no gradient, or a sparse one; then nothing is copied.
        """
        gradients = list(map(_gradient_of, self.parameters))
        try:
            torch._foreach_copy_(self._gradients, gradients)
        except (TypeError, RuntimeError):
            unfit = [
                parameter
                for parameter, gradient in zip(self.parameters, gradients, strict=True)
                if gradient is None or gradient.layout is not torch.strided
            ]
            if not unfit:
                raise
            return unfit
        self.leaf.grad = self.gradient
        return []

    def dissolve(self) -> None:
        """Nobody steps over the leaf any more; the parameters stay where they are, or move on."""
        del self.leaf, self.gradient, self._gradients

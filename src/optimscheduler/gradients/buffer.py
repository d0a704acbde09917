"""Parameters side by side in memory, and a tensor beside it that their gradients are brought into."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

import torch
from torch import Tensor, nn

from optimscheduler._torch_compat import copy_all_

__all__ = ["Buffer"]

_ALIGNMENT: Final = 16  # bytes: what vectorised kernels need; most tensors are a multiple of it long
_ROW: Final = 3  # tensors from which on one `torch.cat` takes less time than copies

_gradient_of = attrgetter("grad")


class Buffer:
    """Parameters of one dtype and device, moved into memory that they share.

    `leaf` is what an optimizer steps over in their place: 1-D, with gaps of zeros after some parameters.
    The parameters lie in its memory, each in a storage of its own: whoever saves or shares one, has that one
    alone. Their gradients stay tensors of their own, which autograd hands over without touching them, until
    `gather` brings them into the gradient of the leaf.

    Args:
        parameters: that lie there, one after the other.
        offsets: where in the memory each begins.
        memory: 1-D, of the parameters.
        gradient: 1-D, as long.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], offsets: Sequence[int], memory: Tensor, gradient: Tensor
    ) -> None:
        self.parameters = list(parameters)
        self.leaf = nn.Parameter(memory)
        self._offsets = list(offsets)
        self._forms = [(p.size(), p.stride()) for p in parameters]  # as they lie here; one may be moved away
        self._gradient = gradient
        self._rows: list[tuple[slice, Tensor]] = []  # which parameters, and where their gradients go
        self._others: list[int] = []
        self._find_rows()
        views = self.beside(gradient)
        self._gradients_of_others = [views[i] for i in self._others]
        self._addresses = list(map(Tensor.data_ptr, self.parameters))
        self.leaf.grad = gradient

    def _find_rows(self) -> None:
        start = 0
        for shape, row in groupby(self.parameters, _row_of):
            end = start + len(list(row))
            if shape is None or end - start < _ROW:
                self._others += range(start, end)
            else:
                stop = self._offsets[end - 1] + self.parameters[end - 1].numel()
                self._rows.append(
                    (slice(start, end), self._gradient[self._offsets[start] : stop].view(-1, *shape))
                )
            start = end

    @classmethod
    @torch.inference_mode(False)
    @torch.no_grad()
    def around(cls, parameters: Sequence[nn.Parameter]) -> Buffer:
        """Move these, dense and with strides in any order, into new memory, those of a row side by side."""
        first = parameters[0]
        rows: dict[torch.Size | None, list[nn.Parameter]] = {}
        for parameter in parameters:
            rows.setdefault(_row_of(parameter), []).append(parameter)
        odd = rows.pop(None, [])
        parameters = [parameter for row in (*rows.values(), odd) for parameter in row]
        step = _ALIGNMENT // first.element_size()
        offsets, end = [], 0
        for parameter in parameters:
            offsets.append(end)
            end += -(-parameter.numel() // step) * step
        memory, gradient = first.new_zeros(end), first.new_zeros(end)
        for parameter, offset in zip(parameters, offsets, strict=True):
            value = memory.as_strided(parameter.size(), parameter.stride(), offset)
            value.copy_(parameter.data)
            parameter.data = _alone(value)
        return cls(parameters, offsets, memory, gradient)

    def without(self, gone: Collection[nn.Parameter]) -> list[tuple[Buffer, slice]]:
        """The pieces of two parameters or more that are left between these, and where; nothing moves."""
        pieces: list[tuple[Buffer, slice]] = []
        start = 0
        for i in [*(i for i, p in enumerate(self.parameters) if p in gone), len(self.parameters)]:
            if i - start > 1:
                begin = self._offsets[start]
                place = slice(begin, self._offsets[i] if i < len(self._offsets) else self.leaf.numel())
                piece = Buffer(
                    self.parameters[start:i],
                    [offset - begin for offset in self._offsets[start:i]],
                    self.leaf.data[place],
                    self._gradient[place],
                )
                pieces.append((piece, place))
            start = i + 1
        return pieces

    @property
    def gradient(self) -> Tensor:
        """1-D, as `gather` has left it."""
        return self._gradient

    def beside(self, row: Tensor) -> list[Tensor]:
        """Views of a 1-D tensor as long as `leaf`, one for each parameter, shaped like it."""
        return [
            row.as_strided(size, stride, row.storage_offset() + offset)
            for (size, stride), offset in zip(self._forms, self._offsets, strict=True)
        ]

    def is_whole(self) -> bool:
        """Whether every parameter still lies here."""
        return list(map(Tensor.data_ptr, self.parameters)) == self._addresses

    def gather(self) -> list[nn.Parameter]:
        """Copy the gradients into that of the leaf; call it with gradients disabled.

        Returns:
            The parameters that have no gradient, or a sparse one; then the leaf's is not to be used.
        """
        gradients = list(map(_gradient_of, self.parameters))
        try:
            for row, together in self._rows:
                torch.cat(gradients[row], out=together)
            if self._others:
                copy_all_(self._gradients_of_others, [gradients[i] for i in self._others])
        except (TypeError, RuntimeError):
            unfit = [
                parameter
                for parameter, gradient in zip(self.parameters, gradients, strict=True)
                if gradient is None or gradient.layout is not torch.strided
            ]
            if not unfit:
                raise
            return unfit
        self.leaf.grad = self._gradient
        return []

    def dissolve(self) -> None:
        """Nobody steps over the leaf any more; the parameters stay where they are, or move on."""
        del self.leaf, self._gradient, self._rows, self._gradients_of_others


def _alone(view: Tensor) -> Tensor:
    """The same memory as a storage of its own, which keeps all of it alive.

    Tools that save a model (Accelerate, `safetensors.torch.save_model`) take tensors of one storage for one
    weight with several names, and leave the others out.
    """
    alone: Tensor = torch.from_dlpack(view)  # type: ignore[attr-defined]  # torch does not list it
    return alone.as_strided(view.size(), view.stride(), 0)


def _row_of(parameter: nn.Parameter) -> torch.Size | None:
    """The same for parameters that one `torch.cat` can bring together where they lie without gaps."""
    packed = parameter.numel() * parameter.element_size() % _ALIGNMENT == 0
    return parameter.shape[1:] if parameter.ndim and packed and parameter.is_contiguous() else None

"""Parameters side by side in one tensor, and their gradients in another.

Every parameter and every gradient is a view. What users do to a model may break a view, so each is looked
at before each update: `whole` and `collect`.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, is_
from typing import Final

import torch
from torch import Tensor, nn

from optimscheduler.gradients.suited import BUFFERS

__all__ = ["Buffer"]

_ALIGNMENT: Final = 64  # bytes: a cache line, and what vectorised kernels like best

_gradient_of = attrgetter("grad")
_version_of = attrgetter("_version")
_address_of = Tensor.data_ptr
_count_holders = getattr(torch._C, "_storage_Use_Count", None)  # a short cut where torch has it


class Buffer:
    """At least two parameters of one dtype and device, moved into memory that they share.

    `leaf` is what an optimizer steps over in their place: 1-D, with gaps of zeros between the parameters.

    A gradient is added by autograd to the view that it finds in `.grad`. Each view counts its own versions,
    so one that still has the version it had when it was cleared has received nothing.

    Args:
        parameters: dense, in any order of strides; gradients that they have are moved, too.
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
        self.gradient = first.new_zeros(end)
        self.leaf.grad = self.gradient
        BUFFERS.update((self.leaf.untyped_storage(), self.gradient.untyped_storage()))
        values = self.beside(self.leaf.data)
        torch._foreach_copy_(values, [parameter.data for parameter in self.parameters])
        self._views = [
            first.new_empty(0).set_(self.gradient.untyped_storage(), offset, p.size(), p.stride())
            for p, offset in zip(self.parameters, self._offsets, strict=True)
        ]
        self._cleared = list(map(_version_of, self._views))
        self._alike: int | None = self._cleared[0]  # the version of all of them, if it is one
        self._seen: list[int] | None = None
        self._take_in()
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.data = value
        self._addresses = list(map(_address_of, self.parameters))
        self._gradient_addresses = list(map(_address_of, self._views))
        self._storage = self.gradient.untyped_storage()
        self._holders = self._count()

    def beside(self, row: Tensor) -> list[Tensor]:
        """Views of a 1-D tensor as long as `leaf`, one for each parameter, shaped like it."""
        return [
            row.as_strided(p.size(), p.stride(), offset)
            for p, offset in zip(self.parameters, self._offsets, strict=True)
        ]

    def whole(self) -> bool:
        """Whether every parameter still lies here, and every gradient view too."""
        if list(map(_address_of, self.parameters)) != self._addresses:
            return False
        if self._holders and self._count() == self._holders:
            return True  # views have neither come nor gone
        return list(map(_address_of, self._views)) == self._gradient_addresses

    def _count(self) -> int:
        """How many tensors lie in the memory of the gradients; 0 where that cannot be asked."""
        return _count_holders(self._storage._cdata) if _count_holders else 0

    def begin(self, *, first: bool) -> None:
        """Before a backward, `first` of its window: see what was done to the gradients since the last one."""
        if self.leaf.grad is not self.gradient:  # optimizer.zero_grad() has dropped them
            self.leaf.grad = self.gradient
            self.gradient.zero_()
            self._remember(list(map(_version_of, self._views)))
        elif first and self._views[0]._version != self._cleared[0]:
            self._overlook()

    def _overlook(self) -> None:
        """Somebody has written into views, most likely zeros: `zero_grad(set_to_none=False)`."""
        versions = list(map(_version_of, self._views))
        if self.gradient.any():
            written = [bool(view.any()) for view in self._views]
            versions = [
                was if wrote else now
                for now, was, wrote in zip(versions, self._cleared, written, strict=True)
            ]
        self._remember(versions)

    def collect(self) -> list[int]:
        """Bring gradients in that were put elsewhere.

        Returns:
            Indices of the parameters that have received no gradient since `clear`.
        """
        self.leaf.grad = self.gradient
        if all(map(is_, map(_gradient_of, self.parameters), self._views)):
            return self._untouched()
        absent = self.absent()
        self._take_in()
        self._seen = None
        return absent

    def absent(self) -> list[int]:
        """Indices of the parameters without a gradient."""
        untouched = set(self._untouched())
        return [
            i
            for i, (parameter, view) in enumerate(zip(self.parameters, self._views, strict=True))
            if parameter.grad is None or (parameter.grad is view and i in untouched)
        ]

    def _untouched(self) -> list[int]:
        """Indices of the views that nothing was added to."""
        now = self._seen = list(map(_version_of, self._views))
        if self._alike is not None and now[0] != self._alike and now.count(now[0]) == len(now):
            return []  # one look at each, nearly always
        return [i for i, (version, was) in enumerate(zip(now, self._cleared, strict=True)) if version == was]

    def _remember(self, versions: list[int]) -> None:
        """These are the versions of views that have received nothing."""
        self._cleared = versions
        self._alike = versions[0] if versions.count(versions[0]) == len(versions) else None

    @torch.no_grad()
    def _take_in(self) -> None:
        """Copy gradients from elsewhere into their views, zeros for None, and attach the views."""
        views, gradients = [], []
        for parameter, view in zip(self.parameters, self._views, strict=True):
            gradient = parameter.grad
            if gradient is view:
                continue
            if gradient is None:
                view.zero_()
            else:
                views.append(view)
                gradients.append(gradient.to_dense() if gradient.is_sparse else gradient.detach())
            parameter.grad = view
        if views:
            torch._foreach_copy_(views, gradients)

    def touched(self) -> None:
        """Gradients were written through their views since `collect`."""
        self._seen = None

    def clear(self) -> None:
        """Forget all gradients."""
        if self._seen is None:
            for parameter, view in zip(self.parameters, self._views, strict=True):
                parameter.grad = view
        self._remember(self._seen or list(map(_version_of, self._views)))
        self._seen = None
        self.gradient.zero_()

    @torch.no_grad()
    def release(self) -> None:
        """Give every parameter, and its gradient if it has one, memory of its own again."""
        absent = set(self.absent())
        for i, (parameter, view) in enumerate(zip(self.parameters, self._views, strict=True)):
            if parameter.data_ptr() == self._addresses[i]:
                parameter.data = parameter.data.clone()
            if i in absent:
                parameter.grad = None
            elif parameter.grad is view:
                parameter.grad = view.clone()

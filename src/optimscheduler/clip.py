"""The norm of a gradient, and the factor that clips it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from optimscheduler.checks import number
from optimscheduler.errors import ConfigError
from optimscheduler.scalars import Scalar

__all__ = ["Clip", "total_norm"]

_ROW: Final = 16384  # elements
_NARROW: Final = (torch.float16, torch.bfloat16)
_LARGEST: Final = {dtype: math.sqrt(torch.finfo(dtype).max) for dtype in (torch.float32, torch.float64)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Clipping by the total norm of all owned gradients.

        factor = min(1, max_norm / (norm + 1e-6))

    Args:
        max_norm: the largest norm that is applied unchanged, > 0; None measures without clipping.
        norm_type: p of the p-norm, >= 1; `inf` or `"inf"` for the largest absolute value.

    Raises:
        ConfigError: a value is out of range.

    Reference: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063; the formula is
    `torch.nn.utils.clip_grad_norm_`'s.
    """

    max_norm: float | None = 1.0
    norm_type: float = 2.0

    def __post_init__(self) -> None:
        if self.max_norm is not None:
            object.__setattr__(self, "max_norm", number("grad_clip", self.max_norm, above=0))
        if self.norm_type in ("inf", math.inf):
            object.__setattr__(self, "norm_type", math.inf)
            return
        try:
            object.__setattr__(self, "norm_type", number("grad_norm_type", self.norm_type, least=1))
        except ConfigError as error:
            raise ConfigError(f"{error} ('inf' is allowed too)") from None

    def factor(self, norm: Scalar) -> Scalar:
        """What the gradient is multiplied by, at most 1; a 0-d tensor where `norm` is one."""
        if self.max_norm is None:
            return 1.0
        if not isinstance(norm, Tensor):
            return min(1.0, self.max_norm / (norm + 1e-6))
        return torch.clamp(self.max_norm / (norm + 1e-6), max=1.0)


def total_norm(blocks: Sequence[Tensor], norm_type: float, *, in_rows: bool = False) -> Tensor:
    """The p-norm of all blocks taken as one vector.

    Args:
        blocks: gradients of any shape, dtype and device; 16-bit ones are measured in float32.
        norm_type: p >= 1 or `inf`.
        in_rows: on a CPU, measure large blocks row by row. That takes half the time, and rounding costs
            1e-7 instead of 1e-5 at a million elements and 1e-3 at forty, but the last bits are not those of
            `torch.nn.utils.clip_grad_norm_`.

    Returns:
        A 0-d tensor, float32 or float64, on the first block's device; 0 if there is no block. Where its
        square is out of range it is inf, whatever p: optimizers square what they are given.
    """
    if len(blocks) == 1 and in_rows and blocks[0].numel() < 2 * _ROW:
        norm = _norm(blocks[0], norm_type, _width(blocks[0].dtype))
        squared = norm_type == 2.0 and blocks[0].numel() > 1  # on the way to the norm
        return norm if squared else _limited(norm, norm.dtype)
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for block in blocks:
        alike[block.device, block.dtype].append(block)
    if not alike:
        return torch.zeros(())
    norms: list[Tensor] = []
    for (device, dtype), tensors in alike.items():
        if in_rows and device.type == "cpu":
            tensors = [part for tensor in tensors for part in _rows(tensor, norm_type)]
        norms += torch._foreach_norm(tensors, norm_type, dtype=_width(dtype))
    narrowest = norms[0].dtype
    if len(alike) > 1:
        narrowest, *_, widest = sorted((n.dtype for n in norms), key=lambda dtype: dtype.itemsize)
        norms = [norm.to(blocks[0].device, widest) for norm in norms]
    norm = _norm(torch.stack(norms), norm_type)
    squared = norm_type == 2.0 and blocks[0].numel() + len(norms) > 2 and norm.dtype is narrowest
    return norm if squared else _limited(norm, narrowest)


def _limited(norm: Tensor, dtype: torch.dtype) -> Tensor:
    """The norm, or inf where numbers of that precision cannot hold its square."""
    return norm.masked_fill(norm > _LARGEST[dtype], math.inf)


def _rows(block: Tensor, norm_type: float) -> list[Tensor]:
    """The norms of its rows and what is left after the last whole one; a small block as it is."""
    count = block.numel() // _ROW
    if count < 2 or not block.is_contiguous():
        return [block]
    flat = block.view(-1)
    whole = flat[: count * _ROW].view(count, _ROW)
    rows = _norm(whole, norm_type, _width(block.dtype), dim=1)
    left = flat[count * _ROW :]
    return [rows, left] if left.numel() else [rows]


def _width(dtype: torch.dtype) -> torch.dtype | None:
    """The precision to measure in, where it is not that of the gradient."""
    return torch.float32 if dtype in _NARROW else None


def _norm(
    tensor: Tensor, norm_type: float, dtype: torch.dtype | None = None, dim: int | None = None
) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor, norm_type, dim, dtype=dtype)
    return norm

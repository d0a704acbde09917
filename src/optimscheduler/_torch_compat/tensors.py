"""Tensors: who holds their memory, who wrote to them, and one call for a list of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "copy_all_",
    "holders_of",
    "multiply_all_",
    "norms_of",
    "products_of",
    "update_scale_",
    "version_of",
]


def holders_of(storage: torch.UntypedStorage) -> int | None:
    """How many tensors and storages hold this memory, the caller's included; None where nobody can say."""
    try:
        return int(torch._C._storage_Use_Count(storage._cdata))
    except AttributeError:
        return None


def version_of(tensor: Tensor) -> int | None:
    """How often its memory was written to; None where torch does not say."""
    try:
        return tensor._version
    except (AttributeError, RuntimeError):  # the latter of tensors made in inference mode
        return None


def update_scale_(
    scale: Tensor, tracker: Tensor, found: Tensor, growth: float, backoff: float, interval: int
) -> None:
    """The rule of `torch.amp.GradScaler`, in place.

    Args:
        scale: 0-d, float32.
        tracker: 0-d, int32: finite windows in a row.
        found: 0-d, float32: more than 0 where a gradient was not finite.
        growth: factor after `interval` finite windows.
        backoff: factor after one that was not finite.
        interval: windows.
    """
    try:
        torch._amp_update_scale_(scale, tracker, found, growth, backoff, interval)
    except AttributeError:
        bad = found > 0
        count = torch.where(bad, 0, tracker + 1)
        grows = count == interval
        grown = torch.where((scale * growth).isfinite() & grows, scale * growth, scale)
        scale.copy_(torch.where(bad, scale * backoff, grown))
        tracker.copy_(torch.where(grows, 0, count))


def multiply_all_(tensors: Sequence[Tensor], factor: float | Tensor) -> None:
    """Multiply each in place by one number."""
    try:
        torch._foreach_mul_(list(tensors), factor)
    except AttributeError:
        for tensor in tensors:
            tensor.mul_(factor)


def products_of(tensors: Sequence[Tensor], factor: float) -> list[Tensor]:
    """Each times one number."""
    try:
        return list(torch._foreach_mul(list(tensors), factor))
    except AttributeError:
        return [tensor * factor for tensor in tensors]


def copy_all_(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its target."""
    try:
        torch._foreach_copy_(list(targets), list(sources))
    except AttributeError:
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)


def norms_of(tensors: Sequence[Tensor], norm_type: float, dtype: torch.dtype | None) -> list[Tensor]:
    """The p-norm of each, 0-d."""
    try:
        return list(torch._foreach_norm(list(tensors), norm_type, dtype=dtype))
    except AttributeError:
        return [torch.linalg.vector_norm(tensor, norm_type, dtype=dtype) for tensor in tensors]

"""Tensors: who holds their memory, who wrote to them, and one call for a list of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "clamp_all_",
    "copy_all_",
    "copy_of",
    "holders_of",
    "is_wrapper",
    "lerp_all_",
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


def is_wrapper(tensor: Tensor) -> bool:
    """Whether a tensor is made of other tensors, as quantised ones are; a sharded one is not meant."""
    return hasattr(tensor, "__tensor_flatten__") and not hasattr(tensor, "placements")


def copy_of(tensor: Tensor) -> Tensor:
    """A copy in memory of its own, also of tensors that are made of others and cannot be cloned.

    Raises:
        NotImplementedError: the class of the tensor allows neither.
    """
    if not is_wrapper(tensor):
        return tensor.clone()
    try:
        names, context = tensor.__tensor_flatten__()  # type: ignore[attr-defined]  # the wrappers' protocol
        inner = {name: copy_of(getattr(tensor, name)) for name in names}
        copied: Tensor = type(tensor).__tensor_unflatten__(inner, context, tensor.size(), tensor.stride())  # type: ignore[attr-defined]  # see above
    except (AttributeError, TypeError) as error:
        raise NotImplementedError(f"{type(tensor).__name__} cannot be copied: {error}") from error
    return copied


def clamp_all_(tensors: Sequence[Tensor], most: float) -> None:
    """Bring every element of each into [-most, most], in place."""
    try:
        torch._foreach_clamp_min_(list(tensors), -most)
        torch._foreach_clamp_max_(list(tensors), most)
    except AttributeError:
        for tensor in tensors:
            tensor.clamp_(-most, most)


def lerp_all_(targets: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """Move each target to its end by that part of the way, 0 to 1."""
    try:
        torch._foreach_lerp_(list(targets), list(ends), weight)
    except AttributeError:
        for target, end in zip(targets, ends, strict=True):
            target.lerp_(end, weight)

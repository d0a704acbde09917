"""The norm of a gradient, and the factor that clips it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, overload

import torch
from torch import Tensor

from optimscheduler._torch_compat import norms_of
from optimscheduler.checks import number
from optimscheduler.errors import ConfigError, nearest
from optimscheduler.scalars import Scalar
from optimscheduler.update.limits import Adaptive, ByValue, Limit, Unlimited

__all__ = ["Clip", "clip_for", "narrowest", "total_norm"]

_KEYS: Final = ("norm", "value", "agc", "eps")
_FORMS: Final = "a number, null, {norm: 1.0}, {value: 0.5} or {agc: 0.01}"

_ROW: Final = 16384  # elements
_NARROW: Final = (torch.float16, torch.bfloat16)
_RANGE: Final = {
    torch.float16: torch.float16,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.complex64: torch.float32,
    torch.float64: torch.float64,
    torch.complex128: torch.float64,
}
"""A real type that holds numbers as large."""

_LARGEST_SQUARABLE: Final = {dtype: math.sqrt(torch.finfo(dtype).max) for dtype in set(_RANGE.values())}
"""The largest number whose square is within range."""

_SMALLEST: Final = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Clipping by the total norm of all owned gradients.

        factor = min(1, max_norm / (norm + 1e-6))

    Args:
        max_norm: the largest norm that is applied unchanged, > 0; None measures without clipping.
        norm_type: p of the p-norm, >= 1; `inf` or `"inf"` for the largest absolute value.
        limit: what clips part by part before; the norm that is clipped is that of what it leaves.

    Raises:
        ConfigError: a value is out of range.

    Reference: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063; the formula is
    `torch.nn.utils.clip_grad_norm_`'s.
    """

    max_norm: float | None = 1.0
    norm_type: float = 2.0
    limit: Limit = field(default_factory=Unlimited)

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

    @property
    def written(self) -> float | dict[str, float] | None:
        """As `clip_for` reads it."""
        parts = self.limit.written()
        if not parts:
            return self.max_norm
        return parts if self.max_norm is None else {"norm": self.max_norm, **parts}

    def applied(self, norm: Scalar, divisor: Scalar, dtype: torch.dtype) -> Scalar:
        """The norm of the gradient as it will be applied, before clipping.

        Args:
            norm: of the gradient before it is divided.
            divisor: what is left to divide it by; NaN comes of one that float32 does not hold.
            dtype: see `narrowest`.

        Returns:
            norm / divisor; inf where an optimizer that keeps numbers of that dtype would get one by
            squaring what it is given. Clipping keeps a gradient small enough for float16.
        """
        if dtype is torch.float16 and self._largest <= _LARGEST_SQUARABLE[dtype]:
            dtype = torch.float32
        if isinstance(divisor, Tensor):
            within = False
        else:
            divisor = divisor if divisor > _SMALLEST else math.nan
            within = divisor >= 1.0 and dtype is not torch.float16  # as `total_norm` has seen
        norm = norm / divisor
        return norm if within else _limited(norm, dtype)

    @property
    def _largest(self) -> float:
        """No element is larger than this when it is applied."""
        return min(self.limit.largest, math.inf if self.max_norm is None else self.max_norm)

    def factor(self, norm: Scalar) -> Scalar:
        """What the gradient is multiplied by, at most 1; a 0-d tensor where `norm` is one."""
        if self.max_norm is None:
            return 1.0
        if not isinstance(norm, Tensor):
            return min(1.0, self.max_norm / (norm + 1e-6))
        return torch.clamp(self.max_norm / (norm + 1e-6), max=1.0)


def clip_for(grad_clip: object, norm_type: object) -> Clip:
    """The clipping that a configuration asks for.

    Args:
        grad_clip: the largest norm, or None; or a mapping with `norm`, and `value` or `agc` and `eps`: see
            `ByValue` and `Adaptive`.
        norm_type: p of the norm.

    Raises:
        ConfigError: anything else.

    >>> clip_for({"value": 0.5, "norm": 1}, 2).written
    {'norm': 1.0, 'value': 0.5}
    """
    kind: Any = norm_type  # Any: checked in there, as is the norm
    if not isinstance(grad_clip, Mapping):
        norm: Any = grad_clip
        return Clip(max_norm=norm, norm_type=kind)
    for key in grad_clip:
        if key not in _KEYS:
            raise ConfigError(f"grad_clip: unknown key {key!r:.80}. {nearest(key, _KEYS)}")
    if not set(grad_clip) & {"norm", "value", "agc"}:
        raise ConfigError(f"grad_clip must be {_FORMS}, got {dict(grad_clip)!r:.80}")
    limit = _limit_for({key: value for key, value in grad_clip.items() if key != "norm"})
    return Clip(max_norm=grad_clip.get("norm"), norm_type=kind, limit=limit)


def _limit_for(parts: Mapping[str, Any]) -> Limit:
    if "value" in parts and "agc" in parts:
        raise ConfigError(
            "grad_clip: give value or agc, not both; a norm may stand beside either, and comes after it"
        )
    if "eps" in parts and "agc" not in parts:
        raise ConfigError(
            "grad_clip: eps is what weights count at least in agc; write {agc: 0.01, eps: 1e-3}"
        )
    if "agc" in parts:
        return Adaptive(**parts)
    return ByValue(**parts) if parts else Unlimited()


def total_norm(
    blocks: Sequence[Tensor], norm_type: float, *, in_rows: bool = False
) -> tuple[Tensor, torch.dtype]:
    """The p-norm of all blocks taken as one vector.

    Args:
        blocks: gradients of any shape, dtype and device; 16-bit ones are measured in float32.
        norm_type: p >= 1 or `inf`.
        in_rows: on a CPU, measure large blocks row by row. That takes half the time, and rounding costs
            1e-7 instead of 1e-5 at a million elements and 1e-3 at forty, but the last bits are not those of
            `torch.nn.utils.clip_grad_norm_`.

    Returns:
        A 0-d tensor, float32 or float64, on the first block's device; 0 if there is no block. Where its
        square is out of range it is inf, whatever p: optimizers square what they are given. And the
        `narrowest` of the blocks.
    """
    if len(blocks) == 1 and in_rows and blocks[0].numel() < 2 * _ROW:
        norm = _norm(blocks[0], norm_type, _width(blocks[0].dtype))
        squared = norm_type == 2.0 and blocks[0].numel() > 1  # on the way to the norm
        return (norm if squared else _limited(norm, norm.dtype)), _RANGE[blocks[0].dtype]
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for block in blocks:
        alike[block.device, block.dtype].append(block)
    if not alike:
        return torch.zeros(()), torch.float32
    norms: list[Tensor] = []
    for (device, dtype), tensors in alike.items():
        if in_rows and device.type == "cpu":
            tensors = [part for tensor in tensors for part in _rows(tensor, norm_type)]
        norms += norms_of(tensors, norm_type, _width(dtype))
    measured = norms[0].dtype
    if len(alike) > 1:
        measured, *_, widest = sorted((n.dtype for n in norms), key=lambda dtype: dtype.itemsize)
        norms = [norm.to(blocks[0].device, widest) for norm in norms]
    norm = _norm(torch.stack(norms), norm_type)
    squared = norm_type == 2.0 and blocks[0].numel() + len(norms) > 2 and norm.dtype is measured
    return (norm if squared else _limited(norm, measured)), narrowest(dtype for _, dtype in alike)


def narrowest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The one of float16, float32 and float64 whose range is the smallest of these; float32 for none.

    >>> narrowest([torch.float64, torch.bfloat16])
    torch.float32
    """
    return min((_RANGE[dtype] for dtype in dtypes), key=_LARGEST_SQUARABLE.__getitem__, default=torch.float32)


@overload
def _limited(norm: Tensor, dtype: torch.dtype) -> Tensor: ...


@overload
def _limited(norm: Scalar, dtype: torch.dtype) -> Scalar: ...


def _limited(norm: Scalar, dtype: torch.dtype) -> Scalar:
    """The norm, or inf where numbers of that precision cannot hold its square."""
    limit = _LARGEST_SQUARABLE[dtype]
    if isinstance(norm, Tensor):
        return norm.masked_fill(norm > limit, math.inf)
    return math.inf if norm > limit else norm


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

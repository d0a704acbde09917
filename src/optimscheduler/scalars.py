"""Numbers and decisions that may be on a device, where looking at them would mean to wait for it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Flag", "Scalar", "is_finite", "is_not", "on_device", "seen"]

Scalar = float | Tensor
"""A number, or a 0-d tensor that stays on its device."""

Flag = bool | Tensor
"""A decision, or a 0-d bool tensor that stays on its device."""


def seen(value: Scalar) -> Scalar:
    """The number, where looking costs nothing: with Python's numbers arithmetic is ten times faster."""
    return value.item() if isinstance(value, Tensor) and value.device.type == "cpu" else value


def is_finite(value: Scalar) -> Flag:
    """Neither NaN nor infinite."""
    return value.isfinite() if isinstance(value, Tensor) else math.isfinite(value)


def is_not(flag: Flag) -> Flag:
    """The opposite."""
    return ~flag if isinstance(flag, Tensor) else not flag


def on_device(value: Scalar | Flag, device: torch.device) -> Tensor:
    """As a 0-d float32 tensor there; the host does not wait, as it would to copy a number to a device."""
    if isinstance(value, Tensor):
        return value.to(device, torch.float32)
    return torch.full((), value, dtype=torch.float32, device=device)

"""The training loop of the textbook: what every shortcut of the package is held against.

Gradients are summed over a window, divided once by the number of its batches, clipped, applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Any],
    *,
    loss_of: Callable[[nn.Module, Any], Tensor],
    lr: Callable[[int], float],
    accum_grad: int = 1,
    grad_clip: float = 1.0,
) -> list[float]:
    """Train on `batches` in windows of `accum_grad`, the last one maybe short; returns the gradient norms."""
    norms = []
    windows = [batches[start : start + accum_grad] for start in range(0, len(batches), accum_grad)]
    for real_step, window in enumerate(windows, start=1):
        for batch in window:
            loss_of(model, batch).backward()
        parameters = [p for p in model.parameters() if p.grad is not None]
        for parameter in parameters:
            parameter.grad.mul_(1 / len(window))
        norm = nn.utils.clip_grad_norm_(parameters, grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = lr(real_step)
        if norm.isfinite():
            optimizer.step()
        optimizer.zero_grad()
        norms.append(norm.item())
    return norms

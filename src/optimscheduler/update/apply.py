"""Move the weights by (gradient x clip factor / divisor), or not at all.

Two kernels with the same contract:

- `Plain` works with any optimizer: it divides the gradients in place, then multiplies them by the
  clip factor, then calls `optimizer.step()`. Bit for bit what a hand-written loop does.
- `Fused` hands clip factor and divisor to the optimizer's fused kernel as one number, so that the
  gradients are read once and never written. Whether the update happens is decided on the device.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import SGD, Optimizer

from optimscheduler._torch_compat import bare_step, multiply_all_, step_fused_adam, takes_scale
from optimscheduler.gradients import Gradients
from optimscheduler.scalars import Flag, Scalar, is_not, on_device, seen

__all__ = ["Fused", "Kernel", "Plain", "kernel_for", "take_step"]


class Kernel(Protocol):
    """How an update is carried out."""

    def divide(self, gradients: Gradients, divisor: Scalar) -> Scalar:
        """Divide the gradients now, or leave it for `apply`; returns what is left to divide by."""

    def apply(self, gradients: Gradients, factor: Scalar, divisor: Scalar, accepted: Flag) -> None:
        """Update the weights by gradient x factor / divisor, if `accepted`."""


def kernel_for(optimizer: Optimizer, *, watched: bool = False) -> Kernel:
    """`Fused` where the optimizer says that its kernel takes a scale and a decision, otherwise `Plain`.

    Args:
        optimizer: that is to be stepped.
        watched: somebody looks at its gradients before, or at what it has done after: they are to see the
            gradients as they are applied.
    """
    dampened = isinstance(optimizer, SGD) and any(group["dampening"] for group in optimizer.param_groups)
    return Plain(optimizer) if watched or dampened or not takes_scale(optimizer) else Fused(optimizer)


class Plain:
    """Any optimizer. On an accelerator the decision costs one synchronisation per update."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def divide(self, gradients: Gradients, divisor: Scalar) -> Scalar:
        """Divide in place; nothing is left."""
        if isinstance(divisor, Tensor) or divisor != 1.0:
            multiply_all_(gradients.blocks(), 1.0 / divisor)
        return 1.0

    def apply(self, gradients: Gradients, factor: Scalar, divisor: Scalar, accepted: Flag) -> None:  # noqa: ARG002  # the protocol's
        """Clip in place, then let the optimizer step."""
        if not accepted:
            return
        factor = seen(factor)
        if isinstance(factor, Tensor) or factor != 1.0:
            multiply_all_(gradients.blocks(), factor)
        take_step(self.optimizer)
        fused = any(group.get("fused") for group in self.optimizer.param_groups)
        unnoticed = gradients.parameters if fused else gradients.moved_elsewhere
        if unnoticed:
            increment_version(unnoticed)  # else a stale graph over them would not fail


class Fused:
    """Optimizers of torch with `fused=True`."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def divide(self, gradients: Gradients, divisor: Scalar) -> Scalar:  # noqa: ARG002  # the protocol's
        """The kernel will."""
        return divisor

    def apply(self, gradients: Gradients, factor: Scalar, divisor: Scalar, accepted: Flag) -> None:
        """One call of the fused kernel, which divides by `grad_scale` and obeys `found_inf`."""
        blocks = gradients.blocks()
        near = blocks[0].device.type == "cpu"  # looking costs nothing there
        if near and not accepted:
            return
        scale = divisor / factor if isinstance(factor, Tensor) or factor else math.inf
        if any(block.dtype is torch.float64 for block in blocks):  # the kernel's is too coarse for these
            multiply_all_(blocks, factor / divisor)
            scale = 1.0
        device = blocks[0].device
        self._create_momentum()
        if near:
            self._step(None if seen(scale) == 1.0 else on_device(scale, device), None)
        else:
            self._step(on_device(scale, device), on_device(is_not(accepted), device))
        increment_version(gradients.parameters)  # fused kernels do not, and a stale graph must fail loudly

    def _step(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        if step_fused_adam(self.optimizer, grad_scale, found_inf):
            return
        self.optimizer.grad_scale = grad_scale  # type: ignore[attr-defined]  # torch's own protocol
        self.optimizer.found_inf = found_inf  # type: ignore[attr-defined]
        try:
            take_step(self.optimizer)
        finally:
            del self.optimizer.grad_scale  # type: ignore[attr-defined]
            del self.optimizer.found_inf  # type: ignore[attr-defined]

    def _create_momentum(self) -> None:
        """Zeros for fused SGD: it fails where only some exist, and a refused first step leaves them unset."""
        if not isinstance(self.optimizer, SGD):
            return
        for group in self.optimizer.param_groups:
            for p in group["params"] if group["momentum"] else ():
                if p.grad is not None and self.optimizer.state[p].get("momentum_buffer") is None:
                    self.optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)


def take_step(optimizer: Optimizer) -> None:
    """`optimizer.step()`, less what torch wraps around it where nobody needs that."""
    step = bare_step(optimizer)
    if step is None:
        optimizer.step()
    else:
        step(optimizer)

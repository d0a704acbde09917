"""Move the weights by (gradient x clip factor / divisor), or not at all.

Two kernels with the same contract:

- `Plain` works with any optimizer: it divides the gradients in place, then multiplies them by the
  clip factor, then calls `optimizer.step()`. Bit for bit what a hand-written loop does.
- `Fused` hands clip factor and divisor to the optimizer's fused kernel as one number, so that the
  gradients are read once and never written. Whether the update happens is decided on the device.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import SGD, Optimizer

from optimscheduler.gradients import Gradients
from optimscheduler.window import Scalar

__all__ = ["Fused", "Kernel", "Plain", "kernel_for"]


class Kernel(Protocol):
    """How an update is carried out."""

    def divide(self, gradients: Gradients, divisor: Scalar) -> Scalar:
        """Divide the gradients now, or leave it for `apply`; returns what is left to divide by."""

    def apply(self, gradients: Gradients, factor: Tensor, divisor: Scalar, accepted: Tensor) -> None:
        """Update the weights by gradient x factor / divisor if `accepted`, a 0-d bool tensor."""


def kernel_for(optimizer: Optimizer) -> Kernel:
    """`Fused` where the optimizer says that its kernel takes a scale and a decision, otherwise `Plain`."""
    takes_scale = getattr(optimizer, "_step_supports_amp_scaling", False)  # the mark that GradScaler reads
    dampened = isinstance(optimizer, SGD) and any(group["dampening"] for group in optimizer.param_groups)
    return Fused(optimizer) if takes_scale and not dampened else Plain(optimizer)


class Plain:
    """Any optimizer. On an accelerator the decision costs one synchronisation per update."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def divide(self, gradients: Gradients, divisor: Scalar) -> Scalar:
        """Divide in place; nothing is left."""
        if isinstance(divisor, Tensor) or divisor != 1.0:
            torch._foreach_mul_(gradients.blocks(), 1.0 / divisor)
        return 1.0

    def apply(self, gradients: Gradients, factor: Tensor, divisor: Scalar, accepted: Tensor) -> None:  # noqa: ARG002  # the protocol's
        """Clip in place, then let the optimizer step."""
        if not accepted:
            return
        if factor.device.type != "cpu" or factor.item() != 1.0:
            torch._foreach_mul_(gradients.blocks(), factor)
        self.optimizer.step()
        if gradients.moved_elsewhere:
            increment_version(gradients.moved_elsewhere)  # else a stale graph over them would not fail


class Fused:
    """Optimizers of torch with `fused=True`."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def divide(self, gradients: Gradients, divisor: Scalar) -> Scalar:  # noqa: ARG002  # the protocol's
        """The kernel will."""
        return divisor

    def apply(self, gradients: Gradients, factor: Tensor, divisor: Scalar, accepted: Tensor) -> None:
        """One call of the fused kernel, which divides by `grad_scale` and obeys `found_inf`."""
        scale = (divisor / factor).float()
        if factor.dtype is torch.float64:  # the kernel's scale is a float32: too coarse for these
            torch._foreach_mul_(gradients.blocks(), factor / divisor)
            scale = torch.ones_like(scale)
        if factor.device.type == "cpu":  # looking costs nothing here
            if not accepted:
                return
            self._step(None if scale.item() == 1.0 else scale, None)
        else:
            self._create_momentum()
            self._step(scale, (~accepted).float())
        increment_version(gradients.parameters)  # fused kernels do not, and a stale graph must fail loudly

    def _step(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        self.optimizer.grad_scale = grad_scale  # type: ignore[attr-defined]  # torch's own protocol
        self.optimizer.found_inf = found_inf  # type: ignore[attr-defined]
        try:
            self.optimizer.step()
        finally:
            del self.optimizer.grad_scale  # type: ignore[attr-defined]
            del self.optimizer.found_inf  # type: ignore[attr-defined]

    def _create_momentum(self) -> None:
        """Fused SGD, refused at its very first step, would leave its buffers uninitialised."""
        if not isinstance(self.optimizer, SGD):
            return
        for group in self.optimizer.param_groups:
            for p in group["params"] if group["momentum"] else ():
                if p.grad is not None and self.optimizer.state[p].get("momentum_buffer") is None:
                    self.optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)

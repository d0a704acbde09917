"""Move the weights by (gradient x clip factor / divisor), or not at all.

Two kernels with the same contract:

- `Plain` works with any optimizer: it divides the gradients in place, then multiplies them by the
  clip factor, then calls `optimizer.step()`. Bit for bit what a hand-written loop does.
- `Fused` hands clip factor and divisor to the optimizer's fused kernel as one number, so that the
  gradients are read once and never written. Whether the update happens is decided on the device.
"""

from __future__ import annotations

import functools
import inspect
import math
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import profiler
from torch.autograd.graph import increment_version
from torch.optim import SGD, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from optimscheduler.gradients import Gradients
from optimscheduler.scalars import Flag, Scalar, is_not, on_device, seen

__all__ = ["Fused", "Kernel", "Plain", "kernel_for", "take_step"]


_unwrapped = functools.cache(inspect.unwrap)


class Kernel(Protocol):
    """How an update is carried out."""

    def divide(self, gradients: Gradients, divisor: Scalar) -> Scalar:
        """Divide the gradients now, or leave it for `apply`; returns what is left to divide by."""

    def apply(self, gradients: Gradients, factor: Scalar, divisor: Scalar, accepted: Flag) -> None:
        """Update the weights by gradient x factor / divisor, if `accepted`."""


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

    def apply(self, gradients: Gradients, factor: Scalar, divisor: Scalar, accepted: Flag) -> None:  # noqa: ARG002  # the protocol's
        """Clip in place, then let the optimizer step."""
        if not accepted:
            return
        factor = seen(factor)
        if isinstance(factor, Tensor) or factor != 1.0:
            torch._foreach_mul_(gradients.blocks(), factor)
        take_step(self.optimizer)
        if gradients.moved_elsewhere:
            increment_version(gradients.moved_elsewhere)  # else a stale graph over them would not fail


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
            torch._foreach_mul_(blocks, factor / divisor)
            scale = 1.0
        device = blocks[0].device
        if near:
            self._step(None if seen(scale) == 1.0 else on_device(scale, device), None)
        else:
            self._create_momentum()
            self._step(on_device(scale, device), on_device(is_not(accepted), device))
        increment_version(gradients.parameters)  # fused kernels do not, and a stale graph must fail loudly

    def _step(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        self.optimizer.grad_scale = grad_scale  # type: ignore[attr-defined]  # torch's own protocol
        self.optimizer.found_inf = found_inf  # type: ignore[attr-defined]
        try:
            take_step(self.optimizer)
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


def take_step(optimizer: Optimizer) -> None:
    """`optimizer.step()`, less what torch wraps around it where nobody needs that.

    The wrappers serve hooks, profilers, the compiler, and callers who have not disabled gradients; they take
    a tenth of the whole step of a tiny model.
    """
    step = type(optimizer).step
    needed = (
        not getattr(step, "hooked", False)  # torch's mark of its wrapper
        or torch.is_grad_enabled()
        or "step" in vars(optimizer)  # a learning-rate scheduler has replaced it
        or profiler._is_profiler_enabled
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
        or optimizer.defaults.get("differentiable")
        or not type(optimizer).__module__.startswith("torch.optim.")
    )
    if needed:
        optimizer.step()
    else:
        _unwrapped(step)(optimizer)

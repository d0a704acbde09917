"""The contestants: one training step each, written as its documentation recommends.

A step is forward, backward, clipping at 1.0, a look whether the norm is finite, the learning rate of that
step written, AdamW, gradients cleared. All are given the fused AdamW but the origin, which takes torch's
default.
"""

# ruff: noqa: D102 -- what a step does is said by its class, what before, learn and step are for by `Loop`

from __future__ import annotations

import math
from copy import deepcopy
from typing import Final

import torch
from torch import Tensor, nn

from benchmarks.models import Workload

LR: Final = 1e-3
EPS: Final = 1e-6  # gradients that are rounding noise move nothing, so that loops can be compared
CLIP: Final = 1.0
WARMUP: Final = 4


def noam(step: int) -> float:
    """The learning rate of a step, from 1."""
    return LR * min(math.sqrt(WARMUP / step), step / WARMUP)


class Loop:
    """A copy of the workload's model, and the steps taken with it.

    Args:
        workload: its model is copied.
    """

    trains = True  # whether it should reach the weights that the loop by hand reaches

    def __init__(self, workload: Workload) -> None:
        self.model = deepcopy(workload.model)
        self.number = 0
        self._batches = workload.batches
        self._parameters = list(self.model.parameters())

    def before(self) -> None:
        """What precedes a step and is not timed."""

    def step(self) -> None:
        """What is timed."""
        self.number += 1
        self.learn(self._batches[self.number % len(self._batches)])

    def learn(self, batch: object) -> None:
        """One training step."""
        raise NotImplementedError

    def adamw(self, **settings: object) -> torch.optim.AdamW:
        """The optimizer of the model."""
        return torch.optim.AdamW(self._parameters, lr=LR, eps=EPS, **settings)

    def write_lr(self, optimizer: torch.optim.Optimizer) -> None:
        """The learning rate of this step."""
        for group in optimizer.param_groups:
            group["lr"] = noam(self.number)

    def drop(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None


class Bare(Loop):
    """Forward and backward alone; the gradients are dropped."""

    trains = False

    def learn(self, batch: object) -> None:
        self.model(batch)["loss"].backward()
        self.drop()


class ByHand(Loop):
    """The best that can be written by hand with torch's public interface."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self._optimizer = self.adamw(fused=True)

    def learn(self, batch: object) -> None:
        self.model(batch)["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, CLIP, foreach=True)
        if self.finite(norm):
            self.write_lr(self._optimizer)
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def finite(self, norm: Tensor) -> bool:
        """Whether the step may be taken."""
        return bool(torch.isfinite(norm))


class Unchecked(ByHand):
    """The same without the look at the norm, for which an accelerator would have to be waited for."""

    def finite(self, norm: Tensor) -> bool:  # noqa: ARG002  # the base class's
        return True


class Origin(Loop):
    """SpeeChain's step: torch's defaults everywhere, parameters walked anew each time."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self._optimizer = self.adamw()

    def learn(self, batch: object) -> None:
        loss = self.model(batch)["loss"]
        loss /= 1  # batches per update
        loss.backward()
        self.write_lr(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=CLIP, norm_type=2.0)
        if torch.isfinite(norm):
            self._optimizer.step()
        self._optimizer.zero_grad()


class WithAccelerate(Loop):
    """Accelerate: `prepare`, `backward`, `clip_grad_norm_`."""

    def __init__(self, workload: Workload) -> None:
        from accelerate import Accelerator

        super().__init__(workload)
        self._accelerator = Accelerator(cpu=True)
        self._wrapped, self._optimizer = self._accelerator.prepare(self.model, self.adamw(fused=True))

    def learn(self, batch: object) -> None:
        self._accelerator.backward(self._wrapped(batch)["loss"])
        norm = self._accelerator.clip_grad_norm_(self._wrapped.parameters(), CLIP)
        if torch.isfinite(norm):
            self.write_lr(self._optimizer)
            self._optimizer.step()
        self._optimizer.zero_grad()


class WithFabric(Loop):
    """Fabric: `setup`, `backward`, `clip_gradients`, which looks at the norm itself."""

    def __init__(self, workload: Workload) -> None:
        from lightning_fabric import Fabric

        super().__init__(workload)
        self._fabric = Fabric(accelerator="cpu", devices=1)
        self._wrapped, self._optimizer = self._fabric.setup(self.model, self.adamw(fused=True))

    def learn(self, batch: object) -> None:
        self._fabric.backward(self._wrapped(batch)["loss"])
        self._fabric.clip_gradients(self._wrapped, self._optimizer, max_norm=CLIP)
        self.write_lr(self._optimizer)
        self._optimizer.step()
        self._optimizer.zero_grad()


class WithMMEngine(Loop):
    """MMEngine: an `OptimWrapper` with `clip_grad`; it has no check of the norm without a loss scale."""

    def __init__(self, workload: Workload) -> None:
        from mmengine.optim import OptimWrapper

        super().__init__(workload)
        self._optim = OptimWrapper(self.adamw(fused=True), clip_grad={"max_norm": CLIP})

    def learn(self, batch: object) -> None:
        with self._optim.optim_context(self.model):
            losses = self.model(batch)
        self.write_lr(self._optim.optimizer)
        self._optim.update_params(losses["loss"])


class Ours(Loop):
    """optimscheduler."""

    use_amp: bool | str = False

    def __init__(self, workload: Workload) -> None:
        from optimscheduler import OptimScheduler

        super().__init__(workload)
        self.optim = OptimScheduler(
            optim_type="AdamW",
            optim_conf={"lr": LR, "eps": EPS},
            model=self.model,
            use_amp=self.use_amp,
            grad_clip=CLIP,
            schedule=f"Noam(warmup_steps={WARMUP})",
        )

    def learn(self, batch: object) -> None:
        with self.optim.forward():
            losses = self.model(batch)
        self.optim.step(losses)


class OursStepAlone(Ours):
    """`optim.step(losses)` alone, its backward included."""

    def before(self) -> None:
        with self.optim.forward():
            self._losses = self.model(self._batches[0])

    def step(self) -> None:
        self.optim.step(self._losses)


class BackwardAlone(Loop):
    """`loss.backward()` alone; forward and the dropping of gradients are not timed."""

    trains = False

    def before(self) -> None:
        self.drop()
        self._loss = self.model(self._batches[0])["loss"]

    def step(self) -> None:
        self._loss.backward()


class AdamWAlone(Loop):
    """A bare fused AdamW step: gradients lie ready and stay, no norm, no clearing, no learning rate."""

    trains = False

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self._optimizer = self.adamw(fused=True)
        self.model(self._batches[0])["loss"].backward()

    def step(self) -> None:
        self._optimizer.step()


class Stream(Loop):
    """Read, multiply and write the parameters in place: 8 bytes per float32."""

    trains = False

    @torch.no_grad()
    def step(self) -> None:
        self._parameters[0].mul_(0.9999)

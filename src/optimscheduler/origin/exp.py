"""`ExponentDecayLr`: the learning rate falls by a constant factor from epoch to epoch."""

from __future__ import annotations

from optimscheduler.api.optim_scheduler import OptimScheduler
from optimscheduler.checks import number

__all__ = ["ExponentDecayLr"]


class ExponentDecayLr(OptimScheduler):
    """Exponential decay by epochs.

        lr(epoch) = base * decay_factor ** (epoch - 1)

    Args:
        decay_factor: factor per epoch, in (0, 1].

    >>> from torch import nn
    >>> optim = ExponentDecayLr("SGD", {"lr": 1.0}, nn.Linear(2, 1), use_amp=False, decay_factor=0.5)
    >>> [optim.update_lr(real_step=1, epoch_num=epoch) for epoch in (1, 2, 3)]
    [1.0, 0.5, 0.25]
    """

    def sche_init(self, decay_factor: float = 0.999) -> None:
        """Check and keep the argument."""
        self.decay_factor = number("ExponentDecayLr: decay_factor", decay_factor, above=0, most=1)
        self.init_lr = self.get_lr()

    def update_lr(self, real_step: int, epoch_num: int) -> float:  # noqa: ARG002  # the hook's signature
        """The formula of the class."""
        return self.init_lr * self.decay_factor ** (epoch_num - 1)

    def extra_repr_fn(self) -> str:
        """The argument."""
        return f"decay_factor={self.decay_factor}"

"""Write the learning rate into the optimizer's groups, each in proportion to its own base."""

from __future__ import annotations

from torch.optim import Optimizer

__all__ = ["Values"]


class Values:
    """The learning rate of every group.

        lr_g = ft_factor * lr * base_g / base

    Args:
        optimizer: freshly built, so that its groups hold their base values.
        base_lr: the base value, `optim_conf["lr"]`, > 0.
        ft_factor: a constant factor for fine-tuning.
    """

    def __init__(self, optimizer: Optimizer, base_lr: float, ft_factor: float) -> None:
        self._optimizer = optimizer
        self._ratios = [group["lr"] / base_lr for group in optimizer.param_groups]
        self._written = False
        self.base_lr = base_lr
        self.ft_factor = ft_factor

    @property
    def lr(self) -> float:
        """What the first group holds; before the first update the base value."""
        return float(self._optimizer.param_groups[0]["lr"]) if self._written else self.base_lr

    def write(self, lr: float) -> None:
        """Write a new learning rate: that of a group with the base value, before `ft_factor`."""
        self._written = True
        for group, ratio in zip(self._optimizer.param_groups, self._ratios, strict=True):
            group["lr"] = self.ft_factor * lr * ratio

    def loaded(self) -> None:
        """The groups hold the learning rates of a saved run."""
        self._written = True

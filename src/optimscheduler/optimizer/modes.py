"""The modes of optimizers that have some, as schedule-free ones do: `train()` and `eval()`.

Such an optimizer keeps the weights at another place while it trains than where they are to be used. Its
`train()` and `eval()` move them from one place to the other.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from optimscheduler.errors import ConfigError

__all__ = ["check_trains", "has_modes", "set_mode"]

_FLAG = "train_mode"  # of the groups of all that are known


def has_modes(optimizer: Optimizer) -> bool:
    """Whether an optimizer has `train()` and `eval()`."""
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


def set_mode(optimizer: Optimizer, *, train: bool) -> None:
    """Call its `train()` or `eval()`; an optimizer without them is left alone.

    Args:
        optimizer: the user's.
        train: for training; False is for everything else: validation, sampling, files of weights.
    """
    if has_modes(optimizer):
        moded: Any = optimizer  # torch's class has no modes
        moded.train() if train else moded.eval()


def check_trains(optimizer: Optimizer, name: str) -> None:
    """Check that an optimizer with modes is in the one for training.

    Args:
        optimizer: with modes.
        name: of its member, for people.

    Raises:
        ConfigError: it says that it is not. One that does not say it, sees to it itself.
    """
    if any(group.get(_FLAG) is False for group in optimizer.param_groups):
        raise ConfigError(
            f"{type(optimizer).__name__} of OptimScheduler {name!r} is not in its training mode, so the "
            "weights are not those that it trains. Call train() of the OptimScheduler (or of the dict) "
            "before training, and after each eval()"
        )

"""The hook that says the learning rate of an update, and the check of what it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from optimscheduler.errors import ConfigError

__all__ = ["LrHook"]


@dataclass(frozen=True, slots=True)
class LrHook:
    """`update_lr` of an OptimScheduler or of a subclass.

    Attributes:
        name: for people, `"Noamlr.update_lr"`.
        ask: called with `real_step` and `epoch_num`. Any: a user's class may return whatever it likes.
    """

    name: str
    ask: Callable[..., Any]

    def at(self, step: int, epoch: int) -> float:
        """The learning rate of a step in an epoch.

        Raises:
            ConfigError: what was returned is no finite number >= 0.
        """
        lr = self.ask(real_step=step, epoch_num=epoch)
        if isinstance(lr, Tensor):
            lr = lr.item()
        if isinstance(lr, bool) or not isinstance(lr, int | float) or not math.isfinite(lr) or lr < 0:
            raise ConfigError(
                f"{self.name}(real_step={step}, epoch_num={epoch}) returned {lr!r}; "
                "a learning rate is a finite number >= 0"
            )
        return lr

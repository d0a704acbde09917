"""Which checkpoints stay: the newest, and the best by a number of the held-out data."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optimscheduler.errors import nearest

__all__ = ["Retention"]

_log = logging.getLogger("optimscheduler")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many checkpoints stay.

    Attributes:
        newest: so many of the newest, >= 1.
        best: so many of the best, >= 0; one can be both.
        monitor: name of the output of the model, averaged over the held-out data, that says which is better.
        mode: whether the smallest (`"min"`) or the largest (`"max"`) is the best.
    """

    newest: int = 2
    best: int = 0
    monitor: str = "loss"
    mode: str = "min"

    def kept(self, metrics: Sequence[tuple[str, Mapping[str, float] | None]]) -> set[str]:
        """The names of those that stay.

        Args:
            metrics: name and means of every checkpoint, oldest first; None where it was not validated.

        >>> retention = Retention(newest=1, best=1)
        >>> sorted(retention.kept([("a", {"loss": 1.0}), ("b", {"loss": 2.0}), ("c", None)]))
        ['a', 'c']
        """
        newest = {name for name, _ in metrics[-self.newest :]}
        sign = 1.0 if self.mode == "min" else -1.0
        ranked = sorted(
            (sign * means[self.monitor], -at, name)  # of two that are equal the newer one
            for at, (name, means) in enumerate(metrics)
            if means and math.isfinite(means.get(self.monitor, math.nan))
        )
        return newest | {name for *_, name in ranked[: self.best]}

    def check(self, means: Mapping[str, float]) -> None:
        """Warn if the number is not among those that there are."""
        if self.best and self.monitor not in means:
            _log.warning(
                "monitor: the means over the held-out data have no %r, so keep_best keeps nothing. %s",
                self.monitor,
                nearest(self.monitor, means),
            )

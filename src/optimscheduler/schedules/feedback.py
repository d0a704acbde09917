"""Curves that listen to a metric, as a rule the loss on held-out data once per epoch."""

# ruff: noqa: D102 -- base.py says what the methods of a feedback schedule are

from __future__ import annotations

import math
from dataclasses import dataclass

from optimscheduler.checks import number, one_of, whole
from optimscheduler.schedules.base import FeedbackSchedule

__all__ = ["NewBob", "ReduceOnPlateau"]

_UNIT = "metrics"

State = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ReduceOnPlateau(FeedbackSchedule[State]):
    """Multiply by a factor when a metric has not improved for some time.

        better:  metric < best (1 - threshold)   mode="min", threshold_mode="rel"
                 metric > best (1 + threshold)   mode="max", threshold_mode="rel"
                 metric < best - threshold       mode="min", threshold_mode="abs"
                 metric > best + threshold       mode="max", threshold_mode="abs"

    It begins at 1. After more than `patience` metrics in a row that are not better it is multiplied by
    `factor`, but not below the floor. A metric that is NaN is not better.

    Args:
        factor: what it is multiplied by, in (0, 1).
        patience: metrics in a row that are put up with though they are not better, >= 0.
        threshold: what counts as better, >= 0.
        threshold_mode: `rel`, a share of the best, or `abs`.
        cooldown: metrics after a reduction that are not counted, >= 0.
        mode: `min` for a loss, `max` for an accuracy.
        floor: lowest factor, in [0, 1].
        eps: a reduction by less than this is left out, >= 0.

    Raises:
        ConfigError: an argument is out of range.

    Reference: `torch.optim.lr_scheduler.ReduceLROnPlateau`, with learning rates as multiples of the base.

    >>> plateau = ReduceOnPlateau(factor=0.5, patience=1)
    >>> state = plateau.start()
    >>> for loss in (2.0, 1.0, 1.5, 1.2):
    ...     state = plateau.observe(state, loss)
    >>> plateau(1, state)
    0.5
    """

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0
    mode: str = "min"
    floor: float = 0.0
    eps: float = 1e-8

    def __post_init__(self) -> None:
        name = "ReduceOnPlateau"
        self._keep(
            factor=number(f"{name}: factor", self.factor, above=0, below=1),
            patience=whole(f"{name}: patience", self.patience, least=0, unit=_UNIT),
            threshold=number(f"{name}: threshold", self.threshold, least=0),
            threshold_mode=one_of(f"{name}: threshold_mode", self.threshold_mode, ["rel", "abs"]),
            cooldown=whole(f"{name}: cooldown", self.cooldown, least=0, unit=_UNIT),
            mode=one_of(f"{name}: mode", self.mode, ["min", "max"]),
            floor=number(f"{name}: floor", self.floor, least=0, most=1),
            eps=number(f"{name}: eps", self.eps, least=0),
        )

    def start(self) -> State:
        best = math.inf if self.mode == "min" else -math.inf
        return {"best": best, "worse": 0, "cooldown": 0, "factor": 1.0}

    def observe(self, state: State, metric: float) -> State:
        best, worse, cooldown, factor = (state[key] for key in ("best", "worse", "cooldown", "factor"))
        if self._better(metric, best):
            best, worse = metric, 0
        else:
            worse += 1
        if cooldown > 0:
            cooldown, worse = cooldown - 1, 0
        if worse > self.patience:
            lower = max(factor * self.factor, self.floor)
            if factor - lower > self.eps:
                factor = lower
            cooldown, worse = self.cooldown, 0
        return {"best": best, "worse": worse, "cooldown": cooldown, "factor": factor}

    def __call__(self, step: int, state: State) -> float:  # noqa: ARG002 -- the metric alone moves it
        return state["factor"]

    def _better(self, metric: float, best: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        relative = self.threshold_mode == "rel"
        limit = best * (1 - sign * self.threshold) if relative else best - sign * self.threshold
        return sign * metric < sign * limit


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NewBob(FeedbackSchedule[State]):
    """Multiply by a factor when a metric has improved by less than a share of its last value.

        improvement = (last - metric) / last           0 where last is 0

    It begins at 1. The metric is one that falls, as a loss or an error rate does. The first one is only
    remembered.

    Args:
        factor: what it is multiplied by, in (0, 1).
        threshold: share below which an improvement is too small.
        patience: too small improvements that are put up with before each multiplication, >= 0.

    Raises:
        ConfigError: an argument is out of range.

    Reference: the "newbob" rule of the QuickNet tools of ICSI, as in SpeechBrain's `NewBobScheduler`.

    >>> bob = NewBob()
    >>> state = bob.start()
    >>> for loss in (2.0, 1.0, 0.9999):
    ...     state = bob.observe(state, loss)
    >>> bob(1, state)
    0.5
    """

    factor: float = 0.5
    threshold: float = 0.0025
    patience: int = 0

    def __post_init__(self) -> None:
        self._keep(
            factor=number("NewBob: factor", self.factor, above=0, below=1),
            threshold=number("NewBob: threshold", self.threshold),
            patience=whole("NewBob: patience", self.patience, least=0, unit=_UNIT),
        )

    def start(self) -> State:
        return {"last": math.nan, "patience": self.patience, "factor": 1.0}

    def observe(self, state: State, metric: float) -> State:
        last, patience, factor = state["last"], state["patience"], state["factor"]
        if not math.isnan(last):
            improvement = (last - metric) / last if last else 0.0
            if improvement < self.threshold:
                if patience == 0:
                    factor, patience = factor * self.factor, self.patience
                else:
                    patience -= 1
        return {"last": metric, "patience": patience, "factor": factor}

    def __call__(self, step: int, state: State) -> float:  # noqa: ARG002 -- the metric alone moves it
        return state["factor"]

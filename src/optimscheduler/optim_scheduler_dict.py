"""`OptimSchedulerDict`: the OptimSchedulers of one model, by name, stepped by one call."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from optimscheduler.errors import CheckpointError, ConfigError
from optimscheduler.ledger import StepReport
from optimscheduler.optim_scheduler import OnMismatch, OptimScheduler
from optimscheduler.step import BatchStep, Timer, untimed
from optimscheduler.window import Scalar

__all__ = ["OptimSchedulerDict"]

_log = logging.getLogger("optimscheduler")


class OptimSchedulerDict(Mapping[str, OptimScheduler]):
    """A mapping of names to OptimSchedulers over one model, with one step for all of them.

    Args:
        members: name -> OptimScheduler; exactly one in this version.

    Raises:
        ConfigError: there is none, or more than one.
    """

    def __init__(self, members: Mapping[str, OptimScheduler]) -> None:
        if len(members) != 1:
            raise ConfigError(
                f"this version steps exactly one OptimScheduler, got {len(members)}: {sorted(members)}"
            )
        self._members = dict(members)
        self._adopt()

    def _adopt(self) -> None:
        first = next(iter(self._members.values()))
        members = {name: optim.member for name, optim in self._members.items()}
        self._line = BatchStep(first.model, members, first.precision)

    def __getitem__(self, name: str) -> OptimScheduler:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"OptimSchedulerDict({self._members})"

    def forward(self, step_num: int | None = None, last: bool = False) -> AbstractContextManager[None]:
        """The context of a training forward pass; see `OptimScheduler.forward`."""
        return self._line.forward(step_num, last)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass alone, for validation."""
        return self._line.precision.autocast()

    def step(
        self,
        losses: Mapping[str, Tensor],
        time_func: Timer | None = None,
        step_num: int | None = None,
        epoch_num: int | None = None,
        logger: logging.Logger | None = None,
        *,
        weight: Scalar | Mapping[str, Scalar] | None = None,
    ) -> dict[str, StepReport]:
        """Optimise with the losses of one batch; see `OptimScheduler.step`.

        Returns:
            Name -> report.
        """
        return self._line.step(
            losses,
            weight=weight,
            step_num=step_num,
            epoch=epoch_num,
            timer=time_func or untimed,
            logger=logger or _log,
        )

    def flush(self) -> dict[str, StepReport]:
        """Close the open windows as they are; reports of the members that had something pending."""
        return self._line.flush()

    def observe(self, metric: float) -> None:
        """Tell the feedback schedules a validation metric."""
        for optim in self._members.values():
            optim.observe(metric)

    def get_lr(self) -> dict[str, float]:
        """Name -> learning rate."""
        return {name: optim.get_lr() for name, optim in self._members.items()}

    def state_dict(self) -> dict[str, Any]:
        """Name -> state; see `OptimScheduler.state_dict`."""
        return {name: optim.state_dict() for name, optim in self._members.items()}

    def load_state_dict(self, state: Mapping[str, Any], on_mismatch: OnMismatch = "error") -> None:
        """Go on from a saved state; see `OptimScheduler.load_state_dict`.

        Raises:
            CheckpointError: the names differ, or a member's state does not fit.
        """
        if set(state) != set(self._members):
            raise CheckpointError(
                f"the checkpoint has the OptimSchedulers {sorted(map(str, state))}, "
                f"this dict has {sorted(self._members)}"
            )
        for name, optim in self._members.items():
            try:
                optim.load_state_dict(state[name], on_mismatch)
            except CheckpointError as error:
                raise CheckpointError(f"{name}: {error}") from error
        self._adopt()

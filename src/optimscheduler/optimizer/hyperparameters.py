"""Write the learning rate, and whatever else moves, into the optimizer's groups, each from its own base."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.optim import Optimizer

from optimscheduler.optimizer.last_written import LastWritten
from optimscheduler.optimizer.scheduled_numbers import ScheduledNumber
from optimscheduler.schedules import Run

__all__ = ["Hyperparameters"]

_log = logging.getLogger("optimscheduler")


class Hyperparameters:
    """The learning rate of every group, and the other numbers that schedules move.

        lr_g = ft_factor * lr * base_g / base
        lr_g = ft_factor * base_g * schedule_g(s)         where the group has a schedule of its own
        value = base value * schedule(s)                  all others

    Where nobody drives the learning rate it is written once, at the first update, and not even then if other
    hands have written it before: from there on it is whatever the optimizer holds.

    Args:
        optimizer: whose groups hold their base values; where a scheduler of torch's has moved them, those
            that it started from.
        base_lr: the base value, `optim_conf["lr"]`, > 0; None where the optimizer sets its own step size:
            then no learning rate is written, and `lr` is NaN.
        ft_factor: a constant factor for fine-tuning.
        driven: what else moves; see `scheduled_numbers`.
        driver: what drives the learning rate, for people; None is nobody.
        before: what the learning rate is before the first update; None is `base_lr`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | None,
        ft_factor: float,
        driven: Sequence[ScheduledNumber] = (),
        *,
        driver: str | None = "the schedule",
        before: float | None = None,
    ) -> None:
        self._optimizer = optimizer
        groups = optimizer.param_groups
        self.sets_own = base_lr is None
        self._ratios = [
            float(group.get("initial_lr", group["lr"])) / base_lr for group in groups if base_lr is not None
        ]
        self._written = False
        self._said: set[str] = set()
        self.driven = list(driven)
        self.driver = driver
        self.base_lr = math.nan if base_lr is None else base_lr
        self.ft_factor = ft_factor
        self._before = self.base_lr if before is None else before
        self._own = {driven.group for driven in self.driven if driven.place == "lr"}
        places = [(i, "lr") for i in range(len(self._ratios))]
        self._left = LastWritten(
            optimizer, [*places, *((driven.group, driven.place) for driven in self.driven)]
        )
        self._groups = groups

    def _driven_spots(self) -> list[tuple[int, str]]:
        count = min(len(self._ratios), len(self._optimizer.param_groups))
        rates = [(i, "lr") for i in range(count) if self.driver is not None or i in self._own]
        return [*rates, *((driven.group, driven.place) for driven in self.driven)]

    @property
    def lr(self) -> float:
        """What the first group holds; before the first update the base, unless others have written."""
        if self.sets_own:
            return math.nan
        if self._written or self._left.touched((0, "lr")):
            return self._left.held((0, "lr"))
        return self._before

    def write(self, lr: float, step: int) -> None:
        """Write the values of a real step.

        Args:
            lr: that of a group with the base value, before `ft_factor`.
            step: for the other schedules.

        Raises:
            ConfigError: a value is out of range.
        """
        if self._optimizer.param_groups is not self._groups:  # the optimizer was loaded, or this is a copy
            self._groups = self._optimizer.param_groups
            self._left.keep(self._driven_spots())  # what is driven is no other hand's
        for i, ratio in enumerate(self._ratios):
            if self.driver is None and i not in self._own:
                self._offer(i, lr, ratio)
            elif i not in self._own:
                self._overwrite((i, "lr"), self.ft_factor * lr * ratio, self.driver)
        for driven in self.driven:
            factor = self.ft_factor if driven.place == "lr" else 1.0
            value = factor * driven.value(step)
            self._overwrite((driven.group, driven.place), value, repr(driven.schedule))
        self._written = True

    def _offer(self, group: int, lr: float, ratio: float) -> None:
        """Write a learning rate that nobody drives, once, if no other hand has."""
        factor = self.ft_factor * lr / self.base_lr
        if self._written or factor == 1.0:
            return
        value = self.ft_factor * lr * ratio
        attached = "initial_lr" in self._optimizer.param_groups[group]  # torch's schedulers write that
        if not (attached or self._left.touched((group, "lr"))):
            self._left.put((group, "lr"), value)
            return
        if self._left.held((group, "lr")) == value:
            return
        self._say(
            "lr, undriven",
            f"lr of group {group} is {self._left.held((group, 'lr')):g}, written by other hands before the "
            f"first update, and is used as it is, without the factor {factor:g} of ft_factor and schedule; "
            "multiply what you write by it, or leave the factor out",
        )

    def _overwrite(self, spot: tuple[int, str], value: float, driver: str | None) -> None:
        """Write a number that is driven; where another hand has written it, say so once."""
        if self._left.renew(spot, value):
            return
        if self._left.touched(spot) and self._left.held(spot) != value:
            group, place = spot
            self._say(
                place,
                f"{place} of group {group} is {self._left.held(spot):g}, written by other hands; {driver} "
                f"drives it, so the update is made with {value:g}. {_advice(place, own=group in self._own)}",
            )
        self._left.put(spot, value)

    def _say(self, what: str, message: str) -> None:
        if what not in self._said:
            _log.warning("%s", message)
        self._said.add(what)

    def resolve(self, run: Run) -> None:
        """Put real steps in the places of lengths that depend on the run."""
        self.driven = [replace(driven, schedule=driven.schedule.resolved(run)) for driven in self.driven]

    def state_dict(self) -> dict[str, Any]:
        """Whether the first update was, and what was left in the groups."""
        return {"written": self._written, "left": self._left.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The groups hold the numbers of a saved run; of an old one it is not known who has written them."""
        self._written, self._groups = state["written"], self._optimizer.param_groups
        self._left.keep([(i, "lr") for i in range(len(self._ratios)) if self._written])
        self._left.keep(self._driven_spots())
        self._left.load_state_dict(state.get("left", []))

    def take_over(self, state: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], *, same: bool) -> None:
        """The groups hold the numbers of the configuration; of a saved run, those that its hands wrote.

        Args:
            state: from `state_dict`.
            groups: the optimizer's in the saved run.
            same: what the configurations say of learning rates is the same; otherwise this one's counts.
        """
        for i, place, left in state.get("left", []) if self.driver is None else ():
            if place != "lr" or i in self._own or i >= min(len(groups), len(self._ratios)):
                continue
            held = float(groups[i]["lr"])
            if held == left:
                continue
            if same:
                self._left.put((i, "lr"), held)
                self._written = True
            else:
                now = self._left.held((i, "lr"))
                _log.warning(
                    "lr of group %d: %g in the checkpoint, written by other hands, %g in the configuration; "
                    "taken from the configuration",
                    i,
                    held,
                    now,
                )


def _advice(place: str, *, own: bool) -> str:
    """What to type for a number that two hands write."""
    if place != "lr":
        return f"To drive it yourself, take {place} out of schedules"
    if own:
        return "To drive it yourself, take the schedule out of its rule in param_groups"
    return (
        "To drive it yourself, use OptimScheduler and leave schedule out; otherwise use ft_factor, or write "
        "what you want as a schedule"
    )

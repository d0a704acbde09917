"""Where `verify-resume` stops: a single process after any batch, several at the end of a window."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from optimscheduler.errors import ConfigError
from optimscheduler.run.plan.plan import Plan

__all__ = ["StopPoints", "choose_stop_points"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopPoints:
    """Where the trainings end.

    Attributes:
        batches: how many are trained.
        at: the batch after which one of them is stopped, 1 to `batches` - 1.
        notes: lines for people, on what was asked for and is not possible.
    """

    batches: int
    at: int
    notes: tuple[str, ...] = ()


def choose_stop_points(plan: Plan, ranks: int, batches: int, at: int | None) -> StopPoints:
    """The batches after which trainings are to stop, so that they stop exactly there.

    Args:
        plan: of the run.
        ranks: processes, >= 1. A checkpoint of several holds no open window, so they go on to its end.
        batches: how many are to be trained, >= 2; no more than there are.
        at: the batch after which to stop; None is one at random.

    Raises:
        ConfigError: there is nothing to stop between, or `at` is not before the end.
    """
    in_all = plan.horizon.batches_in_all
    if in_all < 2:
        raise ConfigError(
            f"verify-resume stops between two batches, and the run has fewer than 2 batches: {in_all}. Give "
            "it more: a larger num_epochs or num_steps, or a smaller batch_size"
        )
    batches = min(batches, in_all)
    if at is not None and not 1 <= at < batches:
        raise ConfigError(f"--at must be a batch from 1 to {batches - 1}, before the last, got {at}")
    if ranks == 1:
        return StopPoints(batches=batches, at=at or _any_of(batches - 1))
    return _at_windows_ends(_WindowEnds(plan), batches, at)


def _at_windows_ends(ends: _WindowEnds, batches: int, at: int | None) -> StopPoints:
    end = ends.from_batch(batches)
    latest, later = ends.before(end), f"--batches {ends.after(end)}" if end < ends.in_all else ""
    if not latest:
        more = "There is no other: give the run more with num_epochs or num_steps, or a smaller accum_grad"
        raise ConfigError(
            f"several ranks stop at the end of a window, and the first one ends with batch {end}. "
            + (f"Type {later}" if later else more)
        )
    stop = ends.from_batch(_any_of(latest) if at is None else at)
    if stop == end:
        raise ConfigError(
            f"several ranks stop at the end of a window, and --at {at} and --batches {batches} are in the "
            f"same, which ends with batch {end}. Type --at {latest}{later and ' or '}{later}"
        )
    asked = {"--batches": (batches, end), "--at": (at or stop, stop)}
    return StopPoints(
        batches=end,
        at=stop,
        notes=tuple(
            f"{option} {number} is {became}: several ranks stop at the end of a window"
            for option, (number, became) in asked.items()
            if number != became
        ),
    )


class _WindowEnds:
    """The batches, counted over the whole run, with which the windows of all OptimSchedulers end."""

    def __init__(self, plan: Plan) -> None:
        self._horizon = plan.horizon
        self._together = math.lcm(*(member.accum_grad for member in plan.members.values()))
        self.in_all = plan.horizon.batches_in_all

    def from_batch(self, batch: int) -> int:
        """The first that is not before a batch of the run."""
        return next(n for n in range(batch, self.in_all + 1) if self._ends_all(n))

    def after(self, batch: int) -> int:
        """The first that comes after a batch of the run, which is not its last."""
        return self.from_batch(batch + 1)

    def before(self, batch: int) -> int:
        """The last that is; 0 if there is none."""
        return next((n for n in range(batch - 1, 0, -1) if self._ends_all(n)), 0)

    def _ends_all(self, batch: int) -> bool:
        epochs, before = divmod(batch - 1, self._horizon.batches)
        counted = batch if self._horizon.carry else before + 1
        return counted % self._together == 0 or self._horizon.ends_window(epochs + 1, before + 1)


def _any_of(batches: int) -> int:
    """Any of the first; torch's and Python's generators are left as they are."""
    return random.SystemRandom().randrange(1, batches + 1)

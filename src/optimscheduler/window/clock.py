"""Which window a batch belongs to, and what it means for it.

    real step of batch n:  r = (n - 1) // accum_grad + 1
    active:                r % step_per_update == 0
    ends:                  n % accum_grad == 0

A window that is flushed early uses up its missing batch numbers, so the next batch opens a new one:
the clock adds them as an offset to every later n. Where a host owns the windows, `accum_grad` is larger than
any run is long, so every window is one that was ended early.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from optimscheduler.checks import shown, whole
from optimscheduler.errors import ConfigError, nearest

__all__ = ["HOST", "AccumGrad", "BatchPosition", "Cadence", "Clock"]

HOST: Final = "host"
"""The `accum_grad` of a loop whose host, a Trainer, says which batch is the last of its window."""

AccumGrad: TypeAlias = int | Literal["host"]

_ENDLESS: Final = 2**40  # batches of a window that only its host ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """The rhythm of one OptimScheduler.

    Args:
        accum_grad: batches that make one gradient, >= 1; or `"host"`, who says when it is complete.
        step_per_update: every how many windows one is active, >= 1.

    Raises:
        ConfigError: a value is no whole number >= 1, and no word that is known.
    """

    accum_grad: AccumGrad = 1
    step_per_update: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "accum_grad", _accum_grad(self.accum_grad))
        step_per_update = whole("step_per_update", self.step_per_update, least=1, unit="real steps")
        object.__setattr__(self, "step_per_update", step_per_update)

    @property
    def size(self) -> int:
        """Batches of a full window."""
        return _ENDLESS if self.accum_grad == HOST else self.accum_grad


def _accum_grad(value: object) -> AccumGrad:
    """A number of batches, or the word for none of ours."""
    if value == HOST:
        return HOST
    if isinstance(value, str) and shown(value) == repr(value):  # a word, no number in quotes
        raise ConfigError(
            f"accum_grad must be a whole number of batches >= 1, or 'host', got {value!r:.80}. "
            f"{nearest(value, [HOST])}"
        )
    return whole("accum_grad", value, least=1, unit="batches")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPosition:
    """One batch, as one OptimScheduler sees it.

    Attributes:
        batch: its number, from 1.
        real_step: the number of its window, from 1, idle windows included.
        active: its loss contributes a gradient; in an idle window nothing is done.
        ends: it is the last batch of its window.
    """

    batch: int
    real_step: int
    active: bool
    ends: bool

    @property
    def completes(self) -> bool:
        """Whether an update is due after this batch."""
        return self.active and self.ends


class Clock:
    """Counts batches that may be numbered from outside, jump forward, be flushed, and be resumed.

    >>> clock = Clock(Cadence(accum_grad=2))
    >>> for _ in range(3):
    ...     beat = clock.beat()
    ...     clock.take(beat)
    >>> beat.real_step, beat.completes
    (2, False)
    >>> clock.flush()
    >>> clock.beat().real_step
    3
    """

    def __init__(self, cadence: Cadence) -> None:
        self.cadence = cadence
        self.batch = 0  # the number of the last batch taken
        self.epoch = 1
        self._offset = 0  # batch numbers used up by short windows
        self._used_up = 0  # of them, those of the window that was ended last, and are not passed over yet

    @property
    def real_step(self) -> int:
        """The window of the last batch taken, 0 before the first."""
        return -(-self._position // self.cadence.size)

    @property
    def _position(self) -> int:
        return self.batch + self._offset

    def beat(self, number: int | None = None, *, last: bool = False) -> BatchPosition:
        """What the next batch means; asking changes nothing.

        Args:
            number: the batch number, or None for the one after the last.
            last: the batch ends its window even if that is not full.

        Raises:
            ConfigError: the number is no whole number, or not beyond the last one.
        """
        batch = self.batch + 1 if number is None else whole("step_num", number, least=1, unit="batches")
        if batch <= self.batch:
            raise ConfigError(
                f"step_num must go forward: got {batch}, expected {self.batch + 1} or more "
                f"(batch {self.batch} was already taken)"
            )
        size = self.cadence.size
        position = batch + self._offset
        real_step = (position - 1) // size + 1
        return BatchPosition(
            batch=batch,
            real_step=real_step,
            active=real_step % self.cadence.step_per_update == 0,
            ends=last or position % size == 0,
        )

    def take(self, beat: BatchPosition, epoch: int | None = None) -> None:
        """The batch was done, in that epoch if one is given: go on from there."""
        self.batch = beat.batch
        self.epoch = epoch or self.epoch
        self._used_up = 0
        if beat.ends:
            self.flush()

    def flush(self) -> None:
        """End the current window: its missing batch numbers are used up."""
        missing = -self._position % self.cadence.size
        self._offset += missing
        self._used_up += missing

    def pass_over(self, batch: int, *, ended: bool) -> None:
        """Batches up to that number never come; the windows of those after them are as if they had.

        Args:
            batch: a number beyond the last one.
            ended: the window of the last batch was ended because of them; what it has used up was theirs.

        >>> clock = Clock(Cadence(accum_grad=4))
        >>> clock.take(clock.beat(5, last=True))  # the second window, ended early, as 6 is to be passed over
        >>> clock.pass_over(6, ended=True)
        >>> clock.beat(7).real_step, clock.beat(9).real_step
        (3, 3)
        """
        if ended:
            self._offset -= min(batch - self.batch, self._used_up)
        self.batch, self._used_up = batch, 0

    def state_dict(self) -> dict[str, int]:
        """Closed windows and the place in the open one, which hold for any `accum_grad`."""
        closed, inside = divmod(self._position, self.cadence.size)
        return {"batch": self.batch, "epoch": self.epoch, "closed_windows": closed, "inside": inside}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from the same real step, also with another `accum_grad`."""
        size = self.cadence.size
        inside = min(state["inside"], size - 1)
        self.batch, self.epoch, self._used_up = state["batch"], state["epoch"], 0
        self._offset = state["closed_windows"] * size + inside - self.batch

"""One thing that other hands do, written for either side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from optimscheduler import OptimSchedulerError
from tests.other_hands.sides import Side
from tests.other_hands.trainings import Training

__all__ = ["Event", "keeps_no_lr", "makes_state_when_it_steps", "table"]


@dataclass(frozen=True, slots=True)
class Event:
    """What is done, to either side, with the same random numbers.

    Attributes:
        do: to a side; it is the plain side's turn first.
        fits: whether it has a meaning for torch in a training.
        refusals: what the library may answer instead of doing as torch does; the side is not used again.
    """

    do: Callable[[Side, Random], None]
    fits: Callable[[Training], bool] = lambda _: True
    refusals: tuple[type[OptimSchedulerError], ...] = ()


def table(*events: Event | Callable[[Side, Random], None]) -> dict[str, Event]:
    """By the names of their functions, in words."""
    told = [event if isinstance(event, Event) else Event(event) for event in events]
    return {event.do.__name__.strip("_").replace("_", " "): event for event in told}


def keeps_no_lr(training: Training) -> bool:
    """The library has no schedule: other hands move the learning rate."""
    return training.falls_over is None


def makes_state_when_it_steps(training: Training) -> bool:
    """Adagrad makes its state when it is built and cannot do without."""
    return training.optim_type != "Adagrad"

"""Everything that other hands may do between two steps, and how often it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tests.other_hands import (
    events_files,
    events_gradients,
    events_hooks,
    events_model,
    events_settings,
    events_state,
    events_steps,
)
from tests.other_hands.event import Event
from tests.other_hands.trainings import Training

__all__ = ["EVENTS", "draw_events"]

_ROOMS = (
    events_steps,
    events_gradients,
    events_settings,
    events_state,
    events_files,
    events_hooks,
    events_model,
)

EVENTS: dict[str, Event] = {name: event for room in _ROOMS for name, event in room.EVENTS.items()}
"""Name -> event."""

_ORDINARY = ("a batch", "a batch", "a batch", "the last batch of a window")


def draw_events(training: Training, only: Sequence[str] = ()) -> list[str]:
    """A series for a training: half of it ordinary batches.

    Args:
        training: its settings decide which events have a meaning.
        only: the names to choose from, beside ordinary batches; none for all.
    """
    rng = Random(f"events {training.seed}")
    pool = [name for name in only or EVENTS if EVENTS[name].fits(training)]
    if not pool:
        return []
    drawn = [rng.choice(_ORDINARY if rng.random() < 0.5 else pool) for _ in range(training.events)]
    return [*drawn, "a batch", "the last batch of a window"]

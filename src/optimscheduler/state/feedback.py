"""Whether a feedback schedule can go on from what a saved run has heard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optimscheduler.errors import CheckpointError, ConfigError
from optimscheduler.schedules import FeedbackSchedule, Schedule

__all__ = ["check_feedback"]


def check_feedback(schedule: Schedule | FeedbackSchedule[Any] | None, feedback: object) -> None:
    """Check a state against the one that the schedule starts with, and ask for the factor that follows.

    Args:
        schedule: the one that the state was saved with.
        feedback: what it had heard; None where nothing listens.

    Raises:
        CheckpointError: it is built otherwise, or gives no factor >= 0.
    """
    listener = None if schedule is None else schedule.listener
    if listener is None:
        if feedback is not None:
            raise CheckpointError(
                f"this state is damaged: feedback must be None, as {schedule!r} does not listen, got "
                f"{feedback!r:.80}"
            )
        return
    start = listener.start()
    if not _alike(start, feedback):
        raise CheckpointError(
            f"this state is damaged: feedback must be like {start!r:.80}, got {feedback!r:.80}"
        )
    try:
        factor = listener(1, feedback)
    except ConfigError:  # its lengths depend on a run that is not known yet
        return
    except Exception as error:  # whatever a schedule of the user's raises
        raise CheckpointError(
            f"this state is damaged: with feedback {feedback!r:.80} {type(listener).__name__} raises "
            f"{error!r:.80}"
        ) from error
    if not math.isfinite(factor) or factor < 0:
        raise CheckpointError(
            f"this state is damaged: feedback {feedback!r:.80} gives the factor {factor!r}, which must be "
            "finite and >= 0"
        )


def _alike(start: object, feedback: object) -> bool:
    """Whether two plain trees have the same keys, and numbers where the other has numbers."""
    if isinstance(start, Mapping):
        same = isinstance(feedback, Mapping) and set(feedback) == set(start)
        return same and all(_alike(start[key], feedback[key]) for key in start)  # type: ignore[index]  # a mapping
    if isinstance(start, bool) or isinstance(feedback, bool):
        return start is None or isinstance(feedback, type(start))
    if isinstance(start, int | float):
        return isinstance(feedback, int | float)
    return start is None or isinstance(feedback, type(start))

"""One row of the table of what was broken on purpose: what was done, how often, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one drill found.

    Attributes:
        drill: what was broken, and how, for people.
        promise: what must hold, for people.
        count: how often it was broken.
        figures: what was measured, for people.
        failures: a line for each time that the promise did not hold.
    """

    drill: str
    promise: str
    count: int
    figures: str
    failures: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the promise held every time."""
        return not self.failures

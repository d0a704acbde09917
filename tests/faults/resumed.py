"""Where a run goes on after a kill: what the kill left of it, against what the next process says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from optimscheduler.run.monitor.jsonl import METRICS, read_lines

__all__ = ["Left", "left_of"]

_NAME = re.compile(r"batch-(\d{8,})(?:-(\d+))?")
_FROM = re.compile(r"^resuming   from (.+), epoch \d+, batch (\d+)$", re.MULTILINE)
_OVER = re.compile(r"^resuming   (.+) has no checkpoint yet, so the run starts over$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What there is of a run that was killed, or not begun.

    Attributes:
        run: its folder.
        newest: name of the newest checkpoint; None if there is none.
        done: batches of the windows that it has told of.
    """

    run: Path
    newest: str | None
    done: int

    @property
    def again(self) -> int:
        """Batches that are done again by going on from the newest checkpoint."""
        return max(0, self.done - (_order(self.newest)[0] if self.newest else 0))

    def has_begun(self, said: str) -> bool:
        """Whether a process has come so far as to say where it goes on."""
        return bool(_FROM.search(said) or _OVER.search(said))

    def wrongly_continued(self, said: str) -> str | None:
        """What is wrong with where a process goes on; None if that is the newest checkpoint.

        Args:
            said: all that the process has said.
        """
        found = _FROM.findall(said)
        starts = len(found) + len(_OVER.findall(said))
        if starts != 1:
            return f"it says {starts} times where it goes on"
        if self.newest is None:
            return f"it goes on from {found[0][0]}, where there was no checkpoint" if found else None
        if not found:
            return f"it starts over, though there is {self.newest}"
        path, batch = Path(found[0][0]), int(found[0][1])
        if path.parent != self.run / "checkpoints" or not _NAME.fullmatch(path.name):
            return f"it goes on from {path}, which is no checkpoint of {self.run}"
        if _order(path.name) < _order(self.newest):
            return f"it goes on from {path.name}, though there is {self.newest}"
        if batch != _order(path.name)[0]:
            return f"it goes on from {path.name}, and with batch {batch}"
        return None


def left_of(run: Path) -> Left:
    """What there is in a run folder, half-written checkpoints and damaged ones apart."""
    names = [path.name for path in run.glob("checkpoints/*") if _NAME.fullmatch(path.name)]
    lines = read_lines(run / METRICS)
    return Left(
        run=run,
        newest=max(names, key=_order, default=None),
        done=lines[-1]["batch"] if lines else 0,
    )


def _order(name: str) -> tuple[int, int]:
    """Of one batch there may be a second checkpoint, after its validation."""
    found = _NAME.fullmatch(name)
    assert found, name
    return int(found[1]), int(found[2] or 1)

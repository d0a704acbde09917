"""Where a resumed run goes on with another learning rate than the one it was stopped at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from optimscheduler.errors import CheckpointError
from optimscheduler.run.plan.member_plan import MemberPlan

__all__ = ["LrChange", "lr_changes", "refuse_jumps"]

_SHARE: Final = 0.05  # of the learning rate: less is no jump
_STEPS: Final = 2.0  # times what one step of either curve makes
_POINTS: Final = 400  # of each curve


@dataclass(frozen=True, slots=True, kw_only=True)
class LrChange:
    """One OptimScheduler at the checkpoint.

    Attributes:
        name: its name.
        step: the last real step that is done.
        before: its learning rate.
        after: that of the next one, as it would be now.
        meant: that of the next one, as it was meant to be.
        further: that of the one after the next, as it would be now.
        old: (real step, learning rate) up to the joint.
        new: the same from there on.
    """

    name: str
    step: int
    before: float
    after: float
    meant: float
    further: float
    old: tuple[tuple[int, float], ...]
    new: tuple[tuple[int, float], ...]

    @property
    def jumps(self) -> bool:
        """Whether the change is out of all proportion: 5 % and twice what a step of either curve makes."""
        usual = max(abs(self.meant - self.before), abs(self.further - self.after))
        change = abs(self.after - self.before)
        return change > max(_SHARE * max(self.after, self.before), _STEPS * usual)

    def __str__(self) -> str:
        meant = "" if self.meant == self.after else f" (it would have been {self.meant:.4g})"
        return (
            f"{self.name}: lr {self.before:.4g} at real step {self.step}, {self.after:.4g} at "
            f"{self.step + 1}{meant}"
        )


def lr_changes(
    old: Mapping[str, MemberPlan], new: Mapping[str, MemberPlan], done: Mapping[str, int]
) -> list[LrChange]:
    """The OptimSchedulers whose learning rate goes on differently.

    Args:
        old: what was planned when the checkpoint was made, by name.
        new: what is planned now.
        done: real steps that are done, by name.
    """
    found = []
    for name, member in new.items():
        step = done.get(name, 0)
        if name not in old or not 0 < step < member.run.steps or member.listens or old[name].listens:
            continue  # what a metric has done to the learning rate is not in the plan
        if member.own_step_size or old[name].own_step_size:
            continue
        before, ahead = old[name].rate, range(step + 1, member.run.steps + 1)
        points = ahead[:: max(1, len(ahead) // _POINTS)]
        if all(before(s) == member.rate(s) for s in points):
            continue
        behind = range(1, step + 1)[:: max(1, step // _POINTS)]
        found.append(
            LrChange(
                name=name,
                step=step,
                before=before(step),
                after=member.rate(step + 1),
                meant=before(step + 1),
                further=member.rate(min(step + 2, member.run.steps)),
                old=tuple((s, before(s)) for s in behind),
                new=tuple((s, member.rate(s)) for s in points),
            )
        )
    return found


def refuse_jumps(found: Sequence[LrChange], *, allowed: bool) -> None:
    """Stop before a run whose learning rate would jump, unless that is meant.

    Raises:
        CheckpointError: it would.
    """
    lines = [str(joint) for joint in found if joint.jumps]
    if lines and not allowed:
        raise CheckpointError(
            "the learning rate would jump where the run goes on:\n  "
            + "\n  ".join(lines)
            + "\nChange the schedule, or type in addition:\n  --allow-jump   to go on with it"
        )

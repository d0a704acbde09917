"""Which members are clipped by one norm: `clip_together`, checked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from optimscheduler.errors import ConfigError, nearest
from optimscheduler.line.member import Member

__all__ = ["check_undivided", "sets_of"]

_FORMS = "true, or a list of two names or more, or a list of such lists"

Sets = tuple[tuple[str, ...], ...]


def sets_of(clip_together: object, members: Mapping[str, Member]) -> Sets:
    """The sets of members that are clipped together, each in the order of the members.

    Args:
        clip_together: True for all members; the names of some; or several lists of names. None and False
            are for nobody.
        members: name -> member.

    Raises:
        ConfigError: it is something else, names nobody, or puts together what differs in what they share.
    """
    if clip_together is None or clip_together is False:
        return ()
    written = [list(members)] if clip_together is True else _lists(clip_together)
    seen: set[str] = set()
    for names in written:
        for name in names:
            if name not in members:
                raise ConfigError(
                    f"clip_together: there is no OptimScheduler {name!r:.80}. {nearest(name, members)}"
                )
            if name in seen:
                raise ConfigError(f"clip_together: {name!r:.80} is named twice; each name stands once")
            seen.add(name)
        if len(names) < 2:
            raise ConfigError(
                f"clip_together must be {_FORMS}; {names} is one member, which has its own norm"
            )
        _check_alike({name: members[name] for name in names})
    return tuple(tuple(name for name in members if name in names) for names in written)


def _lists(written: object) -> list[list[str]]:
    lists: object = written
    if isinstance(written, list | tuple) and written and all(isinstance(name, str) for name in written):
        lists = [written]
    if isinstance(lists, list | tuple) and lists:
        inner = [list(names) for names in lists if isinstance(names, list | tuple)]
        if len(inner) == len(lists) and all(isinstance(n, str) for names in inner for n in names):
            return inner
    raise ConfigError(f"clip_together must be {_FORMS}, got {written!r:.80}")


def _check_alike(members: Mapping[str, Member]) -> None:
    """One norm needs one moment, one limit and one guard."""
    (first_name, first), *others = members.items()
    for name, member in others:
        for key, now, before in [
            ("accum_grad", member.clock.cadence.accum_grad, first.clock.cadence.accum_grad),
            ("step_per_update", member.clock.cadence.step_per_update, first.clock.cadence.step_per_update),
            ("grad_clip", member.clip.written, first.clip.written),
            ("grad_norm_type", member.clip.norm_type, first.clip.norm_type),
            ("guard", repr(member.guard), repr(first.guard)),
        ]:
            if now != before:
                raise ConfigError(
                    f"clip_together: {key} is {now} for {name!r:.80}, {before} for {first_name!r:.80}; "
                    "members that are clipped together need the same"
                )


def check_undivided(sets: Iterable[Sequence[str]], only: Collection[str]) -> None:
    """Check that a batch is for all members of a set or for none, so that their windows end together.

    Raises:
        ConfigError: it is for a part of it.
    """
    for names in sets:
        left = [name for name in names if name not in only]
        if left and len(left) < len(names):
            raise ConfigError(
                f"only: {', '.join(sorted(only))} leaves out {', '.join(left)}, and {', '.join(names)} are "
                "clipped together (clip_together); name all of them or none"
            )

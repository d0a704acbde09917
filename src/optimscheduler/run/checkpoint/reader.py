"""A checkpoint as it is found: can it be used, and what is in it? Nothing in it is executed or trusted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from optimscheduler.errors import CheckpointError
from optimscheduler.run.checkpoint.io import PLAIN, is_passing, reason, told_reading
from optimscheduler.run.checkpoint.manifest import Damage, Manifest
from optimscheduler.run.checkpoint.plain_json import read_plain
from optimscheduler.run.checkpoint.schema import check_content

__all__ = ["NAME", "content_of", "damage_of", "read_content"]

State = dict[str, Any]  # Any: a tree of plain values and tensors

NAME: Final = re.compile(r"batch-(\d{8,})(?:-(\d+))?")
"""Of a checkpoint: the batch after which it was written, and which one of that batch."""

_LARGEST_PLAIN: Final = 2**30  # bytes of what is no tensor
_KEYS: Final = {"config", "model", "optim_sches", "progress", "random", "lengths"}


def damage_of(path: Path, rank: int = 0, ranks: int = 1) -> str | None:
    """Why a checkpoint cannot be used; None if it can.

    Args:
        path: of it.
        rank: which share of the files to check.
        ranks: into how many shares they are divided.

    Raises:
        CheckpointError: it may well be whole, but cannot be read here and now.
    """
    try:
        _check(path, rank, ranks)
    except Exception as error:  # a damaged archive fails in many ways
        if is_passing(error):
            raise CheckpointError(
                f"{path} cannot be read: {reason(error)}. It is left as it is; mend that and try again, "
                "or move it away to use the one before"
            ) from error
        return f"{reason(error):.200}"
    return None


def _check(path: Path, rank: int, ranks: int) -> None:
    manifest = Manifest.read(path)
    named = NAME.fullmatch(path.name)
    if named and int(named[1]) != manifest.batch:
        raise Damage(f"what is in it was written after batch {manifest.batch}")
    if PLAIN not in manifest.files:
        raise Damage(f"it has no {PLAIN}")
    manifest.check(path, sorted(manifest.files)[rank::ranks])


def content_of(path: Path) -> State:
    """Everything in a checkpoint but the tensors, checked to be that of a run.

    Raises:
        CheckpointError: it cannot be read, or a run has not written it.
    """
    with told_reading(path):
        content = read_content(path)
        check_content(content, path)
        return content


def read_content(path: Path) -> State:
    """Everything but the tensors, which have None in their places.

    Raises:
        Damage: it is not there, too large, or no checkpoint of a run.
        Exception: it is damaged; that shows in many ways.
    """
    if not path.is_dir():
        raise Damage("it is not there")
    if (path / PLAIN).stat().st_size > _LARGEST_PLAIN:
        raise Damage(f"{PLAIN} is larger than {_LARGEST_PLAIN:,} bytes")
    content = read_plain((path / PLAIN).read_bytes())
    state = {**content["plain"], "tensors": content["tensors"]}
    if not set(state) >= _KEYS:
        raise Damage("it is no checkpoint of a run")
    return state

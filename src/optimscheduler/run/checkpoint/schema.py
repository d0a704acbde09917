"""What a checkpoint must hold, apart from its tensors, to be that of a run.

Checksums find damage. A file that somebody has written by hand can agree with itself and still be nonsense;
that is found here, before anything is built from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from optimscheduler.errors import CheckpointError

__all__ = ["check_content"]

Count = Annotated[int, Field(ge=0, lt=2**63)]
Tree = dict[str, Any]  # Any: checked by whoever takes it


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Progress(_Part):
    epoch: Annotated[int, Field(ge=1, lt=2**63)]
    batch_in_epoch: Count
    batch: Count
    windows: Count
    skip: str = ""


class _Clock(_Part):
    model_config = ConfigDict(extra="allow")
    closed_windows: Count


class _Ledger(_Part):
    model_config = ConfigDict(extra="allow")
    applied: Count


class _Member(_Part):
    model_config = ConfigDict(extra="allow")
    config: Tree
    clock: _Clock
    ledger: _Ledger


class _Content(_Part):
    model_config = ConfigDict(extra="allow")
    config: Tree
    ranks: Annotated[int, Field(ge=1, lt=2**31)]
    model: Tree
    optim_sches: dict[str, _Member]
    progress: _Progress
    random: list[Tree]
    lengths: dict[str, Count]


def check_content(state: Mapping[str, Any], path: Path) -> None:
    """Check the parts of a checkpoint that a run is continued from.

    Args:
        state: its content, with or without its tensors.
        path: of it, for the message.

    Raises:
        CheckpointError: something is missing, or is of another kind; the message names the place.
    """
    try:
        content = _Content.model_validate(dict(state))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"{path} was not written by a run: {place}: {first['msg'].lower()}, got {first['input']!r:.60}. "
            "Use another checkpoint, or start over with --out ANOTHER_DIR"
        ) from None
    if len(content.random) != content.ranks:
        raise CheckpointError(
            f"{path} was not written by a run: ranks is {content.ranks}, and random is of "
            f"{len(content.random)}"
        )

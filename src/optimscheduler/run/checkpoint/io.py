"""What checkpoints are written and removed with, and what is said when that goes wrong."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from torch.distributed.checkpoint.api import CheckpointException

from optimscheduler.errors import CheckpointError, OptimSchedulerError
from optimscheduler.run.checkpoint.manifest import file_entry
from optimscheduler.run.checkpoint.plain_json import write_plain
from optimscheduler.run.distributed.world import World

__all__ = [
    "PLAIN",
    "entries_of",
    "is_passing",
    "names_in",
    "reason",
    "remove",
    "sync",
    "told_reading",
    "told_writing",
    "written",
]

PLAIN: Final = "plain.json"
"""The file of everything that is no tensor."""

_PASSING: Final = {
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
"""What says nothing about the bytes themselves."""


def names_in(folder: Path) -> list[str]:
    """The names in a folder; none if there is no such folder.

    Raises:
        CheckpointError: there is one, or a link to one, that cannot be looked into.
    """
    try:
        return os.listdir(folder)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        if absent and not os.path.lexists(folder):
            return []
        raise CheckpointError(
            f"the folder of checkpoints {folder} cannot be read: {reason(error)}. Mend that, or choose "
            "another run folder with --out"
        ) from None


def is_passing(error: Exception) -> bool:
    """Whether something may be whole, although reading it has failed."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _PASSING)


@contextmanager
def told_writing(path: Path, what: str = "cannot be written") -> Iterator[None]:
    """Whatever goes wrong in writing becomes an error that names the checkpoint."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError, CheckpointException) as error:  # torch's own are two of them
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} {what}: {reason(error)}") from error


@contextmanager
def told_reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong in reading, or in going on from what was read, does so, too."""
    try:
        yield
    except OptimSchedulerError:
        raise
    except (Exception, CheckpointException) as error:  # a damaged archive fails in many ways
        raise CheckpointError(f"{path} cannot be read: {reason(error):.200}") from None


def reason(error: BaseException) -> str:
    """The first line that says why."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def written(tree: Mapping[str, Any], path: Path) -> bytes:  # Any: a tree of plain values
    """A tree as text, for the checkpoint at the path."""
    try:
        return write_plain(tree)
    except TypeError as error:
        raise CheckpointError(
            f"{path} cannot be written: {error}; a state_dict holds tensors and plain values alone"
        ) from None


def entries_of(path: Path, aside: Path, world: World) -> dict[str, dict[str, int | str]]:
    """Sizes and checksums of the files that this rank has written."""
    with told_writing(path):
        mine = sorted(aside.glob(f"shard-{world.rank + 1:05d}-*"))
        return {file.name: file_entry(file) for file in [*mine, *([aside / PLAIN] if world.main else [])]}


def remove(path: Path) -> None:
    """A folder that is half removed must not look like a checkpoint; what a link leads to stays.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        gone = path if path.suffix == ".tmp" else path.rename(path.with_suffix(".gone.tmp"))
        shutil.rmtree(gone)
    else:
        path.unlink()


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a crash."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Checkpoints of a run: folders written aside, synced, renamed, so that one is whole or not there at all.

batch-00000012/
  plain.pt             everything that is no tensor, and where the tensors belong
  shard-*.safetensors  the tensors, written by `torch.distributed.checkpoint`, each rank its share

Nothing in them is executed when they are read, and any number of ranks can read what another has written.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

import torch
from torch.distributed.checkpoint.api import CheckpointException

from optimscheduler.errors import CheckpointError
from optimscheduler.run.tensors import (
    Like,
    places_of,
    read_tensors,
    unique_tensors,
    whole,
    without_tensors,
    write_tensors,
)
from optimscheduler.run.world import ALONE, World

__all__ = ["VERSION", "Checkpoints"]

State = dict[str, Any]  # Any: a tree of plain values and tensors

VERSION: Final = 2
"""Of the format; a checkpoint of another one is refused."""

_NAME: Final = re.compile(r"batch-(\d{8,})(?:-(\d+)|\.pt)?")
_PLAIN: Final = "plain.pt"
_KEYS: Final = {"config", "model", "optim_sches", "progress", "random", "lengths"}


class Checkpoints:
    """The checkpoints in one folder, named after the batch they were written after.

    Args:
        folder: made when the first is written; all ranks see the same.
        keep: how many of the newest stay.
        world: who writes and reads.
    """

    def __init__(self, folder: Path, keep: int, world: World = ALONE) -> None:
        self.folder, self._keep, self._world = folder, keep, world

    def all(self) -> list[Path]:
        """Oldest first."""
        found = [(name, p) for p in self.folder.glob("batch-*") if (name := _NAME.fullmatch(p.name))]
        return [p for _, p in sorted(found, key=lambda each: (int(each[0][1]), int(each[0][2] or 1)))]

    def save(self, batch: int, state: Mapping[str, Any]) -> Path:
        """Write one, then remove those that are too many, and what a killed process left half written.

        Args:
            batch: the last batch that is in it.
            state: a nested dict with the keys of a run's checkpoint; what is no tensor is rank 0's.

        Raises:
            CheckpointError: it cannot be written.
        """
        path = self.folder / self._world.gather(self._free(batch).name)[0]
        aside = path.with_suffix(".tmp")
        try:
            self._world.together(lambda: self._begin(aside))
            write_tensors(aside, unique_tensors(state), self._world)
            self._world.together(lambda: self._finish(aside, path, state))
        except (OSError, RuntimeError, CheckpointException) as error:  # torch wraps a full disk in either
            raise CheckpointError(f"{path} cannot be written: {_reason(error)}") from error
        return path

    def _free(self, batch: int) -> Path:
        """A name that is not taken: of the same batch there may be one from before a validation."""
        first = self.folder / f"batch-{batch:08d}"
        names = (first.with_name(f"{first.name}-{number}") for number in count(2))
        return next(path for path in chain([first], names) if not path.exists())

    def _begin(self, aside: Path) -> None:
        if self._world.main:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)

    def _finish(self, aside: Path, path: Path, state: Mapping[str, Any]) -> None:
        """Write what is no tensor, give the folder its name, remove what is too much."""
        if not self._world.main:
            return
        with (aside / _PLAIN).open("wb") as file:
            torch.save(
                {"version": VERSION, "tensors": places_of(state), "plain": without_tensors(state)}, file
            )
            file.flush()
            os.fsync(file.fileno())
        _sync(aside)
        aside.replace(path)
        _sync(self.folder)
        batch = path.name.removeprefix("batch-").partition("-")[0]
        same = [old for old in self.all() if old != path and old.name.startswith(f"batch-{batch}")]
        for old in [*same, *[p for p in self.all() if p not in same][: -self._keep]]:
            _remove(old)
        for left in self.folder.glob("batch-*.tmp"):
            _remove(left)

    def content(self, path: Path) -> State:
        """Everything in one but the tensors.

        Raises:
            CheckpointError: see `load`.
        """
        with self._told(path):
            return self._content(path)

    def load(self, path: Path, like: Like = whole) -> State:
        """Read one; nothing in it is executed.

        Args:
            path: from `all`.
            like: what to read each tensor into.

        Raises:
            CheckpointError: it is damaged; the message says what to type.
        """
        with self._told(path):
            state = self._content(path)
            read_tensors(path, state, state.pop("tensors", []), like, self._world)
        return state

    def _content(self, path: Path) -> State:
        """Everything but the tensors; of a file from a single process those as well."""
        old = path.is_file()
        content = torch.load(path if old else path / _PLAIN, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or "version" not in content:
            raise ValueError("it is no checkpoint of a run")
        version = content["version"]
        if version != (1 if old else VERSION):
            raise CheckpointError(
                f"{path} has version {version!r}; this package reads version 1 and {VERSION}"
            )
        state: State = content if old else {**content["plain"], "tensors": content["tensors"]}
        if not set(state) >= _KEYS:
            raise ValueError("it is no checkpoint of a run")
        return _from_version_1(state) if old else state

    @contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        """Whatever goes wrong in reading a damaged one becomes an error that says what to type."""
        try:
            yield
        except CheckpointError:
            raise
        except (Exception, CheckpointException) as error:  # a damaged archive fails in many ways
            all_of_them = self.all()
            before = all_of_them[: all_of_them.index(path)]
            then = f"goes on from {before[-1].name}" if before else "starts over"
            raise CheckpointError(
                f"{path} cannot be read, it is damaged: {_reason(error):.120}. "
                f"Remove it, and --resume {then}: rm -r {shlex.quote(str(path))}"
            ) from None


def _from_version_1(state: State) -> State:
    """One file, of a run in one process."""
    return {**state, "random": [state["random"]], "ranks": 1}


def _reason(error: BaseException) -> str:
    """The first line that says why."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def _remove(path: Path) -> None:
    """A folder that is half removed must not look like a checkpoint."""
    if path.is_dir():
        gone = path if path.suffix == ".tmp" else path.rename(path.with_suffix(".gone.tmp"))
        shutil.rmtree(gone)
    else:
        path.unlink()


def _sync(folder: Path) -> None:
    """Make the renaming itself survive a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

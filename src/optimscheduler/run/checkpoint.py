"""Checkpoints of a run: written aside, synced, renamed, so that a file is whole or not there at all."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from optimscheduler.errors import CheckpointError

__all__ = ["VERSION", "Checkpoints"]

State = dict[str, Any]  # Any: a tree of plain values and tensors

VERSION: Final = 1
"""Of the format; a checkpoint of another one is refused."""

_NAME: Final = re.compile(r"batch-(\d{8,})\.pt")
_KEYS: Final = {"version", "config", "model", "optim_sches", "progress", "random", "lengths"}


class Checkpoints:
    """The checkpoints in one folder, named after the batch they were written after.

    Args:
        folder: made when the first is written.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder, keep

    def all(self) -> list[Path]:
        """Oldest first."""
        found = [
            (int(name[1]), p) for p in self.folder.glob("batch-*.pt") if (name := _NAME.fullmatch(p.name))
        ]
        return [path for _, path in sorted(found)]

    def save(self, batch: int, state: Mapping[str, Any]) -> Path:
        """Write one, then remove those that are too many, and what a killed process left half written.

        Args:
            batch: the last batch that is in it.
            state: a plain nested dict with the keys of a run's checkpoint; the version is added.

        Raises:
            CheckpointError: it cannot be written.
        """
        path = self.folder / f"batch-{batch:08d}.pt"
        aside = path.with_suffix(".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                torch.save({"version": VERSION, **state}, file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            _sync(self.folder)
            for old in [*self.all()[: -self._keep], *self.folder.glob("batch-*.tmp")]:
                old.unlink()
        except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
            raise CheckpointError(f"{path} cannot be written: {error}") from error
        return path

    def load(self, path: Path) -> State:
        """Read one; nothing in it is executed.

        Raises:
            CheckpointError: it is damaged; the message says what to type.
        """
        try:
            state: State = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or not set(state) >= _KEYS:
                raise ValueError("it is no checkpoint of a run")
        except Exception as error:  # a damaged archive fails in many ways
            all_of_them = self.all()
            before = all_of_them[: all_of_them.index(path)]
            then = f"goes on from {before[-1].name}" if before else "starts over"
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CheckpointError(
                f"{path} cannot be read, it is damaged: {reason:.120}. "
                f"Remove it, and --resume {then}: rm {shlex.quote(str(path))}"
            ) from None
        if state["version"] != VERSION:
            raise CheckpointError(
                f"{path} has version {state['version']!r}; this package reads version {VERSION}"
            )
        return state


def _sync(folder: Path) -> None:
    """Make the renaming itself survive a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

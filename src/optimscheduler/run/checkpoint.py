"""Checkpoints of a run: written aside, synced, renamed, so that a file is whole or not there at all."""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from optimscheduler.errors import CheckpointError

__all__ = ["Checkpoints", "load_random_state", "random_state"]

State = dict[str, Any]  # Any: a tree of plain values and tensors

_NAME = re.compile(r"batch-(\d{8})\.pt")


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
        return sorted(p for p in self.folder.glob("batch-*.pt") if _NAME.fullmatch(p.name))

    def save(self, batch: int, state: Mapping[str, Any]) -> Path:
        """Write one, then remove those that are too many.

        Raises:
            CheckpointError: it cannot be written.
        """
        path = self.folder / f"batch-{batch:08d}.pt"
        aside = path.with_suffix(".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                torch.save(dict(state), file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            _sync(self.folder)
            for old in self.all()[: -self._keep]:
                old.unlink()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be written: {error}") from error
        return path

    def load(self, path: Path) -> State:
        """Read one; nothing in it is executed.

        Raises:
            CheckpointError: it is damaged; the message says what to type.
        """
        try:
            state: State = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or "version" not in state:
                raise ValueError("it is no checkpoint of a run")
        except Exception as error:  # a damaged archive fails in many ways
            before = [p for p in self.all() if p < path]
            then = f"goes on from {before[-1].name}" if before else "starts over"
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"{path} cannot be read, it is damaged: {reason:.120}. "
                f"Remove it, and --resume {then}: rm {path}"
            ) from None
        return state


def random_state(device: torch.device) -> State:
    """The state of the random number generators that models and data sets use."""
    state: State = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        state["numpy"] = [name, keys.tolist(), *rest]
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def load_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put them back."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    if "numpy" in state and "numpy" in sys.modules:
        sys.modules["numpy"].random.set_state(tuple(state["numpy"]))
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def _sync(folder: Path) -> None:
    """Make the renaming itself survive a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Checkpoints as earlier versions of this package wrote them; they are read, and never written any more.

    format 1  one file, batch-00000012.pt, of a run in one process
    format 2  a folder with plain.pt and the tensors as safetensors files

Neither has checksums. `plain.pt` and the single file are read by torch's reader that builds tensors and plain
values alone (`weights_only=True`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

import torch

from optimscheduler.run.manifest import FORMAT, Damage

__all__ = ["is_old", "read_old"]

State = dict[str, Any]  # Any: a tree of plain values and tensors

_PLAIN: Final = "plain.pt"


def is_old(path: Path) -> bool:
    """Whether a checkpoint has one of these formats."""
    return path.is_file() or (path / _PLAIN).is_file()


def read_old(path: Path) -> State:
    """Everything but the tensors; of a single file those as well.

    Raises:
        Damage: it is of another format.
        Exception: it is damaged; that shows in many ways.
    """
    single = path.is_file()
    archive = path if single else path / _PLAIN
    _refuse_inflated(archive)
    content = torch.load(archive, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or "version" not in content:
        raise ValueError("it is no checkpoint of a run")
    version, expected = content["version"], 1 if single else 2
    if version != expected:
        raise Damage(f"it has format {version!r:.20}; this package reads formats up to {FORMAT}")
    state: State = content if single else {**content["plain"], "tensors": content["tensors"]}
    return {**state, "random": [state["random"]], "ranks": 1} if single else state


def _refuse_inflated(path: Path) -> None:
    """Nothing in the archive may take more memory than it has bytes; torch stores, and never compresses."""
    with ZipFile(path) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
    if claimed > path.stat().st_size:
        raise Damage(f"what is in it claims {claimed:,} bytes, and it has {path.stat().st_size:,}")

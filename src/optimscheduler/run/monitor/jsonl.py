"""`metrics.jsonl` and `validation.jsonl`: one JSON object per line, on disk as soon as it is known."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Final

from torch import Tensor

from optimscheduler.errors import CheckpointError, ConfigError
from optimscheduler.run.monitor.base import Record

__all__ = ["METRICS", "VALIDATION", "JsonLines", "read_lines"]

_log = logging.getLogger(__name__)

METRICS: Final = "metrics.jsonl"
VALIDATION: Final = "validation.jsonl"


class JsonLines:
    """Writes the two files. A value that is NaN or infinite becomes `null`, which JSON can hold.

    Args:
        folder: the run folder.
        lengths: bytes of each file that belong to the run being continued; the rest is cut off.
    """

    def __init__(self, folder: Path, lengths: Mapping[str, int]) -> None:
        self._files = {name: _open(folder / name, lengths.get(name, 0)) for name in (METRICS, VALIDATION)}

    def lengths(self) -> dict[str, int]:
        """Bytes in each file; what is counted is on disk."""
        for file in self._files.values():
            os.fsync(file.fileno())
        return {name: file.tell() for name, file in self._files.items()}

    def window(self, record: Record) -> None:
        """One line in `metrics.jsonl`."""
        self._write(METRICS, record)

    def validated(self, record: Record) -> None:
        """One line in `validation.jsonl`."""
        self._write(VALIDATION, record)

    def sampled(self, text: str) -> None:
        """Not kept."""

    def drawn(self, epoch: int, picture: Tensor) -> None:
        """Not kept here; see `Pictures`."""

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _write(self, name: str, record: Record) -> None:
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        file = self._files[name]
        try:
            file.write(json.dumps(plain, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise CheckpointError(
                f"{file.name} cannot be written: {error.strerror}; --resume goes on from the last checkpoint"
            ) from error


def _open(path: Path, length: int) -> FileIO:
    try:
        file = path.open("ab", buffering=0)  # a line is with the system at once, or an error at once
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    there = file.seek(0, os.SEEK_END)
    if there < length:
        _log.warning(
            "%s has lost %d of the %d bytes that the checkpoint knows of", path, length - there, length
        )
    file.truncate(min(length, there))
    file.seek(0, os.SEEK_END)
    return file


def read_lines(path: Path) -> list[Record]:
    """The objects of a file; a last line that was cut off in writing is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]

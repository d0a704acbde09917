"""`metrics.jsonl` and `validation.jsonl`: one JSON object per line, on disk as soon as it is known."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from io import FileIO
from itertools import count
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from optimscheduler.errors import ConfigError
from optimscheduler.run.monitor.protocol import Record

__all__ = ["METRICS", "VALIDATION", "JsonLines", "finite", "read_lines"]

_log = logging.getLogger(__name__)

METRICS: Final = "metrics.jsonl"
VALIDATION: Final = "validation.jsonl"


class JsonLines:
    """Writes the two files. A value that is NaN or infinite becomes `null`, which JSON can hold.

    What cannot be written is kept, and written when it can be; what was removed is put back.

    Args:
        folder: the run folder.
        lengths: bytes of each file that belong to the run being continued; the rest, which is about to be
            written again, is cut off. A file that is not named belongs to no checkpoint, and is moved aside.
    """

    def __init__(self, folder: Path, lengths: Mapping[str, int]) -> None:
        self._files = {name: _File(folder / name, lengths.get(name)) for name in (METRICS, VALIDATION)}

    def lengths(self) -> dict[str, int]:
        """Bytes in each file; what is counted is on disk."""
        return {name: file.synced() for name, file in self._files.items()}

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
        self._files[name].write(json.dumps(finite(record), allow_nan=False).encode() + b"\n")


class _File:
    """One file, of which a line is with the system at once."""

    def __init__(self, path: Path, length: int | None) -> None:
        self._path, self._waiting, self._troubled = path, b"", False
        self._file = _open(path, length)

    def write(self, line: bytes) -> None:
        self._waiting += line
        try:
            while self._waiting:  # a disk that is nearly full takes a part
                self._waiting = self._waiting[self._file.write(self._waiting) :]
            self._troubled = False
        except OSError as error:
            self._warn(f"cannot be written: {error.strerror}. Its lines are kept, and tried again")

    def synced(self) -> int:
        """Bytes that are on disk."""
        try:
            if not self._path.exists():
                self._put_back()
            self.write(b"")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._warn(f"cannot be written: {error.strerror}")
        return self._file.tell()

    def close(self) -> None:
        self.synced()
        self._file.close()

    def _put_back(self) -> None:
        """It was removed, or its folder; what is in it is still there as long as it is open."""
        self._warn("was removed while the run goes on; it is written again")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file.seek(0)
        content, gone = self._file.readall(), self._file
        self._file = self._path.open("a+b", buffering=0)
        gone.close()
        self._waiting = content + self._waiting
        self._troubled = False

    def _warn(self, what: str) -> None:
        if not self._troubled:
            _log.warning("%s %s", self._path, what)
        self._troubled = True


def _open(path: Path, length: int | None) -> FileIO:
    try:
        if length is None:
            _move_aside(path)
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    length = length or 0
    there = file.seek(0, os.SEEK_END)
    if there < length:
        _log.warning(
            "%s has lost %d of the %d bytes that the checkpoint knows of", path, length - there, length
        )
    file.truncate(min(length, there))
    file.seek(0, os.SEEK_END)
    return file


def _move_aside(path: Path) -> None:
    """Keep the lines of a run that has left no checkpoint, or whose checkpoints are gone."""
    if path.is_file() and path.stat().st_size:
        names = (path.with_stem(f"{path.stem}-{number}") for number in count(1))
        aside = next(name for name in names if not os.path.lexists(name))
        path.rename(aside)
        _log.warning("%s is of a run without a checkpoint; it is kept as %s", path, aside.name)


def finite(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same with None for NaN and infinity."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}


def read_lines(path: Path) -> list[Record]:
    """The objects of a file; a last line that was cut off in writing is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]

"""`manifest.json`: what a checkpoint consists of, so that a damaged one is recognised before it is used.

    format       of the checkpoint, see `FORMAT`
    package      version of optimscheduler that wrote it
    torch        its version
    batch        the last batch that is in it
    ranks        how many wrote it
    fingerprint  of the run's configuration
    metrics      means over the held-out data with these weights, or null
    files        name -> {bytes, sha256}
    checksum     sha256 of everything above

The checksums find damage; they do not prove who has written the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from optimscheduler import __version__

__all__ = ["FORMAT", "MANIFEST", "Damage", "Manifest", "file_entry"]

FORMAT: Final = 3
"""Of checkpoints as they are written now."""

MANIFEST: Final = "manifest.json"

_LARGEST_MANIFEST: Final = 64 * 2**20  # bytes of a manifest; a file of it takes some 150


class Damage(Exception):  # noqa: N818 -- what is found, for whoever reads checkpoints to tell
    """Why a checkpoint cannot be used; the text goes on after its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a checkpoint consists of; see above."""

    batch: int
    ranks: int
    fingerprint: str
    metrics: dict[str, float] | None
    files: dict[str, dict[str, int | str]]
    format: int = FORMAT
    package: str = __version__
    torch: str = torch.__version__

    def write(self, folder: Path) -> None:
        """Into a folder; not synced."""
        (folder / MANIFEST).write_bytes(_text(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """That of a checkpoint.

        Raises:
            Damage: it is missing, changed, or of a format that is not known here.
            OSError: it cannot be read.
        """
        path = folder / MANIFEST
        if path.is_symlink() or not path.is_file():
            raise Damage(f"{MANIFEST} is {'a link' if path.is_symlink() else 'missing'}")
        with path.open("rb") as file:
            text = file.read(_LARGEST_MANIFEST + 1)
        try:
            content: Any = json.loads(text) if len(text) <= _LARGEST_MANIFEST else None
            content.pop("checksum")
            version = content["format"]
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            raise Damage(f"{MANIFEST} is not what was written") from None
        if version != FORMAT:
            raise Damage(
                f"it has format {version!r:.20}, written by version {content.get('package')!r:.20}; this "
                f"package, version {__version__}, reads format {FORMAT}"
            )
        if text != _text(content) or set(content) != set(cls.__slots__):
            raise Damage(f"{MANIFEST} is not what was written, its checksum is another")
        return cls(**content)

    def check(self, folder: Path, names: Iterable[str]) -> None:
        """Check some of the files, every byte of them, and that no other tensors are there.

        Raises:
            Damage: one is missing, is not what was written, or was put there.
            OSError: one cannot be read.
        """
        if others := {file.name for file in folder.glob("*.safetensors")} - set(self.files):
            raise Damage(f"{min(others)} does not belong to it")
        for name in names:
            entry, path = self.files[name], folder / name
            if Path(name).name != name or path.is_symlink() or not path.is_file():
                raise Damage(f"{name} is {'a link' if path.is_symlink() else 'missing'}")
            size = path.stat().st_size
            if size != entry["bytes"]:
                raise Damage(f"{name} has {size:,} bytes, and {entry['bytes']:,} were written")
            if file_entry(path) != entry:
                raise Damage(f"{name} is not what was written, its checksum is another")


def file_entry(path: Path) -> dict[str, int | str]:
    """Size and checksum of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def _text(content: Mapping[str, Any]) -> bytes:
    """As it is written, byte for byte, with the checksum of what it says."""
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({**content, "checksum": digest}, indent=1).encode()

"""Every way in which bytes and names of a checkpoint can be damaged."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from optimscheduler.run.checkpoint.io import PLAIN
from optimscheduler.run.checkpoint.manifest import MANIFEST

__all__ = ["DAMAGES", "Damage"]

_Do = Callable[[Path, Path, random.Random], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One way.

    Attributes:
        do: it, to the newest checkpoint; is given the one before as well, and a source of chance.
        refused: how many of the newest checkpoints cannot be used afterwards.
    """

    do: _Do
    refused: int = 1


def _any_file(path: Path, chance: random.Random) -> Path:
    return chance.choice(sorted(path.iterdir()))


def _flip(path: Path, _older: Path, chance: random.Random) -> None:
    file = _any_file(path, chance)
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def _truncate(path: Path, _older: Path, chance: random.Random) -> None:
    file = _any_file(path, chance)
    os.truncate(file, chance.randrange(file.stat().st_size))


def _lengthen(path: Path, _older: Path, chance: random.Random) -> None:
    with _any_file(path, chance).open("ab") as file:
        file.write(chance.randbytes(chance.randrange(1, 100)))


def _zero(path: Path, _older: Path, chance: random.Random) -> None:
    """A block of zeros, as a file system leaves it that has lost power."""
    file = _any_file(path, chance)
    content = bytearray(file.read_bytes())
    while content == file.read_bytes():  # there may be zeros already
        first = chance.randrange(max(1, len(content) - 4))
        end = min(len(content), first + 512)
        content[first:end] = bytes(end - first)
    file.write_bytes(content)


def _zero_all(path: Path, _older: Path, _chance: random.Random) -> None:
    """The right size, and nothing in it."""
    size = (path / PLAIN).stat().st_size
    (path / PLAIN).write_bytes(bytes(size))


def _clear(path: Path, _older: Path, chance: random.Random) -> None:
    os.truncate(_any_file(path, chance), 0)


def _remove(path: Path, _older: Path, chance: random.Random) -> None:
    _any_file(path, chance).unlink()


def _empty(path: Path, _older: Path, chance: random.Random) -> None:
    for file in path.iterdir():
        file.unlink()


def _swap_inside(path: Path, _older: Path, chance: random.Random) -> None:
    one, other = chance.sample(sorted(path.iterdir()), 2)
    aside = one.rename(path / "aside")
    other.rename(one)
    aside.rename(other)


def _swap_with_older(path: Path, older: Path, chance: random.Random) -> None:
    file = _any_file(path, chance)
    shutil.copy(older / file.name, file)


def _manifest_of_older(path: Path, older: Path, _chance: random.Random) -> None:
    shutil.copy(older / MANIFEST, path / MANIFEST)


def _link(file: Path) -> None:
    """To what it was, byte for byte, in another place, where anybody may change it."""
    moved = file.parents[2] / f"elsewhere-{file.name}"
    file.rename(moved)
    file.symlink_to(moved)


def _manifest_linked(path: Path, _older: Path, _chance: random.Random) -> None:
    _link(path / MANIFEST)


def _shard_linked(path: Path, _older: Path, chance: random.Random) -> None:
    _link(chance.choice(sorted(path.glob("*.safetensors"))))


def _folder_for_file(path: Path, _older: Path, chance: random.Random) -> None:
    file = _any_file(path, chance)
    file.unlink()
    file.mkdir()


def _put_there(path: Path, older: Path, chance: random.Random) -> None:
    file = chance.choice(sorted(older.glob("*.safetensors")))
    shutil.copy(file, path / f"shard-00002-{file.name[12:]}")


def _renamed(path: Path, older: Path, _chance: random.Random) -> None:
    shutil.rmtree(path)
    shutil.copytree(older, path)


def _version(path: Path, _older: Path, chance: random.Random) -> None:
    content = json.loads((path / MANIFEST).read_text())
    content["format"] = chance.choice([0, 1, 2, 4, 99, -1, "3", None, 3.5, [3], 10**400])
    (path / MANIFEST).write_text(json.dumps(content, indent=1))


def _file_for_folder(path: Path, _older: Path, chance: random.Random) -> None:
    shutil.rmtree(path)
    path.write_bytes(chance.randbytes(1000))


def _half_written(path: Path, _older: Path, chance: random.Random) -> None:
    """A newer one that a killed process has left: some of its files, the last of them in part."""
    batch = int(path.name.removeprefix("batch-")) + chance.randrange(1, 4)
    aside = path.with_name(f"batch-{batch:08d}.tmp")
    aside.mkdir()
    files = [path / PLAIN, *sorted(path.glob("*.safetensors")), path / MANIFEST]
    for file in files[: chance.randrange(1, len(files) + 1)]:
        last = shutil.copy(file, aside / file.name)
    os.truncate(last, chance.randrange(last.stat().st_size))


def _two(path: Path, older: Path, chance: random.Random) -> None:
    """The one before is damaged as well, in another way."""
    newest, before = chance.sample([_flip, _truncate, _zero, _remove, _empty, _version, _file_for_folder], 2)
    newest(path, older, chance)
    before(older, older, chance)


DAMAGES: dict[str, Damage] = {
    "bit flips": Damage(do=_flip),
    "truncated files": Damage(do=_truncate),
    "lengthened files": Damage(do=_lengthen),
    "blocks of zeros": Damage(do=_zero),
    "plain values all zeros": Damage(do=_zero_all),
    "files without content": Damage(do=_clear),
    "missing files": Damage(do=_remove),
    "empty folders": Damage(do=_empty),
    "files swapped with one another": Damage(do=_swap_inside),
    "files of an older checkpoint": Damage(do=_swap_with_older),
    "manifests of an older checkpoint": Damage(do=_manifest_of_older),
    "manifests replaced by links": Damage(do=_manifest_linked),
    "shards replaced by links": Damage(do=_shard_linked),
    "files replaced by folders": Damage(do=_folder_for_file),
    "files that were put there": Damage(do=_put_there),
    "older checkpoints under a newer name": Damage(do=_renamed),
    "wrong versions": Damage(do=_version),
    "files in place of the folder": Damage(do=_file_for_folder),
    "half-written newer ones beside it": Damage(do=_half_written, refused=0),
    "the newest two in different ways": Damage(do=_two, refused=2),
}
"""Name -> what is done. They are as many as divide the drill's number into equal shares."""

"""Checkpoints damaged in every way that bytes and names can be, and a run that is to go on."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from optimscheduler.run.manifest import MANIFEST
from tests.faults.row import Row
from tests.faults.same import difference
from tests.run.command import YAML, call, checkpoints, write

__all__ = ["drill"]

Damage = Callable[[Path, Path, random.Random], None]


def drill(count: int, folder: Path, seed: int = 0) -> Row:
    """Damage the newest of two checkpoints that many times, and resume."""
    config, chance = write(folder, YAML), random.Random(seed)
    settings = ("save_in_background=false",)
    whole, begun = folder / "whole", folder / "begun"
    assert call("train", config, *settings, "--out", whole).code == 0
    assert call("train", config, *settings, "--out", begun, "--stop-after", 9).code == 130
    older, newest = checkpoints(begun)
    done: Counter[str] = Counter()
    failures = []
    for number in range(count):
        name = list(_DAMAGES)[number % len(_DAMAGES)]
        done[name] += 1
        run = folder / f"run-{number}"
        shutil.copytree(begun, run)
        _DAMAGES[name](run / "checkpoints" / newest, run / "checkpoints" / older, chance)
        try:
            failure = _failure(config, settings, run, older, newest) or difference(whole, run)
        except Exception as error:  # a traceback is what must not be
            failure = repr(error)
        if failure:
            failures.append(f"{number}, {name}: {failure}")
        else:
            shutil.rmtree(run)
    kinds = ", ".join(f"{n} {name}" for name, n in done.items())
    return Row(
        drill="damaged checkpoints: " + kinds,
        promise="each is recognised, named and set aside, and the older one is used; the run ends as if "
        "nothing had happened",
        count=count,
        figures=f"{count - len(failures)} of {count} recognised, and ended identical to the whole run",
        failures=tuple(failures),
    )


def _failure(config: Path, settings: tuple[str, ...], run: Path, older: str, newest: str) -> str | None:
    """What is wrong with how the run goes on."""
    said = call("train", config, *settings, "--out", run, "--resume")
    if said.code != 0:
        return f"exit code {said.code}: {said.err}"
    if f"{newest} cannot be used: " not in said.out:
        return f"not recognised: {said.out[:300]}"
    if f"resuming   from {run / 'checkpoints' / older}," not in said.out:
        return "the older one is not used"
    if not any(name.startswith(f"{newest}.damaged") for name in checkpoints(run)):
        return "it is not set aside"
    return None


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
    first = chance.randrange(max(1, len(content) - 4))
    end = min(len(content), first + 512)
    content[first:end] = bytes(end - first)
    file.write_bytes(content)


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


_DAMAGES: dict[str, Damage] = {
    "bit flips": _flip,
    "truncated files": _truncate,
    "lengthened files": _lengthen,
    "blocks of zeros": _zero,
    "missing files": _remove,
    "empty folders": _empty,
    "files swapped with one another": _swap_inside,
    "files of an older checkpoint": _swap_with_older,
    "files that were put there": _put_there,
    "older checkpoints under a newer name": _renamed,
    "wrong versions": _version,
    "files in place of the folder": _file_for_folder,
}

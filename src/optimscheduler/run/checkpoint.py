"""Checkpoints of a run: each whole or not there at all, found damaged before it is used.

A checkpoint is a folder, `batch-00000012`:

  manifest.json        what it consists of, with checksums; see `manifest.py`
  plain.json           everything that is no tensor, and where the tensors belong
  shard-*.safetensors  the tensors, written by `torch.distributed.checkpoint`, each rank its share

It is written under another name, synced, and renamed. Nothing in it is executed when it is read, and any
number of ranks can read what another has written.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from optimscheduler.errors import CheckpointError
from optimscheduler.run.background import Background
from optimscheduler.run.checkpoint_files import (
    PLAIN,
    entries_of,
    reason,
    remove,
    sync,
    told_reading,
    told_writing,
    written,
)
from optimscheduler.run.manifest import MANIFEST, Damage, Manifest
from optimscheduler.run.old_formats import is_old, read_old
from optimscheduler.run.plain_json import read_plain
from optimscheduler.run.retention import Retention
from optimscheduler.run.tensors import (
    Like,
    check_tensors,
    places_of,
    read_tensors,
    staged,
    unique_tensors,
    whole,
    without_tensors,
    write_tensors,
)
from optimscheduler.run.world import ALONE, World
from optimscheduler.state import fingerprint

__all__ = ["Checkpoints"]

_log = logging.getLogger("optimscheduler")

State = dict[str, Any]  # Any: a tree of plain values and tensors

_NAME: Final = re.compile(r"batch-(\d{8,})(?:-(\d+)|\.pt)?")
_LARGEST: Final = 2**30  # bytes of it
_KEYS: Final = {"config", "model", "optim_sches", "progress", "random", "lengths"}
_DAMAGED: Final = ".damaged"


class Checkpoints:
    """The checkpoints in one folder, named after the batch they were written after.

    Args:
        folder: made when the first is written; all ranks see the same.
        retention: which of them stay; None is the newest two.
        world: who writes and reads.
    """

    def __init__(self, folder: Path, retention: Retention | None = None, world: World = ALONE) -> None:
        self.folder, self.retention, self._world = folder, retention or Retention(), world
        self._beside = world.apart()  # what is written in the background must not mix with the training
        self._background = Background()
        self._metrics: dict[str, dict[str, float] | None] = {}

    def all(self) -> list[Path]:
        """Oldest first."""
        found = [(name, p) for p in self.folder.glob("batch-*") if (name := _NAME.fullmatch(p.name))]
        return [p for _, p in sorted(found, key=lambda each: (int(each[0][1]), int(each[0][2] or 1)))]

    # ---- writing ----

    def finish(self) -> None:
        """Wait for the one that is being written.

        Raises:
            CheckpointError: it could not be written.
        """
        self._background.finish()

    def save(
        self,
        batch: int,
        state: Mapping[str, Any],
        *,
        metrics: Mapping[str, float] | None = None,
        background: bool = False,
    ) -> Path:
        """Write one, then remove those that are too many, and what a killed process left half written.

        Args:
            batch: the last batch that is in it.
            state: a nested dict with the keys of a run's checkpoint; what is no tensor is rank 0's.
            metrics: means over the held-out data, if these weights were validated.
            background: return when everything is copied, and write it beside the training. How that went
                is said by `finish`, or by the next call of this.

        Raises:
            CheckpointError: it cannot be written; or the one before could not, and then this was not tried.
        """
        self.finish()
        path = self.folder / self._world.gather(self._free(batch).name)[0]
        tensors = unique_tensors(state)
        plain = written({"tensors": places_of(state), "plain": without_tensors(state)}, path)
        manifest = Manifest(
            batch=batch,
            ranks=self._world.count,
            fingerprint=f"{fingerprint(state['config']):012x}",
            metrics=None if metrics is None else dict(metrics),
            files={},
        )
        if background:
            copies = staged(tensors)
            self._background.start(lambda: self._write(path, copies, plain, manifest, self._beside))
        else:
            self._write(path, tensors, plain, manifest, self._world)
        return path

    def _free(self, batch: int) -> Path:
        """A name that is not taken: of the same batch there may be one from before a validation."""
        first = self.folder / f"batch-{batch:08d}"
        names = (first.with_name(f"{first.name}-{number}") for number in count(2))
        return next(path for path in chain([first], names) if not path.exists())

    def _write(
        self, path: Path, tensors: dict[str, Tensor], plain: bytes, manifest: Manifest, world: World
    ) -> None:
        aside = path.with_suffix(".tmp")
        with told_writing(path):
            world.together(lambda: self._begin(path, aside, plain, world))
            write_tensors(aside, tensors, world)
            mine = world.together(lambda: entries_of(path, aside, world))
            for each in world.gather(mine):
                manifest.files.update(each)
            world.together(lambda: self._finish(path, aside, manifest, world))

    def _begin(self, path: Path, aside: Path, plain: bytes, world: World) -> None:
        if world.main:
            with told_writing(path):
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
                with (aside / PLAIN).open("wb") as file:
                    file.write(plain)
                    file.flush()
                    os.fsync(file.fileno())

    def _finish(self, path: Path, aside: Path, manifest: Manifest, world: World) -> None:
        """Write what it consists of, give the folder its name, remove what is too much."""
        if not world.main:
            return
        with told_writing(path):
            manifest.write(aside)
            sync(aside / MANIFEST)
            sync(aside)
            aside.replace(path)
            sync(self.folder)
        with told_writing(path, "is written, but older ones cannot be removed"):
            self._tidy(path)

    def _tidy(self, newest: Path) -> None:
        batch = newest.name.removeprefix("batch-").partition("-")[0]
        others = [old for old in self.all() if old != newest]
        same = [old for old in others if old.name.removesuffix(".pt").split("-")[1] == batch]
        different = [old for old in others if old not in same] + [newest]
        kept = self.retention.kept([(p.name, self._metrics_of(p)) for p in different])
        for old in [*same, *(p for p in different if p.name not in kept)]:
            remove(old)
        for left in self.folder.glob("batch-*.tmp"):
            remove(left)
        self._metrics = {name: means for name, means in self._metrics.items() if name in kept}

    def _metrics_of(self, path: Path) -> dict[str, float] | None:
        if path.name not in self._metrics:
            try:
                self._metrics[path.name] = None if is_old(path) else Manifest.read(path).metrics
            except (Damage, OSError):
                self._metrics[path.name] = None
        return self._metrics[path.name]

    # ---- reading ----

    def newest(self) -> Path | None:
        """The newest that is whole. Damaged ones that are newer are set aside, with a warning for each.

        Raises:
            CheckpointError: there are some, and none of them is whole; the message says what to type.
        """
        names = [path.name for path in self.all()]
        self._world.same("list of checkpoints in the run folder", names)
        for name in reversed(names):
            path = self.folder / name
            found = self._world.gather(self.damage(path, self._world.rank, self._world.count))
            damage = next(filter(None, found), None)
            if damage is None:
                return path
            if self._world.main:
                self._set_aside(path, damage)
            self._world.wait()
        if self._world.gather(bool(list(self.folder.glob(f"batch-*{_DAMAGED}*"))))[0]:
            raise CheckpointError(
                f"there is no whole checkpoint in {self.folder}, only damaged ones (*{_DAMAGED}). Put a copy "
                "of a whole one there, or start over with --out ANOTHER_DIR"
            )
        return None

    def damage(self, path: Path, rank: int = 0, ranks: int = 1) -> str | None:
        """Why a checkpoint cannot be used; None if it can.

        Args:
            path: from `all`.
            rank: which share of the files to check.
            ranks: into how many shares they are divided.
        """
        try:
            if is_old(path):
                state = self._content(path)
                if path.is_dir():
                    check_tensors(path, [name for _, name in state["tensors"]])
            else:
                manifest = Manifest.read(path)
                named = _NAME.fullmatch(path.name)
                if named and int(named[1]) != manifest.batch:
                    raise Damage(f"what is in it was written after batch {manifest.batch}")
                if PLAIN not in manifest.files:
                    raise Damage(f"it has no {PLAIN}")
                manifest.check(path, sorted(manifest.files)[rank::ranks])
        except Exception as error:  # a damaged archive fails in many ways
            return f"{reason(error):.200}"
        return None

    def _set_aside(self, path: Path, damage: str) -> None:
        names = chain([_DAMAGED], (f"{_DAMAGED}-{number}" for number in count(2)))
        aside = next(p for p in (path.with_name(path.name + name) for name in names) if not p.exists())
        try:
            path.rename(aside)
        except OSError as error:
            aside = path
            damage += f" (and it cannot be renamed: {error.strerror})"
        _log.warning("%s cannot be used: %s. It is set aside as %s", path, damage, aside.name)

    def content(self, path: Path) -> State:
        """Everything in one but the tensors.

        Raises:
            CheckpointError: see `load`.
        """
        with told_reading(path):
            return self._content(path)

    def load(self, path: Path, like: Like = whole) -> State:
        """Read one; nothing in it is executed.

        Args:
            path: from `newest`, or from `all` if it has no `damage`.
            like: what to read each tensor into.

        Raises:
            CheckpointError: it is damaged.
        """
        with told_reading(path):
            state = self._content(path)
            places = state.pop("tensors", [])
            check_tensors(path, [name for _, name in places])
            read_tensors(path, state, places, like, self._world)
        return state

    def _content(self, path: Path) -> State:
        """Everything but the tensors; of a file from a single process those as well."""
        if is_old(path):
            state = read_old(path)
        else:
            if not path.is_dir():
                raise Damage("it is not there")
            if (path / PLAIN).stat().st_size > _LARGEST:
                raise Damage(f"{PLAIN} is larger than {_LARGEST:,} bytes")
            content = read_plain((path / PLAIN).read_bytes())
            state = {**content["plain"], "tensors": content["tensors"]}
        if not set(state) >= _KEYS:
            raise Damage("it is no checkpoint of a run")
        return state

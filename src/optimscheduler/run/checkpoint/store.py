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
from optimscheduler.plain_config import fingerprint
from optimscheduler.run.checkpoint.background import Background
from optimscheduler.run.checkpoint.io import (
    PLAIN,
    entries_of,
    names_in,
    reason,
    remove,
    sync,
    told_reading,
    told_writing,
    written,
)
from optimscheduler.run.checkpoint.manifest import MANIFEST, Damage, Manifest
from optimscheduler.run.checkpoint.reader import NAME, damage_of, read_content
from optimscheduler.run.checkpoint.retention import Retention
from optimscheduler.run.checkpoint.tensors import (
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
from optimscheduler.run.distributed.world import ALONE, World

__all__ = ["Checkpoints"]

_log = logging.getLogger("optimscheduler")

State = dict[str, Any]  # Any: a tree of plain values and tensors

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
        """Oldest first.

        Raises:
            CheckpointError: the folder is there, and cannot be looked into.
        """
        found = [match for name in names_in(self.folder) if (match := NAME.fullmatch(name))]
        found.sort(key=lambda match: (int(match[1]), int(match[2] or 1)))
        return [self.folder / match[0] for match in found]

    # ---- writing ----

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._background.busy

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
        copies = self._copies(tensors) if background else None
        if copies is not None:
            self._background.start(lambda: self._write(path, copies, plain, manifest, self._beside))
        else:
            self._write(path, tensors, plain, manifest, self._world)
        return path

    def _copies(self, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """Copies that training does not touch; None where some rank has no memory for them."""
        try:
            copies = staged(tensors)
        except (MemoryError, RuntimeError) as error:  # the latter is torch's
            copies = None
            _log.warning(
                "there is no memory to copy the weights (%s), so training waits until they are written; "
                "save_in_background: false always does that",
                reason(error),
            )
        return copies if all(self._world.gather(copies is not None)) else None

    def _free(self, batch: int) -> Path:
        """A name that comes after all others: of the same batch there may be one from before a validation."""
        first = self.folder / f"batch-{batch:08d}"
        try:
            names = os.listdir(self.folder)
        except OSError:  # the writing will say why
            names = []
        found = [match for name in names if (match := NAME.fullmatch(name)) and int(match[1]) == batch]
        last = max((int(match[2] or 1) for match in found), default=0)
        return first.with_name(f"{first.name}-{last + 1}") if last else first

    def _write(
        self, path: Path, tensors: dict[str, Tensor], plain: bytes, manifest: Manifest, world: World
    ) -> None:
        aside = path.with_suffix(".tmp")
        with told_writing(path):
            world.run_on_all_ranks(lambda: self._begin(path, aside, plain, world))
            write_tensors(aside, tensors, world)
            mine = world.run_on_all_ranks(lambda: entries_of(path, aside, world))
            for each in world.gather(mine):
                manifest.files.update(each)
            world.run_on_all_ranks(lambda: self._finish(path, aside, manifest, world))

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
        try:
            self._tidy(path)
        except (CheckpointError, OSError) as error:
            _log.warning("%s is written, but older ones cannot be removed: %s", path, reason(error))

    def _tidy(self, newest: Path) -> None:
        batch = newest.name.removeprefix("batch-").partition("-")[0]
        others = [old for old in self.all() if old != newest]
        same = [old for old in others if old.name.split("-")[1] == batch]
        different = [old for old in others if old not in same] + [newest]
        kept = self.retention.kept([(p.name, self._metrics_of(p)) for p in different])
        left = self.folder.glob("batch-*.tmp")
        for old in [*same, *(p for p in different if p.name not in kept), *left]:
            try:
                remove(old)
            except OSError as error:
                _log.warning("%s cannot be removed: %s", old, reason(error))
        self._metrics = {name: means for name, means in self._metrics.items() if name in kept}

    def _metrics_of(self, path: Path) -> dict[str, float] | None:
        if path.name not in self._metrics:
            try:
                self._metrics[path.name] = Manifest.read(path).metrics
            except (Damage, OSError):
                self._metrics[path.name] = None
        return self._metrics[path.name]

    # ---- reading ----

    def newest(self) -> Path | None:
        """The newest that is whole. Damaged ones that are newer are set aside, with a warning for each.

        Raises:
            CheckpointError: there are some, and none of them is whole; or whether one is whole cannot be
                found out. The message says what to type.
        """
        names = [path.name for path in self.all()]
        self._world.same("list of checkpoints in the run folder", names)
        for name in reversed(names):
            path = self.folder / name
            damage = self._damage_on_any(path)
            if damage is None:
                return path
            if self._world.main:
                self._set_aside(path, damage)
            self._world.wait()
        damaged = re.compile(rf"{NAME.pattern}|batch-.*{re.escape(_DAMAGED)}(-\d+)?")
        aside = [name for name in names_in(self.folder) if damaged.fullmatch(name)]
        if self._world.gather(aside)[0]:
            raise CheckpointError(
                f"there is no whole checkpoint in {self.folder}, only damaged ones: "
                f"{', '.join(sorted(aside))}. Put a copy of a whole one there (to try one again, take "
                f"{_DAMAGED} off its name), or start over with --out ANOTHER_DIR"
            )
        return None

    def _damage_on_any(self, path: Path) -> str | None:
        """What a rank has found in its share of the files."""
        try:
            damage, trouble = damage_of(path, self._world.rank, self._world.count), None
        except CheckpointError as error:
            damage, trouble = None, str(error)
        found = self._world.gather((damage, trouble))
        for _, trouble in found:
            if trouble is not None:
                raise CheckpointError(trouble)
        return next((damage for damage, _ in found if damage is not None), None)

    def _set_aside(self, path: Path, damage: str) -> None:
        names = chain([_DAMAGED], (f"{_DAMAGED}-{number}" for number in count(2)))
        aside = next(p for p in (path.with_name(path.name + name) for name in names) if not p.exists())
        try:
            path.rename(aside)
            became = f"It is set aside as {aside.name}"
        except OSError as error:
            became = f"It cannot be renamed: {error.strerror}"
        _log.warning("%s cannot be used: %s. %s", path, damage, became)

    def load(self, path: Path, like: Like = whole) -> State:
        """Read one; nothing in it is executed.

        Args:
            path: from `newest`, or from `all` if it is not damaged.
            like: what to read each tensor into.

        Raises:
            CheckpointError: it is damaged.
        """
        with told_reading(path):
            state = read_content(path)
            places = state.pop("tensors", [])
            check_tensors(path, [name for _, name in places])
            read_tensors(path, state, places, like, self._world)
        return state

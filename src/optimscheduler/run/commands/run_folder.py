"""The folder of a run, and whether one may run in it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from optimscheduler.errors import CheckpointError, ConfigError
from optimscheduler.plain_config import differences
from optimscheduler.run.checkpoint.io import sync
from optimscheduler.run.checkpoint.store import Checkpoints
from optimscheduler.run.config.schema import RunConfig, without_free
from optimscheduler.run.config.strict_yaml import write_text

__all__ = [
    "CONFIG",
    "RunFolder",
    "check_folder",
    "check_same_configuration",
    "jobs_of",
    "keep_jobs",
    "keep_source",
    "make_folder",
    "source_of",
]

_log = logging.getLogger("optimscheduler")

CONFIG: Final = "config.yaml"
"""The resolved configuration, in the run folder."""

_SOURCE: Final = "source.txt"  # beside it: where classes named in it are looked for
_JOB: Final = "torchrun.txt"  # beside it: the job that has trained here last
_OURS: Final = {name + end for name in (CONFIG, _SOURCE, _JOB) for end in ("", ".tmp")}


def check_folder(folder: Path, checkpoints: Checkpoints, *, resume: bool) -> None:
    """Check that nothing in it would be lost.

    Raises:
        ConfigError: there is a run, and `resume` was not said.
    """
    saved = checkpoints.all()
    if not resume and (saved or _holds_something(folder)):
        raise ConfigError(
            f"{folder} holds {'a run' if saved else 'files'} already. Type one of these in addition:\n"
            "  --resume            to go on with it\n"
            "  --out ANOTHER_DIR   to leave it alone and start anew"
        )


def _holds_something(folder: Path) -> bool:
    """Whether there is more than what a run leaves that failed before its first window."""
    try:
        inside = list(folder.iterdir()) if folder.is_dir() else []
        return any(path.lstat().st_size > 0 or path.is_dir() for path in inside if path.name not in _OURS)
    except OSError as error:
        raise ConfigError(f"the run folder {folder} cannot be read: {error.strerror}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The folder of a run, and what it says of the run apart from metrics and checkpoints.

    Attributes:
        folder: its path.
        config: of the run.
        source: folder in which modules that the configuration names are found; None if that is not known.
        jobs: what each rank's `job_of_process` is.
    """

    folder: Path
    config: RunConfig
    source: Path | None
    jobs: tuple[str, ...] = ()

    def write(self) -> None:
        """All of it.

        Raises:
            ConfigError: it cannot be written.
        """
        make_folder(self.folder, self.config.plain())
        keep_source(self.folder, self.source)
        keep_jobs(self.folder, self.jobs)

    def put_back(self) -> None:
        """If somebody has removed it."""
        if not os.path.lexists(self.folder / CONFIG):
            try:
                self.write()
            except ConfigError as error:
                _log.warning("%s", error)


def make_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Make the run folder and write `config.yaml` into it.

    Raises:
        ConfigError: it cannot be written.
    """
    _write(folder, CONFIG, write_text(dict(config)))


def keep_source(folder: Path, source: Path | None) -> None:
    """Write down in which folder modules that the configuration names are found.

    Raises:
        ConfigError: it cannot be written.
    """
    if source is not None:
        _write(folder, _SOURCE, f"{source.resolve()}\n")


def source_of(folder: Path) -> Path | None:
    """What `keep_source` has written; None where there is nothing."""
    source = _read(folder, _SOURCE)
    return Path(source) if source else None


def keep_jobs(folder: Path, jobs: Iterable[str]) -> None:
    """Write down which torchrun job trains here, so that its processes go on by themselves when restarted.

    Raises:
        ConfigError: it cannot be written.
    """
    lines = sorted({job for job in jobs if job})
    if lines or os.path.lexists(folder / _JOB):
        _write(folder, _JOB, "".join(f"{line}\n" for line in lines))


def jobs_of(folder: Path) -> set[str]:
    """What `keep_jobs` has written."""
    return set(_read(folder, _JOB).splitlines())


def _write(folder: Path, name: str, text: str) -> None:
    """A file of the run folder, whole or as it was before."""
    aside = folder / f"{name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        sync(aside)
        aside.replace(folder / name)
    except OSError as error:
        raise ConfigError(
            f"the run folder {folder} cannot be written: {error.strerror or error}. Choose another with --out"
        ) from None


def _read(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def check_same_configuration(saved: Mapping[str, Any], now: Mapping[str, Any], *, decided: bool) -> list[str]:
    """The settings in which a run differs from its checkpoint, those left out that may change freely.

    Args:
        saved: from the checkpoint.
        now: of this run.
        decided: whether the user has said which side wins.

    Raises:
        CheckpointError: there are some, and the user has not.
    """
    lines = list(differences(without_free(saved), without_free(now)))
    if lines and not decided:
        raise CheckpointError(
            "the checkpoint is of another configuration:\n  "
            + "\n  ".join(lines)
            + "\nType one of these in addition:\n"
            "  --on-mismatch config       to go on with the configuration as it is now\n"
            "  --on-mismatch checkpoint   to go on with that of the checkpoint"
        )
    return lines

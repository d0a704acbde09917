"""The folder of a run, and whether one may run in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from optimscheduler.errors import CheckpointError, ConfigError
from optimscheduler.run.checkpoint import Checkpoints
from optimscheduler.run.config import without_free
from optimscheduler.run.yaml_file import write_text
from optimscheduler.state import differences

__all__ = ["CONFIG", "check_folder", "check_same_configuration", "keep_source", "make_folder", "source_of"]

CONFIG: Final = "config.yaml"
"""The resolved configuration, in the run folder."""

_SOURCE: Final = "source.txt"  # beside it: where classes named in it are looked for


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
    except OSError as error:
        raise ConfigError(f"the run folder {folder} cannot be read: {error.strerror}") from None
    found = [path for path in inside if path.name not in (CONFIG, _SOURCE)]
    return any(path.is_dir() or path.stat().st_size > 0 for path in found)


def make_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Make the run folder and write `config.yaml` into it.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(write_text(dict(config)), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the run folder {folder} cannot be written: {error.strerror or error}. Choose another with --out"
        ) from None


def keep_source(folder: Path, source: Path | None) -> None:
    """Write down in which folder modules that the configuration names are found."""
    if source is not None:
        (folder / _SOURCE).write_text(f"{source.resolve()}\n", encoding="utf-8")


def source_of(folder: Path) -> Path | None:
    """What `keep_source` has written; None where there is nothing."""
    try:
        return Path((folder / _SOURCE).read_text(encoding="utf-8").strip())
    except OSError:
        return None


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

"""The folder of a run, and whether one may run in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimscheduler.errors import CheckpointError, ConfigError
from optimscheduler.run.checkpoint import Checkpoints
from optimscheduler.run.config import without_free
from optimscheduler.run.monitor.jsonl import METRICS
from optimscheduler.run.yaml_file import write_text
from optimscheduler.state import differences

__all__ = ["check_same_configuration", "find_run", "make_folder"]


def find_run(folder: Path, checkpoints: Checkpoints, *, resume: bool) -> Path | None:
    """The newest checkpoint of the run to go on with; None is a new run.

    Raises:
        ConfigError: there is a run, and `resume` was not said.
    """
    saved = checkpoints.all()
    metrics = folder / METRICS
    if (saved or (metrics.is_file() and metrics.stat().st_size > 0)) and not resume:
        raise ConfigError(
            f"{folder} holds a run already. Type one of these in addition:\n"
            "  --resume            to go on with it\n"
            "  --out ANOTHER_DIR   to leave it alone and start anew"
        )
    return saved[-1] if saved else None


def make_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Make the run folder and write `config.yaml` into it.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(write_text(dict(config)), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the run folder {folder} cannot be written: {error.strerror or error}. Choose another with --out"
        ) from None


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

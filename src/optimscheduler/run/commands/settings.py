"""A configuration file as a command is given it, with what was changed on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optimscheduler.run.config.overrides import apply_overrides
from optimscheduler.run.config.schema import RunConfig, read_config
from optimscheduler.run.config.strict_yaml import read_file

__all__ = ["name_of_run", "read_settings"]


def read_settings(config: Path, overrides: Sequence[str]) -> RunConfig:
    """The checked configuration of a file.

    Args:
        config: the file.
        overrides: `KEY=VALUE`.

    Raises:
        ConfigError: with the place.
    """
    return read_config(apply_overrides(read_file(config), overrides), str(config))


def name_of_run(config: Path) -> str:
    """The name of a run: the file's, or its folder's where the file is called after what it is for."""
    stem = config.stem
    return config.resolve().parent.name if stem in ("train", "config") else stem

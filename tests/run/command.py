"""The command line in the tests: a configuration that every test changes a little, and a way to call it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from typer.testing import CliRunner

from optimscheduler.run.checkpoint.retention import Retention
from optimscheduler.run.checkpoint.store import Checkpoints
from optimscheduler.run.commands.cli import app
from optimscheduler.run.config.overrides import apply_overrides
from optimscheduler.run.config.schema import RunConfig, read_config
from optimscheduler.run.config.strict_yaml import read_text

__all__ = [
    "YAML",
    "Said",
    "call",
    "checkpoints",
    "config_of",
    "copied",
    "last_state",
    "last_weights",
    "metrics",
    "saved",
    "without_seconds",
    "write",
]

YAML = """\
seed: 3
num_epochs: 3
accum_grad: 2
use_amp: false
device: cpu
threads: 1
checkpoint_every: 2
log_every: 2
train_cfg:
  model: {type: tests.run.tiny.Tiny}
  optim_sches:
    type: noam.Noamlr
    conf:
      optim_type: Adam
      optim_conf: {lr: 1e-2}
      warmup_steps: 3
data_cfg:
  train: {type: tests.run.tiny.Points, conf: {count: 18}}   # 5 batches, the last of 2: 3 windows per epoch
  valid: {type: tests.run.tiny.Points, conf: {count: 6}}
  batch_size: 4
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


def config_of(*overrides: str, yaml: str = YAML) -> RunConfig:
    """The checked configuration."""
    return read_config(apply_overrides(read_text(yaml, "test"), overrides), "test")


def write(folder: Path, text: str = YAML) -> Path:
    """The configuration as a file."""
    path = folder / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def call(*arguments: object) -> Said:
    """Call the command in this process; an error that is no message for the user fails the test."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(code=result.exit_code, out=result.stdout, err=result.stderr)


def copied(run: Path, to: Path) -> Path:
    """A run folder, to be damaged."""
    return Path(shutil.copytree(run, to / "run"))


def metrics(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def without_seconds(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Only what must be equal in two equal runs."""
    return [{k: v for k, v in record.items() if not k.endswith("_seconds")} for record in records]


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def last_weights(folder: Path) -> Mapping[str, Tensor]:
    """The weights in the newest checkpoint."""
    weights: Mapping[str, Tensor] = last_state(folder)["model"]
    return weights


def last_state(folder: Path) -> dict[str, Any]:
    """What is in the newest checkpoint."""
    return saved(Checkpoints(folder / "checkpoints", Retention(newest=1)).all()[-1])


def saved(path: Path) -> dict[str, Any]:
    """What is in a checkpoint."""
    return Checkpoints(path.parent, Retention(newest=1)).load(path)

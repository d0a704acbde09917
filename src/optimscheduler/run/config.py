"""The configuration of a run: one YAML file, checked as a whole before anything is built."""

from __future__ import annotations

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from optimscheduler.errors import ConfigError, nearest
from optimscheduler.run import yaml_file

__all__ = ["ClassConf", "DataCfg", "RunConfig", "TrainCfg", "load", "read_config"]

Positive = Annotated[int, Field(ge=1)]


class _Checked(BaseModel):
    """No unknown keys, and no reinterpretation of values: `"2"` is no number and 2.5 no whole one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ClassConf(_Checked):
    """A class and its arguments."""

    type: str
    conf: dict[str, Any] = {}  # Any: checked against the signature of the class


class TrainCfg(_Checked):
    """What is trained, and how it is optimised.

    `weight` names the entry of the model's output that holds the number of items behind its mean losses.
    """

    model: ClassConf
    optim_sches: dict[str, Any]  # Any: checked by build_optim_sches
    weight: str | None = None


class DataCfg(_Checked):
    """What it is trained on."""

    train: ClassConf
    valid: ClassConf | None = None
    batch_size: Positive = 1
    valid_batch_size: Positive | None = None
    num_workers: Annotated[int, Field(ge=0)] = 0


class RunConfig(_Checked):
    """The whole of it. The experiment's keys keep the origin's names."""

    train_cfg: TrainCfg
    data_cfg: DataCfg
    num_epochs: Positive
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: str = "auto"
    threads: Positive | None = None
    # shared by all OptimSchedulers
    use_amp: bool | Literal["fp16", "bf16"] = True
    accum_grad: Positive = 1
    ft_factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    grad_clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 1.0
    grad_norm_type: Annotated[float, Field(ge=1)] | Literal["inf"] = 2.0
    # the runner's own
    partial_window: Literal["apply", "carry", "drop"] = "apply"
    checkpoint_every: Positive = 50
    keep: Positive = 2
    log_every: Positive = 10
    tensorboard: bool = False

    def plain(self) -> dict[str, Any]:
        """The resolved configuration as plain values, for `config.yaml` and checkpoints."""
        return self.model_dump(mode="json")


FREE = ("num_epochs", "device", "threads", "checkpoint_every", "keep", "log_every", "tensorboard")
"""Keys that a resumed run may change without being asked."""


def read_config(tree: dict[str, Any]) -> RunConfig:
    """Check a tree of plain values.

    Raises:
        ConfigError: one line for everything that is wrong.
    """
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(dict.fromkeys(_line(dict(e)) for e in error.errors()))) from None


def load(path: Path, assignments: Sequence[str] = ()) -> RunConfig:
    """Read a configuration file, with dotted overrides.

    Raises:
        ConfigError: see `yaml_file.read` and `read_config`.
    """
    tree = yaml_file.read(path)
    yaml_file.override(tree, assignments)
    return read_config(tree)


def _line(error: dict[str, Any]) -> str:
    """One mistake: place, what was given, what is allowed."""
    keys = [str(part) for part in error["loc"] if not _is_branch(part)]
    place = ".".join(keys)
    if error["type"] == "extra_forbidden":
        inside = ".".join(keys[:-1])
        known = _known(keys[:-1])
        return f"{inside or 'the configuration'}: unknown key {keys[-1]!r}. {nearest(keys[-1], known)}"
    if error["type"] == "missing":
        return f"{place} is missing"
    return f"{place}: {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r:.60}"


def _is_branch(part: object) -> bool:
    """Whether pydantic names an alternative of a union here, instead of a key."""
    return isinstance(part, str) and (part in ("bool", "int", "float", "constrained-float") or "[" in part)


def _known(keys: Sequence[str]) -> list[str]:
    """The keys that may stand at a place."""
    model: type[BaseModel] = RunConfig
    for key in keys:
        annotation = model.model_fields[key].annotation
        choices = (
            get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
        )
        model = next(c for c in choices if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)

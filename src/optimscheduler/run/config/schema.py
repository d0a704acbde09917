"""The configuration of a run: what may stand in the YAML, checked before anything is built.

    seed: 0
    num_epochs: 7
    accum_grad: 2
    train_cfg:
      model: {type: char_lm.CharLM, conf: {layers: 4}}
      optim_sches:
        type: noam.Noamlr
        conf: {optim_type: Adam, optim_conf: {lr: 3e-3}, warmup_steps: 100}
    data_cfg:
      train: {type: char_lm.PydocText, conf: {split: train}}
      valid: {type: char_lm.PydocText, conf: {split: valid}}
      batch_size: 16

Every field's description says what is allowed; it is the end of the message when something else is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from optimscheduler.errors import ConfigError
from optimscheduler.run.config.messages import told
from optimscheduler.update.clip import clip_for
from optimscheduler.window.clock import HOST

__all__ = [
    "FREE",
    "NO_HOST",
    "AverageConfig",
    "ClassConfig",
    "DataConfig",
    "RunConfig",
    "TrainConfig",
    "read_config",
    "with_free_of",
    "without_free",
]


def _whole(value: object) -> object:
    """1e3 is a whole number, though YAML reads a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _mapping(value: object) -> object:
    """`conf:` with nothing behind it is an empty mapping."""
    return {} if value is None else value


Whole = Annotated[int, BeforeValidator(_whole), Field(ge=1, lt=2**63)]
Conf = Annotated[dict[str, Any], BeforeValidator(_mapping)]  # Any: the arguments of some class

NO_HOST: Final = (
    "'host' is for a loop of your own, or a Trainer's, that says where a window ends; a run ends its windows "
    "itself: write a whole number of batches >= 1, or leave it out"
)
"""What to say of an `accum_grad` that waits for somebody who is not there."""

_MORE: Final = "a whole number >= 1"
_MOST_WORKERS: Final = 1_024  # beyond that it is a slip, which ends in as many processes


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ClassConfig(_Section):
    """A class and its arguments.

    Attributes:
        type: dotted path, `package.module.Name`.
        conf: keyword arguments.
    """

    type: str = Field(description="the dotted path of a class, 'package.module.Name'", min_length=1)
    conf: Conf = Field({}, description="a mapping of argument names to values")


class TrainConfig(_Section):
    """What is trained, and how.

    Attributes:
        model: an `nn.Module`; called with a batch, it returns a dict of losses and measures.
        optim_sches: for `build_optim_sches`.
        weight: name of the output that holds the number of items behind the mean loss, for `step(weight=)`.
    """

    model: ClassConfig = Field(description="a mapping with 'type' and 'conf'")
    optim_sches: dict[str, Any] = Field(
        description="a mapping with 'type' and 'conf'"
    )  # Any: build checks it
    weight: str | None = Field(None, description="the name of an output of the model, or null")


class DataConfig(_Section):
    """What is trained on.

    Attributes:
        train: a map-style `Dataset`.
        valid: another one, for validation at each epoch's end; None goes without.
        batch_size: items per batch, >= 1.
        valid_batch_size: None is `batch_size`.
        num_workers: processes that load data, 0 to 1024; changes no result.
    """

    train: ClassConfig = Field(description="a mapping with 'type' and 'conf'")
    valid: ClassConfig | None = Field(None, description="a mapping with 'type' and 'conf', or null")
    batch_size: Whole = Field(description=_MORE)
    valid_batch_size: Whole | None = Field(None, description=f"{_MORE}, or null for batch_size")
    num_workers: Annotated[int, BeforeValidator(_whole)] = Field(
        0, ge=0, le=_MOST_WORKERS, description=f"a whole number from 0 to {_MOST_WORKERS}"
    )


class AverageConfig(_Section):
    """A running average of the weights, see `Average`.

    Attributes:
        decay: 0 <= decay < 1; None is the plain mean.
        warm_up: a smaller decay in the first updates.
        start: updates that are left out, >= 0.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        0.999, description="a number >= 0 and < 1, or null for the plain mean"
    )
    warm_up: bool = Field(False, description="true or false")
    start: Annotated[int, BeforeValidator(_whole)] = Field(
        0, ge=0, lt=2**63, description="a whole number of updates >= 0"
    )


class RunConfig(_Section):
    """Everything that one YAML says; the sections above are its inner mappings.

    Attributes:
        seed: of weights, data order and dropout, 0 to 2^63 - 1.
        num_epochs: epochs, >= 1.
        num_steps: windows after which the run ends, though epochs are left; None is never.
        accum_grad: batches per window, >= 1; None is 1, or what one of the next two makes.
        samples_per_update: items behind one gradient, over all ranks; `accum_grad` follows from it.
        tokens_per_update: the same in tokens; the training data say how many are in an item
            (`tokens_per_item`).
        ft_factor: constant factor of the learning rate, > 0.
        grad_clip: largest gradient norm that is applied unchanged, > 0; None measures only; or a mapping,
            as `OptimScheduler` takes it.
        grad_norm_type: p of that norm, >= 1, or `"inf"`.
        use_amp: False; True, which is float16 on CUDA and nothing elsewhere; `"fp16"`; `"bf16"`.
        average: validate and draw samples with averaged weights, which checkpoints hold beside the others;
            None does not average.
        device: `"auto"` is CUDA where there is one, otherwise the CPU.
        distributed: what several processes do with the model: `"ddp"` (or True) wraps it in
            DistributedDataParallel; `"deferred"` leaves it as it is and reduces after the last backward of
            a window, also where some batches leave parameters without gradient; `"fsdp"` shards it.
        threads: of torch on the CPU, on this machine; None leaves them as they are.
        partial_window: what becomes of batches that do not fill a window at an epoch's end: they make a
            smaller one (`"apply"`), the next epoch fills it up (`"carry"`), or they are left out (`"drop"`).
        checkpoint_every: windows from checkpoint to checkpoint, >= 1; each epoch's end makes one too.
        save_in_background: write checkpoints beside the training, from a copy in memory; the last one, and
            all where it is False, are written while the training waits.
        keep: how many of the newest checkpoints stay, >= 1.
        keep_best: how many of the best stay in addition, >= 0, of those made after a validation.
        monitor: name of the model's output whose mean over the held-out data says which is the best.
        mode: whether the smallest (`"min"`) or the largest (`"max"`) is.
        on_nonfinite: what becomes of a gradient that is not finite: its window is left out (`"skip"`), or
            the run stops, with a report and the command that goes on without its batches (`"raise"`).
        log_every: windows from one plain line of progress to the next, >= 1.
        tensorboard: write event files too.
        train_cfg: model and optimisation.
        data_cfg: data sets and batches.
    """

    seed: Annotated[int, BeforeValidator(_whole)] = Field(
        0, ge=0, lt=2**63, description="a whole number from 0 to 2^63 - 1"
    )
    num_epochs: Whole = Field(description="a whole number of epochs >= 1")
    num_steps: Whole | None = Field(None, description="a whole number of windows >= 1, or null")
    accum_grad: Whole | None = Field(None, description="a whole number of batches >= 1")
    samples_per_update: Whole | None = Field(None, description="a whole number of items >= 1, or null")
    tokens_per_update: Whole | None = Field(None, description="a whole number of tokens >= 1, or null")
    ft_factor: float = Field(1.0, gt=0, description="a finite number > 0")
    grad_clip: Annotated[float, Field(gt=0)] | dict[str, float] | None = Field(
        1.0, description="a finite number > 0, null, or like {value: 0.5}"
    )
    grad_norm_type: Annotated[float, Field(ge=1, allow_inf_nan=True)] | Literal["inf"] = Field(
        2.0, description="a number >= 1, or 'inf'"
    )
    use_amp: bool | Literal["fp16", "bf16"] = Field(True, description="true, false, 'fp16' or 'bf16'")
    average: AverageConfig | None = Field(None, description="a mapping such as {decay: 0.999}, or null")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda' or 'cuda:1'", min_length=1)
    distributed: bool | Literal["ddp", "deferred", "fsdp"] = Field(
        "ddp", description="true, false, 'ddp', 'deferred' or 'fsdp'"
    )
    threads: Whole | None = Field(None, description=f"{_MORE}, or null")
    partial_window: Literal["apply", "carry", "drop"] = Field(
        "apply", description="'apply', 'carry' or 'drop'"
    )
    checkpoint_every: Whole = Field(50, description="a whole number of windows >= 1")
    save_in_background: bool = Field(True, description="true or false")
    keep: Whole = Field(2, description="a whole number of checkpoints >= 1")
    keep_best: Annotated[int, BeforeValidator(_whole)] = Field(
        0, ge=0, lt=2**63, description="a whole number of checkpoints >= 0"
    )
    monitor: str = Field("loss", description="the name of an output of the model", min_length=1)
    mode: Literal["min", "max"] = Field("min", description="'min' or 'max'")
    on_nonfinite: Literal["skip", "raise"] = Field("skip", description="'skip' or 'raise'")
    log_every: Whole = Field(10, description="a whole number of windows >= 1")
    tensorboard: bool = Field(False, description="true or false")
    train_cfg: TrainConfig = Field(description="a mapping with 'model' and 'optim_sches'")
    data_cfg: DataConfig = Field(description="a mapping with 'train' and 'batch_size'")

    def plain(self) -> dict[str, Any]:
        """The whole configuration as plain values, defaults written out."""
        return self.model_dump()

    @property
    def counts_items(self) -> bool:
        """Whether a gradient is made of so many items, each of the same weight, whatever batch it is in."""
        return bool(self.samples_per_update or self.tokens_per_update)

    def experiment(self, accum_grad: int) -> dict[str, Any]:
        """What `build_optim_sches` takes beside the member's own description."""
        keys = ("use_amp", "ft_factor", "grad_clip", "grad_norm_type")
        return {"accum_grad": accum_grad} | {key: getattr(self, key) for key in keys}


FREE: Final[frozenset[str]] = frozenset(
    [
        "num_epochs",
        "num_steps",
        "device",
        "distributed",
        "threads",
        "checkpoint_every",
        "keep",
        "keep_best",
        "mode",
        "monitor",
        "on_nonfinite",
        "save_in_background",
        "log_every",
        "tensorboard",
        "num_workers",
    ]
)
"""What may differ from the checkpoint's when a run is resumed: settings at the top and in `data_cfg`."""


def read_config(values: Mapping[str, Any], source: str) -> RunConfig:
    """Check a configuration.

    Args:
        values: as it stands in the YAML.
        source: where it is from, for messages.

    Raises:
        ConfigError: a line for everything that is wrong.
    """
    if isinstance(values, Mapping) and values.get("accum_grad") == HOST:
        raise ConfigError(f"{source}: accum_grad: {NO_HOST}")
    try:
        config = RunConfig.model_validate(values)
        clip_for(config.grad_clip, config.grad_norm_type)
        return config
    except ValidationError as error:
        lines = told(error, RunConfig, values)
    except ConfigError as error:
        lines = [str(error)]
    raise ConfigError(f"{source}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{source}:", *lines]))


def without_free(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as plain values, less what may differ when a run is resumed."""
    data_cfg = {key: value for key, value in values["data_cfg"].items() if key not in FREE}
    kept = {key: value for key, value in values.items() if key not in FREE} | {"data_cfg": data_cfg}
    derived = values.get("samples_per_update") or values.get("tokens_per_update")
    return kept | {"accum_grad": values["accum_grad"] or (None if derived else 1)}


def with_free_of(values: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as plain values, with what may differ taken from another."""
    data_cfg = {**values["data_cfg"], **{k: v for k, v in other["data_cfg"].items() if k in FREE}}
    return {**values, **{k: v for k, v in other.items() if k in FREE}, "data_cfg": data_cfg}

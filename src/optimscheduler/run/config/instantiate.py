"""The model and the data sets that a configuration names: found, checked to be such, then built."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from torch import nn
from torch.utils.data import Dataset, IterableDataset

from optimscheduler.errors import ConfigError
from optimscheduler.lookup import class_at, construct, reason
from optimscheduler.run.config.places import with_place
from optimscheduler.run.config.schema import ClassConfig, RunConfig

__all__ = ["build_dataset", "build_model"]


def build_model(config: ClassConfig) -> nn.Module:
    """The model, on torch's current default device.

    Raises:
        ConfigError: no such class, no `nn.Module`, or arguments that it refuses.
    """
    model: nn.Module = _built(config, nn.Module, "train_cfg.model")
    return model


def build_dataset(config: ClassConfig, where: str) -> Dataset[Any]:  # Any: whatever its items are
    """A map-style data set with something in it.

    Args:
        config: what the configuration says.
        where: its place there.

    Raises:
        ConfigError: no such class, no `Dataset`, no map-style one, or an empty one.
    """
    name = config.type.rpartition(".")[2]
    dataset: Dataset[Any] = _built(config, Dataset, where)
    if isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized):
        raise ConfigError(
            f"{where}.type: {name} has no length and no numbered items; the runner needs a map-style Dataset "
            "(__len__ and __getitem__), so that a run can be resumed in the middle of an epoch"
        )
    try:
        items = len(dataset)
    except Exception as error:  # one that was built with nothing in it may not even know that
        raise ConfigError(f"{where}: {name} does not say how long it is: {reason(error)}") from error
    if items == 0:
        raise ConfigError(f"{where}: {name} is empty; check the paths and the selection in {where}.conf")
    return dataset


def _built(config: ClassConfig, kind: type, where: str) -> Any:  # Any: a `kind`
    cls = class_at(config.type, kind, f"{where}.type")
    try:
        return construct(cls, config.conf, f"{where}.conf")
    except ConfigError as error:
        raise ConfigError(with_place(str(error), RunConfig, {})) from error.__cause__

"""What a model's outputs say: how many items are behind them, and their means over the held-out data."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from optimscheduler.api.optim_scheduler import OptimScheduler
from optimscheduler.errors import ConfigError, LossNotFound, nearest
from optimscheduler.run.distributed.world import ALONE, World

__all__ = ["items_behind", "mean_outputs", "observe", "outputs_of"]

_log = logging.getLogger("optimscheduler")

Outputs = Mapping[str, Tensor]


def outputs_of(model: nn.Module, batch: Any) -> Outputs:  # Any: whatever the data set's items collate to
    """Call the model with a batch.

    Raises:
        ConfigError: what it returns is no mapping.
    """
    outputs = model(batch)
    if not isinstance(outputs, Mapping):
        raise ConfigError(
            f"train_cfg.model.type: {type(model).__name__} returned a {type(outputs).__name__}; a model in a "
            "run takes a batch and returns a dict of scalar tensors, {'loss': ..., ...}"
        )
    return outputs


def items_behind(outputs: Outputs, name: str | None) -> Tensor | None:
    """The number of items behind the mean losses, where the model says it.

    Args:
        outputs: of the model.
        name: what the configuration calls it, `train_cfg.weight`.

    Raises:
        LossNotFound: the model returned nothing of that name.
    """
    if name is not None and name not in outputs:
        raise LossNotFound(f"train_cfg.weight: the model returned no {name!r:.80}. {nearest(name, outputs)}")
    return None if name is None else outputs[name]


def mean_outputs(
    model: nn.Module,
    batches: Iterable[tuple[int, Any]],
    weight: str | None,
    stop: Callable[[], bool],
    world: World = ALONE,
) -> dict[str, float] | None:
    """Means of the model's scalar outputs, each batch weighted by its items.

    Args:
        model: in the mode it is to be called in.
        batches: how many items there are in each, and the batch; one without items is a stand-in.
        weight: see `items_behind`; None weights by the number of items in the batch.
        stop: asked before every batch.
        world: whose batches are taken together.

    Returns:
        Name -> mean; NaN where no item counts. None if it was stopped.
    """
    weighted: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for count, batch in batches:
        if stop():
            return None
        outputs = outputs_of(model, batch)
        items = items_behind(outputs, weight)
        for name, value in outputs.items():
            if name != weight and isinstance(value, Tensor) and value.numel() == 1:
                weighted[name].append((float(value), float(items) if items is not None and count else count))
    everybody = world.gather(dict(weighted))
    names = dict.fromkeys(name for each in everybody for name in each)
    return {name: _mean([pair for each in everybody for pair in each.get(name, [])]) for name in names}


def _mean(pairs: Iterable[tuple[float, float]]) -> float:
    """sum(n_i x_i) / sum(n_i), in double precision; what has nothing behind it may even be 0 / 0."""
    counting = [(value, items) for value, items in pairs if items > 0]
    total = math.fsum(items for _, items in counting)
    return math.fsum(value * items for value, items in counting) / total if total else math.nan


def observe(optims: Iterable[OptimScheduler], means: Mapping[str, float]) -> None:
    """Tell each the mean of its own loss; one that is not finite would lower a rate for good.

    Args:
        optims: that may listen.
        means: of the outputs of the model over the held-out data.
    """
    for optim in optims:
        mean = means.get(optim.member.loss)
        if mean is not None and math.isfinite(mean):
            optim.observe(mean)
        elif mean is not None:
            _log.warning(
                "the mean of %r over the held-out data is %s; no schedule is told", optim.member.loss, mean
            )

"""The weights of optimizers with modes, in a run: where they are used, and back to where they are trained.

A schedule-free optimizer moves the weights to their average and back by a formula, and back is not quite
where they were. A run puts them back to the bit, so that a validation or a checkpoint changes nothing in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from optimscheduler.api.optim_scheduler_dict import OptimSchedulerDict
from optimscheduler.errors import CheckpointError

__all__ = ["averaged", "checked_trained", "trained_again"]


@contextmanager
def averaged(optims: OptimSchedulerDict) -> Iterator[dict[str, Tensor]]:
    """Inside, the optimizers are in the mode for validation, sampling and saving.

    Args:
        optims: in the mode for training. Where none has modes, nothing happens.

    Yields:
        Name -> a copy of the weights that are trained, of the optimizers with modes.
    """
    trained = {
        name: parameter.detach().clone()
        for optim in optims.values()
        if optim.member.moded
        for name, parameter in optim.owned.by_name.items()
    }
    optims.eval()
    try:
        yield trained
    finally:
        trained_again(optims, trained)


def checked_trained(trained: object, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights as they are trained, out of a checkpoint.

    Args:
        trained: whatever is there.
        weights: of the model, from the same checkpoint.

    Raises:
        CheckpointError: something else is there.
    """
    if not isinstance(trained, Mapping):
        raise CheckpointError(f"the checkpoint is damaged: trained must be a mapping, got {trained!r:.60}")
    for name, tensor in trained.items():
        shape = weights[name].shape if name in weights else None
        if not isinstance(tensor, Tensor) or tensor.shape != shape:
            raise CheckpointError(
                f"the checkpoint is damaged: trained.{name} must be a tensor of the shape of model.{name}, "
                f"got {tensor!r:.60}"
            )
    return trained


@torch.no_grad()
def trained_again(optims: OptimSchedulerDict, trained: Mapping[str, Tensor]) -> None:
    """Go on with the training, from the weights that were trained.

    Args:
        optims: in the mode for validation.
        trained: from `averaged`.
    """
    optims.train()
    for optim in optims.values():
        if optim.member.moded:
            for name, parameter in optim.owned.by_name.items():
                if name in trained:
                    parameter.copy_(trained[name])

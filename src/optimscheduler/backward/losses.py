"""Pick a loss, and the number of items behind it, out of what a model returned."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from optimscheduler.checks import number
from optimscheduler.errors import ConfigError, LossNotFound, nearest
from optimscheduler.scalars import Scalar
from optimscheduler.shards import whole

__all__ = ["by_name", "pick_loss", "pick_weight"]


def by_name(losses: Mapping[str, Tensor] | Tensor, wanted: Mapping[str, str]) -> Mapping[str, Tensor]:
    """The losses by name; one tensor alone is the loss that everybody wants.

    Args:
        losses: as `step` was given them.
        wanted: name of an OptimScheduler that the batch is for -> name of its loss.

    Raises:
        ConfigError: it is one tensor, and they want several losses.
    """
    if not isinstance(losses, Tensor):
        return losses
    if len(set(wanted.values())) > 1:
        told = ", ".join(f"{loss!r} (of {name!r})" for name, loss in list(wanted.items())[:5])
        raise ConfigError(
            f"losses: one tensor was given, and several losses are optimised: {told}; give a dict of them, "
            "name -> loss"
        )
    return dict.fromkeys(wanted.values(), losses)


def pick_loss(losses: Mapping[str, Tensor], name: str) -> Tensor:
    """The loss of that name, checked to be something that a backward can start from.

    Args:
        losses: name -> scalar tensor, as the model returned it; left as it is.
        name: the one to optimise.

    Raises:
        LossNotFound: there is no loss of that name.
        ConfigError: it is no scalar tensor, or needs no gradient.
    """
    if not isinstance(losses, Mapping):
        raise ConfigError(
            f"losses must be a mapping of names to scalar tensors, got {type(losses).__name__}; "
            f"write step({{{name!r}: loss}})"
        )
    if name not in losses:
        raise LossNotFound(
            f"there is no loss {name!r} among those given (optim_loss). {nearest(name, losses)}"
        )
    loss = losses[name]
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ConfigError(f"loss {name!r} must be a scalar tensor, got {got}; take its mean() or sum()")
    if not loss.requires_grad:
        raise ConfigError(
            f"loss {name!r} needs no gradient: was it detached, computed under no_grad(), "
            "or is every parameter behind it frozen?"
        )
    loss = whole(loss)
    return loss if loss.ndim == 0 else loss.reshape(())


def pick_weight(weight: Scalar | Mapping[str, Scalar] | None, name: str) -> Scalar | None:
    """The number of items behind the loss of that name.

    Args:
        weight: one number for every loss, one per loss name, or None. A 0-d tensor on an accelerator
            stays there.
        name: the loss.

    Returns:
        None where none was given.

    Raises:
        ConfigError: the mapping lacks the name, or the weight is no number >= 0.
    """
    if isinstance(weight, Mapping):
        if name not in weight:
            raise ConfigError(f"weight: there is none for loss {name!r}. {nearest(name, weight)}")
        weight = weight[name]
    if weight is None:
        return None
    if isinstance(weight, Tensor):
        if weight.numel() != 1:
            raise ConfigError(f"weight of loss {name!r} must be one number, got shape {tuple(weight.shape)}")
        if weight.device.type != "cpu":
            return weight.detach().reshape(()).float()
        weight = weight.item()
    return number(f"weight of loss {name!r}", weight, least=0)

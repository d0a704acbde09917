"""Every error of the package, in one tree.

    OptimSchedulerError
     |- ConfigError      (ValueError)          a setting is wrong; nothing was built
     |   `- ParameterError                     a selection of parameters is wrong
     |- LossNotFound     (KeyError)            the model did not return the loss that was asked for
     |- NonFiniteError   (FloatingPointError)  too many refused gradients in a row
     |- CheckpointError  (RuntimeError)        a saved state cannot be used
     |- GraphError       (RuntimeError)        a graph was used up before its last backward
     `- RankError        (RuntimeError)        a rank is missing, or differs from the others

A message says where, what was given, what is allowed, and the nearest name or the next action.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

__all__ = [
    "CheckpointError",
    "ConfigError",
    "GraphError",
    "LossNotFound",
    "NonFiniteError",
    "OptimSchedulerError",
    "ParameterError",
    "RankError",
    "nearest",
    "usual",
]

_LISTED = 12  # more names than this are counted instead of listed

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "accum_grad": ("gradient_accumulation_steps", "accumulate_grad_batches", "accumulation_steps"),
    "batch_size": ("batch", "per_device_train_batch_size"),
    "grad_clip": ("max_grad_norm", "gradient_clip_val", "clip_grad_norm", "gradient_clipping"),
    "lr": ("learning_rate",),
    "num_epochs": ("epochs", "max_epochs", "num_train_epochs"),
    "num_steps": ("max_steps",),
    "num_workers": ("dataloader_num_workers", "workers"),
    "optim_type": ("optimizer",),
    "schedule": ("scheduler", "lr_scheduler"),
    "use_amp": ("precision", "amp", "fp16", "bf16"),
    "warmup_steps": ("warmup", "num_warmup_steps"),
}
"""Our names, and what other libraries call the same."""

_USUAL: Final = MappingProxyType({other: ours for ours, others in _NAMES.items() for other in others})
_OF_OPTIMIZERS: Final = ("lr", "betas", "eps", "momentum", "weight_decay")  # written in optim_conf


class OptimSchedulerError(Exception):
    """The root: catch this to catch every error that this package raises on purpose."""


class ConfigError(OptimSchedulerError, ValueError):
    """A setting is missing, misspelt or out of range."""


class ParameterError(ConfigError):
    """A rule selects no parameter, or a parameter is claimed twice."""


class LossNotFound(OptimSchedulerError, KeyError):  # noqa: N818 -- the name says it
    """The loss that an OptimScheduler optimises is not among those it was given."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the repr


class NonFiniteError(OptimSchedulerError, FloatingPointError):
    """More gradients in a row were refused than `max_skips` allows."""


class CheckpointError(OptimSchedulerError, RuntimeError):
    """A saved state is damaged, or belongs to another model or configuration."""


class GraphError(OptimSchedulerError, RuntimeError):
    """A backward came after the graph was freed, or after the weights in it had moved."""


class RankError(OptimSchedulerError, RuntimeError):
    """A process that trains with others did not come to meet them, or is not where they are."""


def usual(name: object) -> str:
    """Our word for what other libraries call otherwise; any other name stays as it is.

    >>> usual("max_epochs"), usual("num_epochs")
    ('num_epochs', 'num_epochs')
    """
    return _USUAL.get(str(name), str(name))


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, and what there is.

    A name that other libraries have for one of ours is near to it, however it is spelt.

    Args:
        name: what was given.
        known: the names that are allowed.

    Returns:
        `"Did you mean 'lr'? Known: betas, eps, lr."`, the question only where a name is near.

    >>> nearest("wamup_steps", ["warmup_steps", "d_model"])
    "Did you mean 'warmup_steps'? Known: d_model, warmup_steps."
    >>> nearest("learning_rate", ["lr", "betas"]), nearest("lr", ["optim_type", "optim_conf"])
    ("Did you mean 'lr'? Known: betas, lr.", 'Write lr in optim_conf. Known: optim_conf, optim_type.')
    >>> nearest("x", [])
    'There are none.'
    """
    names = sorted(set(known))
    if not names:
        return "There are none."
    ours = usual(name)
    close = [ours] if ours in names else difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    question = f"Did you mean {close[0]!r}? " if close else ""
    if ours in _OF_OPTIMIZERS and ours not in names and "optim_conf" in names:
        close, question = ["optim_conf"], f"Write {ours} in optim_conf. "
    listed = close + [n for n in names if n not in close] if len(names) > _LISTED else names
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{question}Known: {', '.join(listed[:_LISTED])}{more}."

"""`Average`: the running average of the weights, for validation and for the model that is kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from torch import Tensor

from optimscheduler._torch_compat import version_of
from optimscheduler.api.optim_scheduler import OptimScheduler
from optimscheduler.api.optim_scheduler_dict import OptimSchedulerDict
from optimscheduler.backward.precision import forget_casts
from optimscheduler.checks import boolean, number, whole
from optimscheduler.errors import ConfigError
from optimscheduler.shards import is_fsdp
from optimscheduler.update.weight_average import WeightAverage

__all__ = ["Average"]

_log = logging.getLogger("optimscheduler")


class Average:
    """The running average of the weights that an OptimScheduler moves.

        average = Average(optim, decay=0.999)
        for batch in loader:
            with optim.forward():
                losses = model(batch)
            optim.step(losses)                  # moves the average, too
        with average.applied():
            validate(model)

    It moves once for each update that was not refused:

        average = decay * average + (1 - decay) * weights

    and begins with the weights after the first one. It is a part of `optim.state_dict()`. Weights in float16
    or bfloat16 are averaged in float32. Buffers (the statistics of BatchNorm) are not averaged: inside
    `applied()` the model has its own.

    Args:
        optim: an OptimScheduler, or the dict of those that train a model.
        decay: 0 <= decay < 1; None is the plain mean of the weights after every update, as in stochastic
            weight averaging.
        warm_up: in update n the decay is at most (1 + n) / (10 + n), so that the first weights are soon
            forgotten.
        start: updates that are left out, >= 0; until then the average is the weights.

    Raises:
        ConfigError: a value is out of range, or `optim` is neither.

    References: Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv:1803.05407 (SWA).
    """

    def __init__(
        self,
        optim: OptimScheduler | OptimSchedulerDict,
        decay: float | None = 0.999,
        *,
        warm_up: bool = False,
        start: int = 0,
    ) -> None:
        if not isinstance(optim, OptimScheduler | OptimSchedulerDict):
            raise ConfigError(
                "Average takes an OptimScheduler or an OptimSchedulerDict, got "
                f"{type(optim).__name__}; write Average(optim, decay=0.999)"
            )
        if decay is not None:
            decay = number("decay", decay, least=0, below=1)
        boolean("warm_up", warm_up)
        whole("start", start, least=0, unit="updates")
        if warm_up and decay is None:
            raise ConfigError("warm_up: the plain mean (decay=None) has no decay to warm up; leave it out")
        self._optims = dict(optim) if isinstance(optim, OptimSchedulerDict) else {"": optim}
        for name, member in self._optims.items():
            if member.member.moded:
                who = type(member.optimizer).__name__ + (f" of {name!r}" if name else "")
                raise ConfigError(
                    f"{who} averages the weights by itself: leave Average (in YAML: average) out, and "
                    "call optim.eval() where the averaged weights are to be used"
                )
        self._parts = {name: WeightAverage(decay, warm_up=warm_up, start=start) for name in self._optims}
        for name, part in self._parts.items():
            part.before_update(self._optims[name].member.gradients)  # so that a loader finds a place for each
            self._optims[name].member.averages.append(part)

    @property
    def decay(self) -> float | None:
        """Of the exponential average; None is the plain mean."""
        return next(iter(self._parts.values())).decay

    @property
    def updates(self) -> int:
        """How many updates it has seen, of the member that was updated most."""
        return max(part.count for part in self._parts.values())

    def __repr__(self) -> str:
        settings = next(iter(self._parts.values())).settings
        return f"Average({', '.join(f'{key}={value!r}' for key, value in settings.items())})"

    def weights(self) -> Mapping[str, Tensor]:
        """Canonical parameter name -> average, of the parameters that were trained; references."""
        return {
            name: value for part in self._parts.values() if part.count for name, value in part.values.items()
        }

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again afterwards, bit for bit.

        With several ranks all of them enter. `forward()`, `step()`, `flush()` and `state_dict()` of the
        OptimScheduler are errors inside.

        Raises:
            ConfigError: inside another `applied()` of the same model; or parameters were replaced since the
                last update.
        """
        for optim in self._optims.values():
            optim.member.check_own_weights("applied()")
            if not optim.member.gradients.is_current():
                raise ConfigError(
                    "applied(): parameters were replaced in optim.optimizer since the last update; take a "
                    "step first, so that the average follows them"
                )
        with ExitStack() as stack:
            stack.callback(self._forget_old_weights)
            for name, optim in self._optims.items():
                stack.callback(setattr, optim.member, "lent", False)
                optim.member.lent = True
                stack.callback(self._parts[name].swap_in(optim.member.owned.by_name))
            self._forget_old_weights()
            stack.callback(self._say_written, self._versions())
            yield

    def _forget_old_weights(self) -> None:
        """Drop what was made of the weights as they were: gathered by `fully_shard`, or cast by autocast."""
        model = next(iter(self._optims.values())).model
        for part in model.modules():
            if is_fsdp(part):
                cast(Any, part).reshard()  # torch mixes the method in
        forget_casts(next(model.parameters()).device.type)

    def _versions(self) -> list[int | None]:
        return [version_of(p) for optim in self._optims.values() for p in optim.owned.by_name.values()]

    def _say_written(self, before: list[int | None]) -> None:
        if self._versions() != before:
            _log.warning(
                "weights were written to inside applied(), and are now what they were before it; load or "
                "change weights outside"
            )

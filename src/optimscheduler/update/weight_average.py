"""The running average of the weights that one OptimScheduler moves; `Average` is what people use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from optimscheduler._torch_compat import lerp_all_
from optimscheduler.gradients import Gradients
from optimscheduler.scalars import Flag
from optimscheduler.shards import laid_as, local

__all__ = ["WeightAverage", "settings_in", "weight_of"]

_NARROW: Final = (torch.float16, torch.bfloat16)
"""Kept in float32: 0.001 of a difference is below their precision, and the average would stand still."""

State = dict[str, Any]  # Any: a tree of plain values and tensors


class WeightAverage:
    """An average that moves once for each update that was not refused.

    The n-th update, counted from 1 after `start` others, moves it by

        average += weight_of(n) * (weights - average)

    Args:
        decay: of an exponential average, 0 <= decay < 1; None is the plain mean.
        warm_up: a smaller decay in the first updates.
        start: updates that are left out; until then the average is the weights.
    """

    def __init__(self, decay: float | None, *, warm_up: bool, start: int) -> None:
        self.decay, self.warm_up, self.start = decay, warm_up, start
        self.values: dict[str, Tensor] = {}
        self.restart()

    def restart(self) -> None:
        """Begin anew with the next update."""
        self._count: int | Tensor = 0
        self._copied = False
        self._laid: object = None  # what the rows were made for
        self._trained: list[bool] = []

    @property
    def settings(self) -> State:
        """The arguments."""
        return {"decay": self.decay, "warm_up": self.warm_up, "start": self.start}

    @property
    def count(self) -> int:
        """Updates that it has seen; on an accelerator this synchronises."""
        return int(self._count)

    # ---- around an update ----

    def before_update(self, gradients: Gradients) -> None:
        """Parameters lie where they are going to be moved: follow those that have moved or were thawed."""
        trained = [p.requires_grad for p in gradients.parameters]
        if self._laid is not gradients.laid or trained != self._trained or not self._fits():
            self._lie(gradients)

    def after_update(self, moved: Flag) -> None:
        """The weights have moved, or not; a decision on an accelerator stays there."""
        if isinstance(moved, Tensor) and _is_near(moved):
            moved = bool(moved)
        if moved is False:
            return
        self._count = self._count + (moved.long() if isinstance(moved, Tensor) else 1)
        weights = [local(tensor) for tensor in self._live]
        weights = [w.to(r.dtype) for w, r in zip(weights, self._rows, strict=True)]
        if not self._copied:  # whatever was there when the object was made, NaN perhaps
            self._copied = True
            for row, weight in zip(self._rows, weights, strict=True):
                row.copy_(weight)
        elif isinstance(moved, Tensor):
            share = self._share_on_device(torch.as_tensor(self._count)) * moved
            for row, weight in zip(self._rows, weights, strict=True):
                row.lerp_(weight, share.to(row.device, row.dtype))
        else:
            lerp_all_(self._rows, weights, self.weight_of(int(self._count)))

    def weight_of(self, count: int) -> float:
        """How much the weights after that many updates count."""
        return weight_of(count - self.start, self.decay, warm_up=self.warm_up)

    def _share_on_device(self, count: Tensor) -> Tensor:
        """`weight_of`, without a look at the count."""
        exact = torch.float32 if count.device.type == "mps" else torch.float64  # the best that there is
        n = (count - self.start).clamp(min=1).to(exact)
        if self.decay is None:
            share = 1.0 / n
        elif self.warm_up:
            share = 1.0 - ((1.0 + n) / (10.0 + n)).clamp(max=self.decay)
        else:
            share = torch.full_like(n, 1.0 - self.decay)
        return torch.where(n <= 1.0, 1.0, share)

    def _fits(self) -> bool:
        """Whether the weights still have the device, shape and dtype that the rows were made for."""
        return [(t.device, t.shape, t.dtype) for t in self._live] == self._forms

    def _lie(self, gradients: Gradients) -> None:
        """Make rows that lie as the weights do; what is known of a parameter goes into them."""
        known, named = self.values, gradients.named
        self.values, self._whole, live = {}, [], []
        lazy = any(map(is_lazy, gradients.parameters))
        self._laid = None if lazy else gradients.laid  # look again when they have a shape
        self._trained = [p.requires_grad for p in gradients.parameters]
        for tensor, names, parts in gradients.stored_tensors():
            if is_lazy(tensor) or not any(name in known or named[name].requires_grad for name in names):
                continue
            row = _wide(tensor.detach()).clone()
            live.append(tensor)
            self._whole.append(row)
            for name, part in zip(names, parts(row), strict=True):
                if name in known and known[name].shape == part.shape:
                    part.copy_(known[name])
                self.values[name] = part
        self._live, self._rows = live, [local(row) for row in self._whole]
        self._forms = [(t.device, t.shape, t.dtype) for t in live]

    # ---- in place of the weights ----

    def swap_in(self, parameters: Mapping[str, nn.Parameter]) -> Callable[[], None]:
        """Write the averages over the weights; before the first update there is nothing to write.

        Returns:
            What puts the weights back, bit for bit.
        """
        if self.count == 0:
            return lambda: None
        pairs = [(parameters[name], value) for name, value in self.values.items() if name in parameters]
        kept = [(parameter, parameter.data.clone()) for parameter, _ in pairs]

        def put_back() -> None:
            for parameter, weight in kept:
                parameter.data.copy_(weight)

        try:
            for parameter, value in pairs:
                parameter.data.copy_(value)
        except BaseException:
            put_back()
            raise
        return put_back

    # ---- state ----

    def state_dict(self, parameters: Mapping[str, nn.Parameter]) -> State:
        """Settings, count and averages by canonical name; tensors are references.

        Args:
            parameters: by name; one that was replaced by another of another shape has no average yet.
        """
        there = {name: value for name, value in self.values.items() if name in parameters}
        weights = {name: value for name, value in there.items() if value.shape == parameters[name].shape}
        return {**self.settings, "count": self.count, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any], gradients: Gradients, *, settings: bool) -> None:
        """Go on from there; what is not in it, or has another shape, begins with the weights as they are.

        Args:
            state: from `state_dict`.
            gradients: of the member.
            settings: take the settings from it, too.
        """
        if settings:
            self.decay, self.warm_up, self.start = state["decay"], state["warm_up"], state["start"]
        saved, named = state["weights"], gradients.named
        there = {name: laid_as(value, named[name]) for name, value in saved.items() if name in named}
        self.values = {name: value for name, value in there.items() if value.shape == named[name].shape}
        self._lie(gradients)
        self._count, self._copied = int(state["count"]), state["count"] > 0

    def __getstate__(self) -> State:
        """Without what lies in memory of others: a copy lays its own."""
        return {**self.settings, "_count": self._count, "_copied": self._copied, "values": self.values}

    def __setstate__(self, state: State) -> None:
        """It lies nowhere until its next update."""
        self.__dict__.update(state)
        self._laid = None


def settings_in(state: Mapping[str, Any]) -> State:
    """The settings in a saved state."""
    return {key: state[key] for key in ("decay", "warm_up", "start")}


def weight_of(n: int, decay: float | None, *, warm_up: bool) -> float:
    """How much the weights count after the n-th update.

        plain mean             1 / n
        exponential            1 - decay
        with a warm-up         1 - min(decay, (1 + n) / (10 + n))

    and 1 for n <= 1: the average begins with the weights after the first update.

    >>> [weight_of(n, None, warm_up=False) for n in (0, 1, 2, 4)]
    [1.0, 1.0, 0.5, 0.25]
    >>> weight_of(2, 0.75, warm_up=False), weight_of(2, 0.75, warm_up=True)
    (0.25, 0.75)

    References: Polyak and Juditsky 1992 (mean); Izmailov et al. 2018, arXiv:1803.05407 (mean of the weights
    late in training); the warm-up is that of `tf.train.ExponentialMovingAverage(num_updates=)`.
    """
    if n <= 1:
        return 1.0
    if decay is None:
        return 1.0 / n
    return 1.0 - (min(decay, (1 + n) / (10 + n)) if warm_up else decay)


def _is_near(flag: Tensor) -> bool:
    """Whether looking at it costs nothing."""
    return flag.device.type == "cpu"


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _NARROW else tensor

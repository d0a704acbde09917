"""Clipping of a gradient part by part: by value, or in proportion to the weights (AGC).

It changes the direction of a gradient, which clipping by the norm does not. It comes first: the norm that
`Clip` then limits is that of what it has left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from optimscheduler._torch_compat import clamp_all_
from optimscheduler.checks import number
from optimscheduler.errors import ConfigError
from optimscheduler.gradients import Gradients
from optimscheduler.scalars import Flag, seen
from optimscheduler.shards import has_whole_rows, is_sharded, local

__all__ = ["Adaptive", "ByValue", "Limit", "Unlimited"]

_NARROW: Final = (torch.float16, torch.bfloat16)


class Limit(Protocol):
    """Clips each part of a gradient by itself."""

    @property
    def largest(self) -> float:
        """No element is larger than this afterwards; inf where nothing is known."""

    @property
    def acts(self) -> bool:
        """Whether it does anything."""

    def written(self) -> dict[str, float]:
        """As it stands in a configuration."""

    def check(self, parameters: Iterable[Tensor]) -> None:
        """Check that gradients of these can be clipped.

        Raises:
            ConfigError: they cannot.
        """

    def apply(self, gradients: Gradients, accepted: Flag) -> None:
        """Clip in place.

        Args:
            gradients: as they will be applied, the clipping aside.
            accepted: where it is false, gradients stay as they are: somebody may look for what is wrong.
        """


@dataclass(frozen=True, slots=True)
class Unlimited:
    """Leaves every part as it is."""

    @property
    def largest(self) -> float:
        """Nothing is known."""
        return math.inf

    @property
    def acts(self) -> bool:
        """No."""
        return False

    def written(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def check(self, parameters: Iterable[Tensor]) -> None:
        """All can be left as they are."""

    def apply(self, gradients: Gradients, accepted: Flag) -> None:
        """Nothing to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByValue:
    """Brings every element into a range, as `torch.nn.utils.clip_grad_value_` does.

        g = min(max(g, -value), value)

    Args:
        value: the largest absolute value that is applied, > 0.

    Raises:
        ConfigError: it is out of range.
    """

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", number("grad_clip: value", self.value, above=0))

    @property
    def largest(self) -> float:
        """The value."""
        return self.value

    @property
    def acts(self) -> bool:
        """Yes."""
        return True

    def written(self) -> dict[str, float]:
        """The value."""
        return {"value": self.value}

    def check(self, parameters: Iterable[Tensor]) -> None:
        """Complex numbers have no order.

        Raises:
            ConfigError: a parameter is complex.
        """
        if any(parameter.is_complex() for parameter in parameters):
            raise ConfigError(
                "grad_clip: complex gradients cannot be clipped by value; write {norm: 1.0}, or give the "
                "complex parameters a member of their own"
            )

    def apply(self, gradients: Gradients, accepted: Flag) -> None:
        """One call for all tensors on the host's side; see `Limit`."""
        decided = seen(accepted)
        if not isinstance(decided, Tensor):
            if decided:
                clamp_all_(gradients.blocks(), self.value)
            return
        for block in gradients.blocks():
            most = torch.full((), self.value, dtype=block.dtype, device=block.device)
            most = most.masked_fill(~decided.to(block.device), math.inf)
            block.clamp_(-most, most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """Adaptive gradient clipping: no unit's gradient is larger than a share of the unit's weights.

        most = agc * max(|w_i|, eps)
        g_i = g_i * most / |g_i|        where |g_i| > most

    A unit i is a row: all weights that lead to one output, so `w[i]` of a tensor with two dimensions or
    more. A tensor with fewer (a bias, the scale of a norm) is one unit. |.| is the Euclidean norm.

    Args:
        agc: the largest share, > 0; 0.01 is usual.
        eps: what weights count at least, > 0, so that those that begin at 0 can move.

    Raises:
        ConfigError: a value is out of range.

    Reference: Brock, De, Smith, Simonyan 2021, arXiv:2102.06171, equation 3.
    """

    agc: float
    eps: float = 1e-3

    def __post_init__(self) -> None:
        object.__setattr__(self, "agc", number("grad_clip: agc", self.agc, above=0))
        object.__setattr__(self, "eps", number("grad_clip: eps", self.eps, above=0))

    @property
    def largest(self) -> float:
        """Weights may be of any size."""
        return math.inf

    @property
    def acts(self) -> bool:
        """Yes."""
        return True

    def written(self) -> dict[str, float]:
        """Both numbers."""
        return {"agc": self.agc, "eps": self.eps}

    def check(self, parameters: Iterable[Tensor]) -> None:
        """All have norms."""

    def apply(self, gradients: Gradients, accepted: Flag) -> None:
        """A few calls for each parameter; see `Limit`. A unit that is not finite stays so."""
        if seen(accepted) is False:
            return
        for parameter, gradient in gradients.pairs():
            self._clip(parameter.detach(), gradient)

    def _clip(self, weight: Tensor, gradient: Tensor) -> None:
        """Clip one gradient; where a unit is spread over ranks, DTensors meet by themselves."""
        if is_sharded(weight) and has_whole_rows(weight):
            weight, gradient = local(weight), local(gradient)
        most = _unit_norms(weight).clamp(min=self.eps) * self.agc
        gradient.mul_(most / torch.maximum(_unit_norms(gradient), most))  # exactly 1 where it is small


def _unit_norms(tensor: Tensor) -> Tensor:
    """The norm of each row, to be multiplied with it; 16-bit numbers are measured in float32."""
    rows = tensor.ndim > 1
    norms: Tensor = torch.linalg.vector_norm(
        tensor,
        dim=tuple(range(1, tensor.ndim)) if rows else None,
        keepdim=rows,
        dtype=torch.float32 if tensor.dtype in _NARROW else None,
    )
    return norms

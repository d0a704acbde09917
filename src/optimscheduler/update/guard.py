"""Accept a gradient, or refuse it: by its norm alone, on the device, without waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from optimscheduler.checks import number, whole
from optimscheduler.errors import ConfigError
from optimscheduler.lookup import construct
from optimscheduler.scalars import Flag, Scalar, is_finite

__all__ = ["FiniteGuard", "Guard", "SpikeGuard", "guard_for"]


class Guard(Protocol):
    """Decides about one gradient after the other."""

    def accepts(self, norm: Scalar) -> Flag:
        """Whether to apply the gradient that has this norm, as it would be applied; beside the norm."""

    def advice(self) -> str:
        """What to say, and to type, where it has refused too many spikes in a row; "" if it refuses none."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember that."""


class FiniteGuard:
    """Refuses gradients whose norm is NaN or infinite."""

    def __repr__(self) -> str:
        return "None"  # how it is written in a configuration

    def accepts(self, norm: Scalar) -> Flag:
        """Whether the norm is finite."""
        return is_finite(norm)

    def advice(self) -> str:
        """None."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


class SpikeGuard:
    """Refuses gradients whose norm leaps out of the recent ones, too.

        accepted:  norm <= median + z * max(1.4826 * MAD, 0.01 * median)

    over the last `window` accepted norms, MAD being their median absolute deviation from the median
    (1.4826 makes it a standard deviation for normal noise). Refused norms never enter the statistics, nor
    do those of 0, which every loss with a margin gives now and then, and which say nothing about the size
    of the others. Until `warm_up` norms are remembered, every finite one is accepted. Where gradients become
    larger for good it goes on refusing them: it has no way to tell that from a training that falls apart.

    Args:
        z: deviations above the median that are still accepted, > 0.
        window: how many norms are remembered, >= 2.
        warm_up: how many must be remembered before any is refused, 2 to `window`.

    Reference: Hampel 1974, J. Am. Stat. Assoc. 69, for the median and the MAD as robust estimates.
    """

    def __init__(self, z: float = 6.0, window: int = 128, warm_up: int = 20) -> None:
        self.z = number("guard: z", z, above=0)
        self.window = whole("guard: window", window, least=2, unit="updates")
        self.warm_up = whole("guard: warm_up", warm_up, least=2, unit="updates")
        if self.warm_up > self.window:
            raise ConfigError(f"guard: warm_up must be at most window={self.window}, got {warm_up}")
        self._norms = torch.full((self.window,), torch.nan)  # the newest last; NaN is a free place

    def __repr__(self) -> str:
        return f"{{'z': {self.z}, 'window': {self.window}, 'warm_up': {self.warm_up}}}"

    def accepts(self, norm: Scalar) -> Flag:
        """Whether the norm is finite and no spike."""
        if not isinstance(norm, Tensor):
            return bool(self.accepts(torch.tensor(norm)))
        self._norms = norms = self._norms.to(norm)
        _, limit = self._median_and_limit()
        warming_up = norms.isfinite().sum() < self.warm_up
        accepted = norm.isfinite() & (warming_up | (norm <= limit))
        self._norms = torch.where(accepted & (norm > 0), torch.cat([norms[1:], norm[None]]), norms)
        return accepted

    def _median_and_limit(self) -> tuple[Tensor, Tensor]:
        median = self._norms.nanmedian()
        deviation = 1.4826 * (self._norms - median).abs().nanmedian()
        return median, median + self.z * torch.maximum(deviation, 0.01 * median)

    def advice(self) -> str:
        """Its limit, where that comes from, and how to have another; on an accelerator this synchronises."""
        median, limit = map(float, self._median_and_limit())
        count = int(self._norms.isfinite().sum())
        if count < self.warm_up:  # it has refused nothing yet but what is not finite
            return ""
        return (
            f"The guard refuses gradient norms above {limit:.4g}: the median of the last {count} that it "
            f"accepted is {median:.4g}, z is {self.z:g}, and what it refuses changes neither. If gradients "
            "are right to be larger from here on, write guard: null or a larger z; otherwise try a lower "
            "learning rate"
        )

    def state_dict(self) -> dict[str, Any]:
        """The remembered norms."""
        return {"norms": self._norms.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember the newest of those norms; without any, begin anew."""
        kept = list(state.get("norms", []))[-self.window :]
        self._norms = torch.tensor([torch.nan] * (self.window - len(kept)) + kept, dtype=torch.float64)


def guard_for(guard: object) -> Guard:
    """The guard that a configuration asks for.

    Args:
        guard: None for finite gradients only; z as a number; or a mapping with z, window, warm_up.

    Raises:
        ConfigError: anything else.
    """
    if guard is None:
        return FiniteGuard()
    if isinstance(guard, Mapping):
        found: Guard = construct(SpikeGuard, guard, "guard")
        return found
    return SpikeGuard(z=number("guard", guard, above=0))

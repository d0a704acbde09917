"""What an OptimScheduler says of itself: its settings, as subclasses and loops read them."""

from __future__ import annotations

from typing import Any

from optimscheduler.backward.precision import LossScale, Precision
from optimscheduler.line.member import Member
from optimscheduler.parameters.owned import OwnedParameters
from optimscheduler.written import AccumGrad, UseAmp, WrittenClip

__all__ = ["Facts"]


class Facts:
    """The properties of an OptimScheduler that only say what is."""

    member: Member
    precision: Precision
    _config: dict[str, Any]  # Any: plain values
    _together: tuple[str, ...]

    @property
    def together(self) -> tuple[str, ...]:
        """Names of the members of a dict that are clipped together with it, its own among them."""
        return self._together

    @property
    def owned(self) -> OwnedParameters:
        """The parameters that it optimises."""
        return self.member.owned

    @property
    def use_amp(self) -> UseAmp:
        """The precision asked for."""
        use_amp: UseAmp = self._config["use_amp"]
        return use_amp

    @property
    def accum_grad(self) -> AccumGrad:
        """Batches per window, or `"host"`."""
        return self.member.clock.cadence.accum_grad

    @property
    def step_per_update(self) -> int:
        """Every how many windows this object does something."""
        return self.member.clock.cadence.step_per_update

    @property
    def grad_clip(self) -> WrittenClip | None:
        """Largest gradient norm that is applied unchanged; a mapping where it clips by value or by unit."""
        return self.member.clip.written

    @property
    def grad_norm_type(self) -> float:
        """P of that norm."""
        return self.member.clip.norm_type

    @property
    def ft_factor(self) -> float:
        """Constant factor of the learning rate."""
        return self.member.values.ft_factor

    @property
    def scaler(self) -> LossScale | None:
        """The loss scale, in float16; otherwise None."""
        return self.precision.scaler(self.member.loss)

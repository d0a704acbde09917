"""In which precision the forward pass runs, and how its loss is scaled for that.

- `FullPrecision`: as the model is.
- `Autocast`: bfloat16, whose range needs no loss scale.
- `LossScaled`: float16, with one loss scale per distinct loss.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from optimscheduler._torch_compat import update_scale_
from optimscheduler.errors import ConfigError, nearest
from optimscheduler.scalars import Flag, Scalar, is_finite, is_not

__all__ = [
    "Autocast",
    "FullPrecision",
    "LossScale",
    "LossScaled",
    "Precision",
    "forget_casts",
    "precision_for",
]

_log = logging.getLogger(__name__)

SMALLEST: Final = 2.0**-14
"""The least that a loss is scaled to: float16's smallest normal number. A scale is made smaller for gradients
beyond 65504; with this one they may be 2^30, and below it a gradient of 1 would lose its own bits."""


class Precision(Protocol):
    """What the straight line asks of a precision."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""

    def scaled(self, name: str, loss: Tensor, weight: Scalar) -> Tensor:
        """A new tensor: loss x weight x `scale(name)`, to run the backward of."""

    def scale(self, name: str) -> Scalar:
        """What stands between the gradients of that loss and the true ones, its weight aside."""

    def lacks_reference(self, name: str) -> bool:
        """Whether `refer` is to be told the weight that the others are taken relative to."""

    def refer(self, name: str, weight: float) -> None:
        """Take the weights of that loss relative to this one, if it is not 0."""

    def record(self, name: str, norm: Scalar, loss: Scalar | None) -> None:
        """A window that this loss fed was complete: the norm of its gradient, and its mean loss."""

    def settle(self, open_losses: Collection[str]) -> None:
        """Adapt the scales of the losses that feed no open window."""

    def scaler(self, name: str) -> LossScale | None:
        """The loss scale of that loss, if there is one."""

    def met_half(self) -> None:
        """A loss came of a forward pass that was, in part, in float16."""


class FullPrecision:
    """The model's own precision; nothing is scaled."""

    said_half = False

    def __str__(self) -> str:
        return "as the model is, no autocast"

    def autocast(self) -> AbstractContextManager[Any]:
        """Nothing to do."""
        return nullcontext()

    def scaled(self, name: str, loss: Tensor, weight: Scalar) -> Tensor:  # noqa: ARG002  # the protocol's
        """Loss x weight."""
        return loss if isinstance(weight, float) and weight == 1.0 else loss * weight

    def scale(self, name: str) -> Scalar:  # noqa: ARG002  # the protocol's
        """1."""
        return 1.0

    def lacks_reference(self, name: str) -> bool:  # noqa: ARG002  # the protocol's
        """False: nothing is out of range."""
        return False

    def refer(self, name: str, weight: float) -> None:
        """Not needed."""

    def record(self, name: str, norm: Scalar, loss: Scalar | None) -> None:
        """Nothing to adapt."""

    def settle(self, open_losses: Collection[str]) -> None:
        """Nothing to adapt."""

    def scaler(self, name: str) -> LossScale | None:  # noqa: ARG002  # the protocol's
        """None."""
        return None

    def met_half(self) -> None:
        """Said once: it is somebody else's cast, and nobody's loss scale."""
        if not self.said_half:
            self.said_half = True
            _log.warning(
                "the forward pass casts to float16 (an autocast of the loop's, or of a host, as accelerate "
                "with mixed_precision='fp16' has), and nothing scales the loss: gradients below 6e-8 become "
                "0. Write use_amp='fp16', which scales it, or cast to bfloat16 (mixed_precision='bf16')"
            )


class Autocast(FullPrecision):
    """bfloat16 where autocast thinks it safe."""

    def __init__(self, device_type: str, dtype: torch.dtype = torch.bfloat16) -> None:
        self._device_type, self._dtype = device_type, dtype

    def __str__(self) -> str:
        return "bfloat16 autocast"

    def autocast(self) -> AbstractContextManager[Any]:
        """`torch.autocast`."""
        return torch.autocast(self._device_type, self._dtype)


class LossScale:
    """The scale of one loss: down at once when a gradient overflows, up after a quiet time.

    Its state is in the format of `torch.amp.GradScaler`, whose rule it follows (Micikevicius et al.
    2018, arXiv:1710.03740): x 0.5 after a non-finite gradient, x 2 after 2,000 finite ones in a row. Two
    things are not `GradScaler`'s: a window whose loss itself was not finite says nothing about the scale,
    because no scale would have helped, and neither halves it nor counts as one of the 2,000 nor ends their
    row; and the scale never falls below `SMALLEST`.
    """

    growth_factor = 2.0
    backoff_factor = 0.5
    growth_interval = 2000

    def __init__(self, device: torch.device | str, init_scale: float = 2.0**16) -> None:
        self.value = torch.full((), init_scale, dtype=torch.float32, device=device)
        self.reference_weight = 0.0  # items of a first batch; weights are taken relative to it
        self._tracker = torch.zeros((), dtype=torch.int32, device=device)
        self._found = torch.zeros((), dtype=torch.float32, device=device)
        self._told = torch.zeros((), dtype=torch.int32, device=device)
        self._recorded = False

    def get_scale(self) -> float:
        """The scale as a number; on an accelerator this synchronises."""
        return float(self.value)

    def record(self, finite: Flag, told: Flag = True) -> None:
        """Remember the outcome of a window, until `update`.

        Args:
            finite: its gradient was.
            told: its loss was, so that the gradient says something about the scale.
        """
        found, told = torch.as_tensor(is_not(finite)), torch.as_tensor(told)
        self._told = torch.maximum(self._told, told.to(self._told))
        self._found = torch.maximum(self._found, found.to(self._found) * told.to(self._found))
        self._recorded = True

    def update(self) -> None:
        """Adapt the scale to what was recorded since the last time."""
        if self._recorded:
            self._tracker += self._told - 1  # where nothing was told, the count is one too high in a moment
            rule = (self.growth_factor, self.backoff_factor, self.growth_interval)
            update_scale_(self.value, self._tracker, self._found, *rule)
            self.value.clamp_(min=SMALLEST)
            self._forget()

    def _forget(self) -> None:
        self._found, self._told = torch.zeros_like(self._found), torch.zeros_like(self._told)
        self._recorded = False

    def state_dict(self) -> dict[str, Any]:
        """`GradScaler`'s keys, and the reference weight."""
        return {
            "scale": self.get_scale(),
            "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor,
            "growth_interval": self.growth_interval,
            "_growth_tracker": int(self._tracker),
            "reference_weight": self.reference_weight,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the state of a `GradScaler` too."""
        self.value.fill_(max(state["scale"], SMALLEST))
        self._tracker.fill_(state["_growth_tracker"])
        self.growth_factor = state["growth_factor"]
        self.backoff_factor = state["backoff_factor"]
        self.growth_interval = state["growth_interval"]
        self.reference_weight = state.get("reference_weight", 0.0)
        self._forget()


class LossScaled(Autocast):
    """float16 with loss scaling, so that small gradients do not become zero."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device.type, torch.float16)
        self._device = device
        self._scales: dict[str, LossScale] = {}

    def __str__(self) -> str:
        return "float16 autocast with loss scaling"

    def scaler(self, name: str) -> LossScale:
        """The loss scale of that loss, made when first asked for."""
        if name not in self._scales:
            self._scales[name] = LossScale(self._device)
        return self._scales[name]

    def scaled(self, name: str, loss: Tensor, weight: Scalar) -> Tensor:
        """Loss x weight / reference weight x scale."""
        return loss * (self.scale(name) * weight)

    def scale(self, name: str) -> Scalar:
        """Scale / reference weight."""
        scaler = self.scaler(name)
        return scaler.value / (scaler.reference_weight or 1.0)

    def lacks_reference(self, name: str) -> bool:
        """Until a batch came whose weight was not 0."""
        return not self.scaler(name).reference_weight

    def refer(self, name: str, weight: float) -> None:
        """Keep it with the loss scale."""
        self.scaler(name).reference_weight = weight

    def record(self, name: str, norm: Scalar, loss: Scalar | None) -> None:
        """For the scale of that loss."""
        self.scaler(name).record(is_finite(norm), told=loss is None or is_finite(loss))

    def met_half(self) -> None:
        """It is our own cast, or is scaled all the same."""

    def settle(self, open_losses: Collection[str]) -> None:
        """Adapt the scales of the losses that feed no open window."""
        for name, scaler in self._scales.items():
            if name not in open_losses:
                scaler.update()


def forget_casts(device_type: str) -> None:
    """After an update inside an autocast of the caller's: it would keep its copies of the old weights."""
    if _has_autocast(device_type) and torch.is_autocast_enabled(device_type):
        torch.clear_autocast_cache()


_has_autocast = functools.cache(torch.amp.is_autocast_available)


def precision_for(use_amp: bool | str, device: torch.device) -> Precision:
    """The precision that a configuration asks for.

    Args:
        use_amp: `False`; `True`, which is float16 with a loss scale on CUDA and nothing elsewhere;
            `"fp16"` and `"bf16"`, which are honoured anywhere.
        device: where the parameters are.

    Raises:
        ConfigError: anything else.
    """
    if use_amp == "fp16" or (use_amp is True and device.type == "cuda"):
        return LossScaled(device)
    if use_amp == "bf16":
        return Autocast(device.type)
    if not isinstance(use_amp, bool):
        raise ConfigError(
            f"use_amp: {use_amp!r:.80} is not known. {nearest(use_amp, ['true', 'false', 'fp16', 'bf16'])}"
        )
    if use_amp and device.type != "meta":
        _log.info(
            "use_amp=True means float16 on CUDA; on %s the model runs as it is ('bf16' is honoured)",
            device.type,
        )
    return FullPrecision()

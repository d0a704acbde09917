"""What a model draws, as PNG files that can be looked at one after the other."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from matplotlib.image import imsave
from torch import Tensor

from optimscheduler.errors import ConfigError
from optimscheduler.run.monitor.protocol import Record

__all__ = ["SAMPLES", "Pictures", "brightness"]

_log = logging.getLogger("optimscheduler")

SAMPLES: Final = "samples"
_PIXELS = 480  # of the shorter side, at most, where a picture is enlarged


def brightness(picture: Tensor) -> Tensor:
    """What a screen is to show of a picture: 0 is dark and 1 is bright, so ink turns to 0.

    Args:
        picture: what `draw_sample` returned, floats: (H, W), 0 is paper and 1 is ink; or (H, W, 3), red,
            green and blue.

    Returns:
        The same shape, float32 on the CPU, from 0 to 1.

    Raises:
        ConfigError: it is no such picture.

    >>> import torch
    >>> brightness(torch.tensor([[0.0, 0.25, 1.0]]))
    tensor([[1.0000, 0.7500, 0.0000]])
    """
    if not isinstance(picture, Tensor) or not picture.is_floating_point():
        got = f"a tensor of {picture.dtype}" if isinstance(picture, Tensor) else type(picture).__name__
        raise ConfigError(f"draw_sample: a picture must be a tensor of floats from 0 to 1, got {got}")
    if picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)) or not picture.numel():
        raise ConfigError(
            "draw_sample: a picture must be (height, width) or (height, width, 3), neither of them 0, got "
            f"{tuple(picture.shape)}; a channel in front goes with picture[0] or picture.permute(1, 2, 0)"
        )
    shown = picture.detach().float().clamp(0, 1).cpu()
    return 1 - shown if shown.ndim == 2 else shown


class Pictures:
    """Writes `samples/epoch-0001.png` and so on.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / SAMPLES

    def window(self, record: Record) -> None:
        """Nothing to draw."""

    def validated(self, record: Record) -> None:
        """Nothing to draw."""

    def sampled(self, text: str) -> None:
        """Nothing to draw."""

    def drawn(self, epoch: int, picture: Tensor) -> None:
        """One file, in place of an older one. That it cannot be written is not worth an error."""
        pixels = brightness(picture)
        times = max(1, _PIXELS // min(pixels.shape[:2]))
        large = pixels.repeat_interleave(times, dim=0).repeat_interleave(times, dim=1)
        path = self._folder / f"epoch-{epoch:04d}.png"
        try:
            self._folder.mkdir(exist_ok=True)
            imsave(path, large.numpy(), cmap="gray", vmin=0, vmax=1)
        except OSError as error:
            _log.warning("%s cannot be written: %s", path, error.strerror)

    def close(self) -> None:
        """Nothing is open."""

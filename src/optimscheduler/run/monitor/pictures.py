"""What a model draws, as PNG files that can be looked at one after the other."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from matplotlib.image import imsave
from torch import Tensor

from optimscheduler.run.monitor.base import Record

__all__ = ["SAMPLES", "Pictures"]

_log = logging.getLogger("optimscheduler")

SAMPLES: Final = "samples"
_PIXELS = 480  # of the shorter side, at least


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
        """One file. A picture is not worth an error."""
        times = max(1, _PIXELS // min(picture.shape[:2]))
        pixels = picture.detach().float().clamp(0, 1).cpu()
        large = pixels.repeat_interleave(times, dim=0).repeat_interleave(times, dim=1)
        path = self._folder / f"epoch-{epoch:04d}.png"
        try:
            self._folder.mkdir(exist_ok=True)
            imsave(path, large.numpy(), cmap="gray_r", vmin=0, vmax=1)
        except OSError as error:
            _log.warning("%s cannot be written: %s", path, error.strerror)

    def close(self) -> None:
        """Nothing is open."""

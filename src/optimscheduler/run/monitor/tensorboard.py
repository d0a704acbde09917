"""Curves in TensorBoard, with the extra `tensorboard`."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from optimscheduler.errors import ConfigError
from optimscheduler.run.monitor.pictures import brightness
from optimscheduler.run.monitor.protocol import Record

__all__ = ["TensorBoard"]


class TensorBoard:
    """Writes scalars under their names, over the batch number.

    Args:
        folder: where the event files go.
        batch: the last batch of the run being continued; what an earlier attempt wrote after it is hidden.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, batch: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "tensorboard: true needs TensorBoard, which is not installed: "
                "pip install 'optimscheduler[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(folder, purge_step=batch + 1)

    def window(self, record: Record) -> None:
        """loss, lr, grad_norm under `train/`, or under the name of one of several OptimSchedulers."""
        place = record.get("member", "train")
        for name in ("loss", "lr", "grad_norm"):
            self._scalar(f"{place}/{name}", record[name], record["batch"])

    def validated(self, record: Record) -> None:
        """Every output of the model under `valid/`."""
        for name, value in record.items():
            if name not in ("batch", "real_step", "epoch"):
                self._scalar(f"valid/{name}", value, record["batch"])

    def sampled(self, text: str) -> None:
        """As text."""
        self._writer.add_text("sample", text)

    def drawn(self, epoch: int, picture: Tensor) -> None:
        """As an image, as dark and bright as in the file that `Pictures` writes."""
        pixels = brightness(picture)
        self._writer.add_image("sample", pixels, epoch, dataformats="HW" if pixels.ndim == 2 else "HWC")

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()

    def _scalar(self, name: str, value: float | None, batch: int) -> None:
        if value is not None:
            self._writer.add_scalar(name, value, batch)

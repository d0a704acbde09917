"""TensorBoard, which is an extra."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from optimscheduler.errors import ConfigError
from optimscheduler.run.monitor.tensorboard import TensorBoard


class Writer:
    """Stands for torch's `SummaryWriter`."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        self.told: list[object] = [("opened", folder, purge_step)]

    def add_scalar(self, name: str, value: float, at: int) -> None:
        self.told.append((name, value, at))

    def add_text(self, name: str, text: str) -> None:
        self.told.append((name, text))

    def add_image(self, name: str, pixels: torch.Tensor, at: int, dataformats: str) -> None:
        self.told.append((name, pixels.tolist(), at, dataformats))

    def close(self) -> None:
        self.told.append("closed")


def test_scalars_go_under_their_names_over_the_batch_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = pytest.importorskip("torch.utils.tensorboard")
    monkeypatch.setattr(board, "SummaryWriter", Writer)
    monitor = TensorBoard(tmp_path, batch=6)
    monitor.window({"batch": 8, "real_step": 4, "loss": 2.0, "lr": 0.1, "grad_norm": None})
    monitor.validated({"batch": 8, "real_step": 4, "epoch": 1, "loss": 1.5})
    monitor.sampled("text")
    monitor.close()
    assert monitor._writer.told == [
        ("opened", tmp_path, 7),  # what was written after batch 6 is hidden
        ("train/loss", 2.0, 8),
        ("train/lr", 0.1, 8),
        ("valid/loss", 1.5, 8),
        ("sample", "text"),
        "closed",
    ]


def test_pictures_are_as_dark_as_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = pytest.importorskip("torch.utils.tensorboard")
    monkeypatch.setattr(board, "SummaryWriter", Writer)
    monitor = TensorBoard(tmp_path, batch=0)
    monitor.drawn(3, torch.tensor([[0.0, 1.0]]))  # paper, ink
    monitor.drawn(4, torch.tensor([[[0.0, 0.5, 1.0]]]))
    assert monitor._writer.told[1:] == [
        ("sample", [[1.0, 0.0]], 3, "HW"),  # bright, dark
        ("sample", [[[0.0, 0.5, 1.0]]], 4, "HWC"),
    ]


def test_event_files_are_written(tmp_path: Path) -> None:
    pytest.importorskip("torch.utils.tensorboard")
    monitor = TensorBoard(tmp_path / "board", batch=0)
    monitor.window({"batch": 8, "loss": 2.0, "lr": 0.1, "grad_norm": 1.0})
    monitor.drawn(1, torch.rand(3, 5, dtype=torch.bfloat16))
    monitor.close()
    assert [path.name.startswith("events.out") for path in (tmp_path / "board").iterdir()] == [True]


def test_without_tensorboard_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"tensorboard: true needs .*optimscheduler\[tensorboard\]"):
        TensorBoard(tmp_path, batch=0)

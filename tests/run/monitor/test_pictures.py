"""Pictures: which pixel is how bright, how large the file is, and what is no picture."""

from __future__ import annotations

import logging
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from optimscheduler.errors import ConfigError
from optimscheduler.run.monitor.pictures import Pictures, brightness

SHADE = 1 / 255  # a file has 256 of them


def read(folder: Path, epoch: int = 1) -> torch.Tensor:
    """Red, green, blue of a file."""
    return torch.tensor(matplotlib.image.imread(folder / "samples" / f"epoch-{epoch:04d}.png")[..., :3])


def test_ink_is_dark_and_paper_is_bright(tmp_path: Path) -> None:
    Pictures(tmp_path).drawn(1, torch.tensor([[0.0, 1.0], [0.5, 0.25]]))
    corners = read(tmp_path)[::240, ::240]
    assert corners.shape == (2, 2, 3)
    expected = torch.tensor([[1.0, 0.0], [0.5, 0.75]])[..., None].expand(2, 2, 3)  # 1 - ink, in all colours
    torch.testing.assert_close(corners, expected, rtol=0, atol=SHADE)


def test_colours_are_as_they_are(tmp_path: Path) -> None:
    picture = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.5, 1.0]]])
    Pictures(tmp_path).drawn(1, picture)
    torch.testing.assert_close(read(tmp_path)[::480, ::480], picture, rtol=0, atol=SHADE)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 4), (480, 960)),  # 240 times
        ((98, 98), (392, 392)),  # 4 times: 5 times are more than 480
        ((300, 500), (300, 500)),
        ((600, 700, 3), (600, 700)),
    ],
)
def test_small_pictures_are_enlarged_pixel_by_pixel(
    shape: tuple[int, ...], size: tuple[int, int], tmp_path: Path
) -> None:
    picture = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    Pictures(tmp_path).drawn(1, picture)
    pixels, times = read(tmp_path), size[0] // shape[0]
    assert pixels.shape[:2] == size
    blocks = pixels.unflatten(0, (-1, times)).unflatten(2, (-1, times))
    assert torch.equal(blocks, blocks[:, :1, :, :1].expand_as(blocks)), "a block has one colour"


def test_an_epoch_that_is_gone_through_again_overwrites_its_picture(tmp_path: Path) -> None:
    Pictures(tmp_path).drawn(2, torch.zeros(3, 3))
    again = Pictures(tmp_path)
    again.drawn(2, torch.ones(3, 3))
    again.close()
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["epoch-0002.png"]
    assert not read(tmp_path, 2).any(), "the second, all ink"


def test_without_a_picture_there_is_no_folder(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path)
    pictures.window({"batch": 1})
    pictures.validated({"epoch": 1})
    pictures.sampled("text")
    pictures.close()
    assert list(tmp_path.iterdir()) == []


def test_that_a_file_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "samples").write_text("in the way")
    with caplog.at_level(logging.WARNING, logger="optimscheduler"):
        Pictures(tmp_path).drawn(1, torch.zeros(3, 3))
    assert "epoch-0001.png cannot be written: " in caplog.text


def test_what_is_beyond_the_range_is_cut_off_and_nothing_is_changed() -> None:
    picture = torch.tensor([[-1.0, 0.25, 3.0]], dtype=torch.bfloat16, requires_grad=True)
    shown = brightness(picture)
    assert (shown.dtype, shown.requires_grad) == (torch.float32, False)
    assert shown.tolist() == [[1.0, 0.75, 0.0]]
    assert picture.tolist() == [[-1.0, 0.25, 3.0]]


@pytest.mark.parametrize(
    "shape", [(1, 98, 98), (3, 98, 98), (98, 98, 1), (98, 98, 4), (5,), (), (0, 4), (4, 0, 3)]
)
def test_other_shapes_are_refused_before_anything_is_enlarged(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"draw_sample: .*\(height, width, 3\).* got \(") as raised:
        Pictures(tmp_path).drawn(1, torch.zeros(shape))
    assert f"got {shape};" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("picture", "got"),
    [
        (torch.zeros(2, 2, dtype=torch.uint8), "a tensor of torch.uint8"),  # 0 to 255, it seems
        (np.zeros((2, 2)), "ndarray"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_tensor_of_floats_is_refused(picture: torch.Tensor, got: str) -> None:
    with pytest.raises(ConfigError, match=f"draw_sample: .*floats from 0 to 1, got {got}"):
        brightness(picture)

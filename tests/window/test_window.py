"""The open window: what it holds, and the mean of its losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from optimscheduler.errors import ConfigError
from optimscheduler.window.window import Window
from tests.cases_models import assert_same, stored


def filled(*entries: tuple[float, float | Tensor | None]) -> Window:
    window = Window()
    for batch, (loss, weight) in enumerate(entries, start=1):
        window.expect(weight)
        window.add(batch, torch.tensor(loss), weight)
    return window


def test_an_empty_window_is_false_and_has_no_loss() -> None:
    window = Window()
    assert not window
    assert window.loss is None
    assert window.total == 0


def test_R07_without_weights_the_loss_is_the_mean_and_the_total_the_number_of_batches() -> None:
    window = filled((1.0, None), (2.0, None), (6.0, None))
    assert window
    assert window.batches == [1, 2, 3]
    assert window.total == 3
    assert window.loss is not None
    assert window.loss.item() == 3.0  # (1 + 2 + 6) / 3


def test_R08_with_weights_it_is_the_weighted_mean() -> None:
    window = filled((1.0, 3.0), (5.0, 1.0))
    assert window.total == 4
    assert window.loss is not None
    assert window.loss.item() == 2.0  # (3 x 1 + 1 x 5) / 4


def test_R08_a_batch_of_weight_0_does_not_count_even_if_its_loss_is_nan() -> None:
    window = filled((math.nan, 0.0), (5.0, 1.0), (math.nan, 0.0), (2.0, 2.0))
    assert window.loss is not None
    assert window.loss.item() == 3.0  # (5 + 2 x 2) / 3
    assert filled((math.nan, 0.0)).loss is None


def test_R08_a_weight_on_a_device_stays_there() -> None:
    window = filled((1.0, torch.tensor(3.0)), (5.0, torch.tensor(1.0)))
    assert isinstance(window.total, Tensor)
    assert window.total.item() == 4.0
    assert window.loss is not None
    assert window.loss.item() == 2.0  # as above


@pytest.mark.parametrize(("first", "then"), [(2.0, None), (None, 2.0)])
def test_R08_weights_come_with_every_batch_of_a_window_or_with_none(
    first: float | None, then: float | None
) -> None:
    window = filled((1.0, first), (1.0, first))
    with pytest.raises(ConfigError, match=r"weight: batches \[1, 2\] of this window came with"):
        window.expect(then)
    window.clear()
    window.expect(then)  # the next window may do it the other way


def test_R33_its_state_is_plain_and_comes_back() -> None:
    window = filled((1.0, 3.0), (5.0, 1.0))
    state = stored(window.state_dict())
    restored = Window()
    restored.load_state_dict(state, torch.device("cpu"))
    assert_same(restored.state_dict(), window.state_dict())
    restored.add(3, torch.tensor(1.0), 1.0)
    assert state["batches"] == [1, 2], "the state that was loaded is left alone"


def test_clear_opens_a_new_one() -> None:
    window = filled((1.0, 3.0))
    window.clear()
    assert window == Window()

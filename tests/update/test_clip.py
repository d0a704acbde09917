"""R19: the norm of a gradient, and the factor that clips it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from optimscheduler.checks import shown
from optimscheduler.errors import ConfigError
from optimscheduler.update.clip import Clip, total_norm

SHAPES = [(3, 4), (5,), (), (2, 1, 2)]


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, 1.5, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_R19_the_norm_is_that_of_torch(norm_type: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    blocks = [torch.randn(shape, dtype=dtype) for shape in SHAPES]
    norm, narrowest = total_norm(blocks, norm_type)
    assert torch.equal(norm, nn.utils.get_total_norm(blocks, norm_type))
    assert norm.dtype is narrowest is dtype


@pytest.mark.parametrize(("norm_type", "norm"), [(1, 7), (2, 5), (3, 91 ** (1 / 3)), (math.inf, 4)])
def test_R19_the_norm_of_3_and_4(norm_type: float, norm: float) -> None:
    # 3 + 4, sqrt(9 + 16), cbrt(27 + 64), max
    blocks = [torch.tensor([[3.0]]), torch.tensor(-4.0)]
    assert total_norm(blocks, norm_type)[0].item() == pytest.approx(norm, rel=1e-6)  # float32


def test_R19_the_norm_of_nothing_is_0() -> None:
    assert total_norm([], 2.0) == (torch.tensor(0.0), torch.float32)


@pytest.mark.parametrize(("dtype", "kept"), [(torch.float16, torch.float16), (torch.bfloat16, torch.float32)])
@pytest.mark.parametrize("in_rows", [False, True])
def test_R19_16_bit_gradients_are_measured_in_float32(
    dtype: torch.dtype, kept: torch.dtype, in_rows: bool
) -> None:
    blocks = [torch.full((100,), 300.0, dtype=dtype)]  # 300^2 = 90,000 is beyond float16
    norm, narrowest = total_norm(blocks, 2.0, in_rows=in_rows)
    assert (norm.dtype, narrowest) == (torch.float32, kept)
    assert norm.item() == pytest.approx(3000.0)  # sqrt(100 x 300^2)


def test_R19_blocks_of_different_dtypes_meet_in_the_widest() -> None:
    blocks = [
        torch.tensor([2.0], dtype=torch.bfloat16),
        torch.tensor([3.0], dtype=torch.float64),
        torch.tensor([6.0]),
    ]
    norm, narrowest = total_norm(blocks, 2.0)
    assert (norm.dtype, narrowest) == (torch.float64, torch.float32)
    assert norm.item() == 7.0  # sqrt(4 + 9 + 36)


@pytest.mark.parametrize("in_rows", [False, True])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("sizes", [(1,), (1, 1), (5,), (5, 1), (40000,)])
def test_R20_what_cannot_be_squared_is_infinite_by_any_norm(
    sizes: tuple[int, ...], norm_type: float, in_rows: bool
) -> None:
    # 1.9e19 squared is 3.61e38, and float32 ends at 3.4e38; float64 at 1.8e308
    for dtype, large in [(torch.float32, 1.9e19), (torch.bfloat16, 1.9e19), (torch.float64, 1.9e154)]:
        blocks = [torch.zeros(size, dtype=dtype) for size in sizes]
        blocks[-1][0] = large
        assert total_norm(blocks, norm_type, in_rows=in_rows)[0].item() == math.inf
        blocks[-1][0] = math.nan
        assert math.isnan(total_norm(blocks, norm_type, in_rows=in_rows)[0].item())
    assert total_norm([torch.tensor([1e19])], norm_type, in_rows=in_rows)[0].item() == pytest.approx(1e19)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_R20_the_narrowest_of_several_dtypes_decides_what_can_be_squared(norm_type: float) -> None:
    blocks = [torch.ones(3, dtype=torch.float64), torch.tensor([1e30])]
    assert total_norm(blocks, norm_type)[0].item() == math.inf


# sqrt(65504) = 255.94, sqrt(3.4028e38) = 1.8447e19, sqrt(1.7977e308) = 1.3408e154
LIMITS = [
    (torch.float16, 255.9, 256.0),
    (torch.float32, 1.844e19, 1.845e19),
    (torch.float64, 1.340e154, 1.341e154),
]


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("divisor", [1e-5, 1.0, 4.0])
@pytest.mark.parametrize(("dtype", "within", "beyond"), LIMITS)
def test_R20_the_norm_after_division_is_what_must_be_squared(
    dtype: torch.dtype, within: float, beyond: float, divisor: float, as_tensor: bool
) -> None:
    clip = Clip(max_norm=None)
    divided: Any = torch.tensor(divisor, dtype=torch.float64) if as_tensor else divisor
    for applied, seen in [(within, pytest.approx(within)), (beyond, math.inf)]:
        norm: Any = applied * divisor
        norm = torch.tensor(norm, dtype=torch.float64) if as_tensor else norm
        if as_tensor or divisor < 1 or dtype is torch.float16:  # the others `total_norm` has refused already
            assert float(clip.applied(norm, divided, dtype)) == seen


@pytest.mark.parametrize(("max_norm", "norm"), [(255.0, 1e4), (256.0, math.inf), (None, math.inf)])
def test_R20_clipping_keeps_float16_within_its_range(max_norm: float | None, norm: float) -> None:
    assert Clip(max_norm=max_norm).applied(1e4, 1.0, torch.float16) == norm
    assert Clip(max_norm=max_norm).applied(2e19, 0.5, torch.float16) == math.inf


@pytest.mark.parametrize("divisor", [0.0, 1e-39])
def test_R20_a_divisor_that_float32_cannot_hold_gives_no_gradient(divisor: float) -> None:
    for norm in (0.0, torch.tensor(0.0)):
        assert math.isnan(Clip().applied(norm, divisor, torch.float32))


@given(st.floats(1e-3, 1e3), st.floats(0, 1e6))
def test_R19_the_factor_is_that_of_clip_grad_norm(max_norm: float, norm: float) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.tensor([norm])
    nn.utils.clip_grad_norm_([parameter], max_norm)
    factor = Clip(max_norm=max_norm).factor(torch.tensor(norm))
    assert factor.item() <= 1
    assert (torch.tensor([norm]) * factor).item() == parameter.grad.item()


def test_R19_a_norm_within_the_limit_is_left_as_it_is() -> None:
    assert Clip(max_norm=2.0).factor(torch.tensor(1.9)).item() == 1.0
    assert Clip(max_norm=2.0).factor(torch.tensor(4.0)).item() == pytest.approx(0.5)


def test_R19_null_measures_without_clipping() -> None:
    assert Clip(max_norm=None).factor(torch.tensor(1e9)) == Clip(max_norm=None).factor(1e9) == 1.0


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 1.5, 1e38])
def test_R19_a_number_is_clipped_as_a_tensor_is(norm: float) -> None:
    clip = Clip(max_norm=1.0)
    assert clip.factor(norm) == pytest.approx(float(clip.factor(torch.tensor(norm))), rel=1e-6, abs=1e-45)


@pytest.mark.parametrize("written", ["inf", math.inf])
def test_inf_may_be_written_as_text(written: Any) -> None:
    assert Clip(norm_type=written).norm_type == math.inf


def test_whole_numbers_become_floats() -> None:
    clip = Clip(max_norm=1, norm_type=1)
    assert (type(clip.max_norm), type(clip.norm_type)) == (float, float)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "1", True])
def test_a_bad_limit_is_an_error(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Clip(max_norm=value)
    assert str(caught.value) == f"grad_clip must be a finite number > 0, got {shown(value)}"


@pytest.mark.parametrize("value", [0.5, 0, -1, math.nan, "two", None, True])
def test_a_bad_norm_is_an_error(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Clip(norm_type=value)
    assert str(caught.value) == (
        f"grad_norm_type must be a finite number >= 1, got {value!r} ('inf' is allowed too)"
    )

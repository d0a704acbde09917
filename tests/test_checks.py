"""Checks of plain values: what counts, what does not, and what is said."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.checks import boolean, number, one_of, shown, whole
from optimscheduler.errors import ConfigError


@given(st.integers(0, 2**63 - 1))
def test_whole_takes_whole_numbers_and_whole_floats(value: int) -> None:
    assert whole("x", value, least=0) == value
    as_float = whole("x", float(value % 2**53), least=0)
    assert as_float == value % 2**53
    assert type(as_float) is int


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, True, "4", None, math.nan, math.inf, -math.inf, [1], 1j, 2**63, 1e300, float(2**63)]
)
def test_whole_refuses_everything_else(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        whole("accum_grad", value, least=1)
    assert str(caught.value) == f"accum_grad must be a whole number >= 1, got {shown(value)}"


@pytest.mark.parametrize("value", ["4", "1e-2", "-5", " .5 ", "1E+3", "2."])
def test_a_number_in_quotes_is_told_to_be_one(value: str) -> None:
    assert shown(value) == f"{value!r}; write it without quotes"


@pytest.mark.parametrize("value", [4, "", "four", "3ep", "1e", ".", "0x1", None, [1]])
def test_anything_else_is_shown_as_it_is(value: object) -> None:
    assert shown(value) == repr(value)


def test_whole_says_what_is_counted() -> None:
    with pytest.raises(
        ConfigError, match=r"^Cosine: steps must be a whole number of real steps >= 2, got 1$"
    ):
        whole("Cosine: steps", 1, least=2, unit="real steps")


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**64), 2**64))
def test_number_takes_any_finite_number_and_gives_a_float(value: float) -> None:
    got = number("x", value)
    assert got == float(value)
    assert type(got) is float


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", None, [1.0], 1j, 10**400])
def test_number_refuses_what_is_no_finite_number(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        number("lr", value)
    assert str(caught.value) == f"lr must be a finite number, got {shown(value)}"


def test_number_bounds_are_inclusive_or_not_as_they_say() -> None:
    assert number("x", 0, least=0) == number("x", 0, most=0) == 0.0
    assert number("x", sys.float_info.min, above=0) > 0
    assert number("x", 0.999, below=1) == 0.999
    for value, bounds, told in [
        (-0.1, {"least": 0}, ">= 0"),
        (1.1, {"most": 1}, "<= 1"),
        (0, {"above": 0}, "> 0"),
        (1, {"below": 1}, "< 1"),
        (2, {"least": 0, "most": 1}, ">= 0 and <= 1"),
        (1, {"above": 0, "below": 1}, "> 0 and < 1"),
    ]:
        with pytest.raises(ConfigError) as caught:
            number("x", value, **bounds)
        assert str(caught.value) == f"x must be a finite number {told}, got {value!r:.80}"


def test_boolean_takes_true_and_false_and_no_lookalikes() -> None:
    assert boolean("x", True) is True
    assert boolean("x", False) is False
    for value in (1, 0, "true", None):
        with pytest.raises(ConfigError) as caught:
            boolean("staircase", value)
        assert str(caught.value) == f"staircase must be True or False, got {value!r:.80}"


def test_one_of_names_the_nearest() -> None:
    assert one_of("shape", "cosine", ["linear", "cosine"]) == "cosine"
    with pytest.raises(ConfigError) as caught:
        one_of("shape", "cosin", iter(["linear", "cosine"]))
    assert str(caught.value) == "shape: 'cosin' is not known. Did you mean 'cosine'? Known: cosine, linear."


@pytest.mark.parametrize("value", [None, 3, ["linear"], {}])
def test_one_of_refuses_what_is_no_text(value: object) -> None:
    with pytest.raises(ConfigError, match="is not known"):
        one_of("shape", value, ["linear"])

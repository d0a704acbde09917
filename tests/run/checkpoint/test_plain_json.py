"""Plain values as JSON: what is read is what was written, and nothing else is written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.run.checkpoint.plain_json import read_plain, write_plain

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KEYS = st.text() | st.integers() | st.booleans() | st.tuples(st.integers(), st.text())
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)


@given(TREES)
def test_every_tree_comes_back_with_its_types(tree: object) -> None:
    again = read_plain(write_plain(tree))
    assert again == tree
    assert repr(again) == repr(tree), "also the order, and 1 is not 1.0 or True"


def test_not_a_number_comes_back() -> None:
    first, second = read_plain(write_plain([math.nan, -math.inf]))
    assert math.isnan(first)
    assert second == -math.inf


@pytest.mark.parametrize("mark", ["!tuple", "!pairs"])
def test_what_looks_like_a_mark_is_none(mark: str) -> None:
    assert read_plain(write_plain({mark: [1]})) == {mark: [1]}


def test_what_is_not_plain_is_told_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"a\.1\.b is a set, which is no plain value"):
        write_plain({"a": [0, {"b": {1}}]})


def test_a_text_that_is_too_deep_is_told() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        read_plain(b"[" * 100_000)

"""The short forms of two drills; `make drills` has the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import endurance, memory

pytestmark = pytest.mark.slow


def test_memory_and_open_files_stay_as_they_are(tmp_path: Path) -> None:
    row = endurance.drill(3000, tmp_path)
    timeless = [failure for failure in row.failures if "us at first" not in failure]  # tests run beside it
    assert not timeless, "\n".join(timeless)


def test_loading_needs_little_more_than_what_is_loaded(tmp_path: Path) -> None:
    row = memory.drill(1, tmp_path)
    assert row.holds, "\n".join(row.failures)

"""The short form of a drill; `make drills` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.faults.damage import drill


def test_a_damaged_checkpoint_is_recognised_and_the_one_before_is_used(tmp_path: Path) -> None:
    row = drill(24, tmp_path)
    assert row.holds, "\n".join(row.failures)

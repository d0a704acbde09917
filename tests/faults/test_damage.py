"""The short form of a drill; `make drills` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.faults.damage import drill
from tests.faults.damages import DAMAGES
from tests.faults.drills import DRILLS


def test_a_damaged_checkpoint_is_recognised_and_the_one_before_is_used(tmp_path: Path) -> None:
    row = drill(len(DAMAGES), tmp_path)
    assert row.holds, "\n".join(row.failures)


def test_the_long_drill_has_as_many_of_each_kind() -> None:
    _, count = DRILLS["damage"]
    assert count % len(DAMAGES) == 0

"""The short form of a drill; `make drills` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kills import drill


@pytest.mark.slow
def test_R34_killed_while_it_writes_and_elsewhere_a_run_ends_as_if_it_never_was(tmp_path: Path) -> None:
    row = drill(6, tmp_path)
    assert row.holds, "\n".join(row.failures)

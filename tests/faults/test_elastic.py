"""The short forms of two drills; `make drills` has the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.elastic import drill, sigterm

pytestmark = [pytest.mark.xdist_group("ranks"), pytest.mark.slow]


def test_a_killed_worker_costs_what_was_done_since_the_last_checkpoint(tmp_path: Path) -> None:
    row = drill(1, tmp_path)
    assert row.holds, "\n".join(row.failures)


def test_sigterm_to_the_launcher_leaves_a_checkpoint_on_which_all_ranks_agree(tmp_path: Path) -> None:
    row = sigterm(1, tmp_path)
    assert row.holds, "\n".join(row.failures)

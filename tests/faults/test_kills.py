"""The short form of a drill, and whether it can fail; `make drills` is the long one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults import kills
from tests.faults.kills import drill
from tests.faults.process import Process


@pytest.mark.slow
def test_R34_killed_while_it_writes_and_elsewhere_a_run_ends_as_if_it_never_was(tmp_path: Path) -> None:
    row = drill(4, tmp_path)
    assert row.holds, "\n".join(row.failures)


@pytest.mark.slow
def test_a_run_that_starts_over_is_no_run_that_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = kills._started

    def forgotten(folder: Path, config: Path, run: Path) -> Process:
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        return started(folder, config, run)

    monkeypatch.setattr(kills, "_started", forgotten)
    (failure,) = drill(1, tmp_path).failures
    assert "run 0 does not resume: it starts over, though there is batch-" in failure

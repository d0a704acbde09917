"""What several tests of runs begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run.command import call, write


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that is over after one epoch; tests copy what they damage."""
    folder = tmp_path_factory.mktemp("trained")
    assert call("train", write(folder), "num_epochs=1", "--out", folder / "run").code == 0
    return folder / "run"

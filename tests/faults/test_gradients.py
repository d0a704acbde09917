"""R20 to R27: a few of the bad gradients that the long drill injects."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.gradients import drill
from tests.faults.injections import AXES, choose

pytestmark = pytest.mark.xdist_group("ranks")

FEW = 16


def test_every_value_of_every_axis_is_chosen() -> None:
    chosen = choose(FEW, seed=0)
    for axis, values in AXES.items():
        found = {getattr(i, axis) if hasattr(i, axis) else getattr(i.setting, axis) for i in chosen}
        assert found == set(values), axis


@pytest.mark.slow
def test_R20_bad_gradients_leave_no_trace(tmp_path: Path) -> None:
    row = drill(FEW, tmp_path)
    assert row.holds, "\n".join(row.failures)
    assert len((tmp_path / "gradients.tsv").read_text().splitlines()) == FEW + 1

"""R40, R44: a few of the trainings that the long drill of other hands runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import hands
from tests.other_hands.run import Outcome
from tests.other_hands.trainings import draw

FEW, FIRST = 30, 20_000


@pytest.mark.slow
def test_R40_R44_other_hands(tmp_path: Path) -> None:
    row = hands.drill(FEW, tmp_path, seed=FIRST)
    assert row.holds, "\n".join(row.failures)
    assert row.figures.startswith("30 as torch")


def test_a_failure_is_told_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(seed: int) -> Outcome:
        return Outcome(training=draw(seed), events=["a batch"], wrong=["weights: off"], how=str(seed))

    monkeypatch.setattr(hands, "run", wrong)
    row = hands.drill(1, tmp_path, seed=7)
    assert row.failures == ("python -m tests.other_hands.run 7: after 'a batch': weights: off",)
    assert "again: python -m tests.other_hands.run 7" in (tmp_path / "other_hands.txt").read_text()

"""The short forms of two drills, and whether one can fail; `make drills` has the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import endurance, memory
from tests.faults.endurance import Need, Sample, grown


@pytest.mark.slow
def test_memory_and_open_files_stay_as_they_are(tmp_path: Path) -> None:
    row = endurance.drill(3000, tmp_path)
    timeless = [failure for failure in row.failures if " us at first" not in failure]  # tests run beside it
    assert not timeless, "\n".join(timeless)


@pytest.mark.long
def test_loading_needs_little_more_than_what_is_loaded(tmp_path: Path) -> None:
    row = memory.drill(1, tmp_path)
    assert row.holds, "\n".join(row.failures)


def part(*, memory: int = 300_000_000, files: int = 9, us: float = 400.0, stalled: bool = False) -> Need:
    """Ten samples of a thousand updates each; `stalled`: four of them took ten times as long."""
    at = [0.0]
    for n in range(10):
        at.append(at[-1] + 1000 * us * 1e-6 * (10 if stalled and n < 4 else 1))
    samples = [
        Sample(windows=1000 * n, at=now, cpu=n * us * 1e-3, memory=memory, files=files)
        for n, now in enumerate(at)
    ]
    return Need.of(samples)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (part(), []),
        (part(memory=305_000_000, files=8, us=430.0), []),
        (part(stalled=True), []),
        (part(memory=307_000_000), ["resident memory grows from 300.0 to 307.0 MB"]),
        (part(files=10), ["open files grow from 9 to 10"]),
        (
            part(us=450.0),
            [
                "an update takes 400 us at first and 450 at last",
                "an update takes the processor 400 us at first and 450 at last",
            ],
        ),
    ],
)
def test_what_grows_is_told_and_what_other_jobs_do_is_not(last: Need, words: list[str]) -> None:
    assert list(grown(part(), last)) == words
    assert list(grown(part(stalled=True), last)) == words, "nor does it hide what grows"

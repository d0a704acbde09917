"""What is said of where a run goes on, right and wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.resumed import Left, left_of

RUN = Path("/runs/a")
OVER = f"resuming   {RUN} has no checkpoint yet, so the run starts over\n"


def from_(name: str, batch: int) -> str:
    return (
        f"plan       40 windows\nresuming   from {RUN}/checkpoints/{name}, epoch 1, batch {batch}\nwindow 8\n"
    )


@pytest.mark.parametrize(
    ("newest", "said", "wrong"),
    [
        ("batch-00000007", from_("batch-00000007", 7), None),
        ("batch-00000005-2", from_("batch-00000005-2", 5), None),
        ("batch-00000007", from_("batch-00000009", 9), None),  # written between the look and the kill
        (None, OVER, None),
        ("batch-00000007", OVER, "it starts over, though there is batch-00000007"),
        (
            "batch-00000007",
            from_("batch-00000005-2", 5),
            "it goes on from batch-00000005-2, though there is batch-00000007",
        ),
        (
            "batch-00000005-2",
            from_("batch-00000005", 5),
            "it goes on from batch-00000005, though there is batch-00000005-2",
        ),
        ("batch-00000007", from_("batch-00000007", 0), "it goes on from batch-00000007, and with batch 0"),
        (
            "batch-00000007",
            from_("batch-00000009.tmp", 9),
            f"it goes on from {RUN}/checkpoints/batch-00000009.tmp, which is no checkpoint of {RUN}",
        ),
        (
            None,
            from_("batch-00000007", 7),
            f"it goes on from {RUN}/checkpoints/batch-00000007, where there was no checkpoint",
        ),
        ("batch-00000007", "window 8\n", "it says 0 times where it goes on"),
        ("batch-00000007", OVER + from_("batch-00000007", 7), "it says 2 times where it goes on"),
    ],
)
def test_where_a_run_goes_on_is_the_newest_checkpoint_or_wrong(
    newest: str | None, said: str, wrong: str | None
) -> None:
    assert Left(run=RUN, newest=newest, done=8).wrongly_continued(said) == wrong


def test_what_is_left_is_the_newest_whole_checkpoint_and_what_was_told_of(tmp_path: Path) -> None:
    nothing = left_of(tmp_path)
    assert (nothing.newest, nothing.done, nothing.again) == (None, 0, 0)
    for name in ("batch-00000005", "batch-00000005-2", "batch-00000009.tmp", "batch-00000007.damaged"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text('{"batch": 5}\n{"batch": 7}\n{"bat')
    left = left_of(tmp_path)
    assert (left.newest, left.done, left.again) == ("batch-00000005-2", 7, 2)


def test_a_process_that_was_killed_early_has_not_said_where_it_goes_on() -> None:
    left = Left(run=RUN, newest=None, done=0)
    assert left.has_begun(OVER)
    assert left.has_begun(from_("batch-00000007", 7))
    assert not left.has_begun("model      Tiny()\n")

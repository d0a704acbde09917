"""The short forms of two drills, and whether they can fail; `make drills` has the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.elastic import Stop, drill, sigterm, wrong_restart
from tests.faults.resumed import Left

STOPPED = "stopped    as asked, after batch 11, safely 0.09 s after SIGTERM. To go on:\n  torchrun\n"
ENDED = "torch.distributed.elastic.multiprocessing.api.SignalException: Process 3 got signal: 15\n"


@pytest.mark.long
@pytest.mark.xdist_group("ranks")
def test_a_killed_worker_costs_what_was_done_since_the_last_checkpoint(tmp_path: Path) -> None:
    row = drill(1, tmp_path)
    assert row.holds, "\n".join(row.failures)


@pytest.mark.long
@pytest.mark.xdist_group("ranks")
def test_sigterm_to_the_launcher_leaves_a_checkpoint_on_which_all_ranks_agree(tmp_path: Path) -> None:
    row = sigterm(1, tmp_path)
    assert row.holds, "\n".join(row.failures)


def test_a_restart_that_costs_more_than_since_the_last_checkpoint_is_told() -> None:
    left = Left(run=Path("/runs/a"), newest="batch-00000012", done=16)
    said = "resuming   from /runs/a/checkpoints/batch-000000{0}, epoch 1, batch {0}\n"
    assert left.again == 4
    assert wrong_restart(left, said.format(12)) is None
    assert wrong_restart(left, said.format(14)) is None, "written between the look and the kill"
    assert wrong_restart(left, said.format(11)) == (
        "it goes on from batch-00000011, though there is batch-00000012"
    )
    over = "resuming   /runs/a has no checkpoint yet, so the run starts over\n"
    assert wrong_restart(left, over) == "it starts over, though there is batch-00000012"
    never = Left(run=left.run, newest=None, done=16)
    assert wrong_restart(never, over) == "no checkpoint before the kill, after 16 batches"


def test_a_stop_is_told_by_its_exit_codes_and_by_what_it_says() -> None:
    stop = Stop(code=1, said=STOPPED + ENDED, ranks=("130", "130"))
    assert (stop.batch, stop.seconds, stop.wrong()) == (11, 0.09, [])


@pytest.mark.parametrize(
    ("stop", "wrong"),
    [
        (Stop(code=1, said=ENDED, ranks=("130", "130")), "it does not say once after which batch"),
        (Stop(code=1, said=STOPPED * 2 + ENDED, ranks=("130", "130")), "it does not say once"),
        (Stop(code=1, said=STOPPED + ENDED, ranks=("130", "0")), "exit codes 130, 0, not 130 each"),
        (Stop(code=1, said=STOPPED + ENDED, ranks=("130",)), "exit codes 130, not 130 each"),
        (Stop(code=0, said=STOPPED, ranks=("130", "130")), "the launcher ends with exit code 0"),
        (Stop(code=1, said=STOPPED, ranks=("130", "130")), "the launcher ends with exit code 1"),
    ],
)
def test_a_stop_that_is_not_as_it_must_be_is_told(stop: Stop, wrong: str) -> None:
    (found,) = stop.wrong()
    assert wrong in found

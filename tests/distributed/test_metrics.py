"""A schedule that listens hears the same on every rank."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from optimscheduler.schedules import ReduceOnPlateau
from tests.distributed.jobs import Heads, Setting, build, wrapped
from tests.distributed.pool import Pool

pytestmark = pytest.mark.xdist_group("ranks")


def told_apart(wrap: str) -> list[object]:
    setting = Setting(wrap=wrap, members={"main": {}})
    optims = build(
        wrapped(Heads(), setting),
        {"main": {"schedule": ReduceOnPlateau(factor=0.5, patience=0)}},
        distributed=wrap == "hand",
    )
    told = [[4.0, 3.0, 2.0], [4.0, 9.0, 4.0]][dist.get_rank()]  # rank 0 sees it fall, rank 1 does not
    heard = []
    for metric in told:
        optims.observe(metric)
        heard.append(optims["main"].member.feedback)
    return heard


@pytest.mark.parametrize("wrap", ["ddp", "hand"])
def test_ranks_that_are_told_different_metrics_hear_their_mean(two: Pool, wrap: str) -> None:
    one, other = two.run(told_apart, wrap)
    assert one == other
    # means 4, 6, 3: the second is worse, the third better than 4
    assert [state["factor"] for state in one] == [1.0, 0.5, 0.5]
    assert one[-1]["best"] == 3.0

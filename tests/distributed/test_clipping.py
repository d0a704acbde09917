"""Clipping by value, by unit (AGC) and by one norm over several members: the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.distributed.jobs import WRAPS, Setting, distance
from tests.distributed.pool import Pool
from tests.distributed.test_agreement import poisoned

pytestmark = pytest.mark.xdist_group("ranks")

EXACT = 1e-9  # sums over ranks in another order; float64

CLIPS: list[Mapping[str, float]] = [
    {"value": 0.02, "norm": 0.05},
    {"agc": 0.02},
    {"agc": 0.05, "norm": 0.03},
]


def members(clip: Any) -> dict[str, dict[str, Any]]:
    """Two losses; SGD, so that a wrong factor is seen in the weights."""
    both = {"accum_grad": 2, "grad_clip": clip, "optim_type": "SGD", "optim_conf": {"lr": 2.0}}
    return {
        "matrices": {**both, "updated_modules": {"name": ["trunk", "left"], "ndim": 2}, "optim_loss": "left"},
        "rest": {**both, "exclude": {"name": ["trunk", "left"], "ndim": 2}},
    }


@pytest.mark.parametrize("sizes", [(4,), (4, 1, 3)])
@pytest.mark.parametrize("wrap", [*WRAPS, "parts", "fsdp part"])
def test_R31_one_norm_over_members_on_two_ranks(two: Pool, wrap: str, sizes: tuple[int, ...]) -> None:
    setting = Setting(wrap=wrap, members=members(0.1), sizes=sizes, clip_together=True)
    assert max(two.run(distance, setting)) < EXACT


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("wrap", [*WRAPS, "fsdp part"])
@pytest.mark.parametrize("together", [False, True])
def test_R31_part_by_part_on_two_ranks(two: Pool, wrap: str, clip: Any, together: bool) -> None:
    setting = Setting(wrap=wrap, members=members(clip), clip_together=together)
    assert max(two.run(distance, setting)) < EXACT


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("wrap", ["ddp", "fsdp"])
def test_R31_with_one_owner_of_everything(two: Pool, wrap: str, clip: Any) -> None:
    one = {"main": {"accum_grad": 2, "grad_clip": clip, "optim_type": "SGD", "optim_conf": {"lr": 2.0}}}
    assert max(two.run(distance, Setting(wrap=wrap, members=one))) < EXACT


@pytest.mark.parametrize("wrap", WRAPS)
def test_R20_R32_a_nan_for_one_member_on_one_rank_is_a_skip_of_both_on_both(two: Pool, wrap: str) -> None:
    poison = (1, 1, "left")
    setting = Setting(wrap=wrap, members=members(0.1), batches=2, clip_together=True, poison=poison)
    for weights, reports, told in two.run(poisoned, setting):
        assert {name: report.read().skipped for name, report in reports[-1].items()} == {
            "matrices": True,
            "rest": True,
        }
        assert all(w.isfinite().all() for w in weights.values())
        assert any("of matrices, rest together" in line for line in told)

"""Several ranks train what one process with all the data trains, and talk no more than they must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.distributed.jobs import ONE, SEVERAL, WRAPS, Setting, distance, traffic
from tests.distributed.pool import Pool

pytestmark = pytest.mark.xdist_group("ranks")

EXACT = 1e-9  # sums over ranks in another order; float64

VARIANTS = {
    "even": {},
    "weighted": {"sizes": (4, 1, 3)},
    "a rank with nothing": {"sizes": (4, 0, 3)},
    "flushed": {"last": False},
    "not announced": {"inside": False, "last": False, "batches": 6},
}
MEMBERS = {"one": ONE, "several": SEVERAL}


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize(
    ("wrap", "variant"),
    [
        (wrap, v)
        for wrap in (*WRAPS, "parts", "fsdp part")
        for v in VARIANTS
        if v != "flushed" or "fsdp" not in wrap
    ],
)  # that one is an error: test_R13_under_fsdp_a_flush_says_what_to_write
def test_B3_B7_B24_R31_two_ranks_give_the_weights_of_one_process(
    two: Pool, wrap: str, variant: str, members: str
) -> None:
    setting = Setting(wrap=wrap, members=MEMBERS[members], **VARIANTS[variant])
    assert max(two.run(distance, setting)) < EXACT


@pytest.mark.parametrize("optim_type", ["SGD", "Adagrad", "RMSprop", "AdamW", "NAdam"])
@pytest.mark.parametrize("wrap", ["fsdp", "fsdp part", "ddp"])
def test_R31_with_every_kind_of_kernel(two: Pool, wrap: str, optim_type: str) -> None:
    members = {"main": {**ONE["main"], "optim_type": optim_type}}
    assert max(two.run(distance, Setting(wrap=wrap, members=members))) < EXACT


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("variant", ["even", "weighted"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_R31_four_ranks_give_the_weights_of_one_process(
    four: Pool, wrap: str, variant: str, members: str
) -> None:
    setting = Setting(wrap=wrap, members=MEMBERS[members], **VARIANTS[variant])
    assert max(four.run(distance, setting)) < EXACT


@pytest.mark.parametrize(
    ("wrap", "members", "ddp"),
    [
        ("ddp", ONE, {"find_unused_parameters": True}),
        ("ddp", SEVERAL, {}),
        ("parts", SEVERAL, {}),
        ("hand", ONE, {}),
        ("hand", SEVERAL, {}),
    ],
)
def test_R29_a_parameter_with_a_gradient_on_one_rank_only(
    two: Pool, wrap: str, members: Mapping[str, Any], ddp: Mapping[str, Any]
) -> None:
    setting = Setting(wrap=wrap, members=members, ddp=ddp, one_sided=True)
    assert max(two.run(distance, setting)) < EXACT


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("members", MEMBERS)
def test_R31_with_either_setting_of_bucket_views(two: Pool, members: str, view: bool) -> None:
    setting = Setting(wrap="ddp", members=MEMBERS[members], ddp={"gradient_as_bucket_view": view})
    assert max(two.run(distance, setting)) < EXACT


def test_B6_R28_under_ddp_gradients_cross_once_per_window(two: Pool) -> None:
    counts = two.run(traffic, Setting(wrap="ddp", members=ONE))[0]  # 7 batches in 4 windows
    counts.pop("broadcast", 0)  # the reducer's own, once, when it orders its buckets
    assert counts == {"allreduce": 4, "allgather": 4}, "a bucket, and weight and loss"


@pytest.mark.parametrize("wrap", ["ddp", "hand"])
def test_R29_one_reduction_per_window_and_member_and_a_small_one(two: Pool, wrap: str) -> None:
    counts = two.run(traffic, Setting(wrap=wrap, members=SEVERAL))[0]
    updates = 4 + 1 + 7  # trunk: 7 batches by 2; left: by 3, every second of 3 windows; right: each batch
    assert counts == {"allreduce": updates, "allgather": updates}


def test_R29_an_idle_member_costs_nothing(two: Pool) -> None:
    idle = {**SEVERAL, "left": {**SEVERAL["left"], "step_per_update": 9}}
    counts = two.run(traffic, Setting(wrap="ddp", members=idle))[0]
    assert counts == {"allreduce": 4 + 7, "allgather": 4 + 7}


def test_R30_under_fsdp_gradients_are_scattered_once_per_window(two: Pool) -> None:
    setting = Setting(wrap="fsdp", members=ONE, batches=6)  # 3 windows, 3 sharded modules
    assert two.run(traffic, setting)[0]["reduce_scatter_base"] == 3 * 3
    longer = replace(setting, members={"main": {"accum_grad": 6}})
    assert two.run(traffic, longer)[0]["reduce_scatter_base"] == 3

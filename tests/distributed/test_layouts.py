"""R25, R29, R31: several ranks train the same in either layout, also where the ranks' layouts differ."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from optimscheduler import OptimSchedulerDict
from tests.distributed.jobs import ONE, SEVERAL, Heads, Setting, build, data, train, weights, wrapped
from tests.distributed.pool import Pool

pytestmark = pytest.mark.xdist_group("ranks")

MEMBERS = {"one": ONE, "several": SEVERAL}
CLOSE = 1e-10  # sums and norms in another order; float64


def members_of(setting: Setting, layout: str) -> dict[str, Mapping[str, Any]]:
    return {name: {**conf, "layout": layout} for name, conf in setting.members.items()}


def stored_tensors(optims: OptimSchedulerDict) -> list[int]:
    """How many parameters of each member lie in buffers."""
    return [len(optim.member.gradients.moved_elsewhere) for optim in optims.values()]


def in_both(setting: Setting) -> tuple[float, list[int], list[int], dict[str, Tensor]]:
    """The distance between the layouts, who lies flat in each, and the weights."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    found, flat = [], []
    for layout in ("flat", "loose"):
        model = wrapped(Heads(), setting)
        optims = build(model, members_of(setting, layout), distributed=setting.wrap == "hand")
        batches = [batch[rank] for batch in data(setting, ranks)]
        train(model, optims, batches, setting, side=not (setting.one_sided and rank))
        found.append(weights(model))
        flat.append(stored_tensors(optims))
    start = weights(Heads())
    assert any((found[1][name] - start[name]).abs().max() > 1e-2 for name in start), "nothing was trained"
    return max(float((w - found[1][n]).abs().max()) for n, w in found[0].items()), *flat, found[0]


def check(two: Pool, setting: Setting, expected: list[int]) -> None:
    (far_0, flat_0, loose_0, weights_0), (far_1, flat_1, _, weights_1) = two.run(in_both, setting)
    assert max(far_0, far_1) < CLOSE
    assert flat_0 == flat_1 == expected
    assert not any(loose_0)
    assert all(torch.equal(weights_0[name], weights_1[name]) for name in weights_0), "the ranks are equal"


@pytest.mark.parametrize("unused", [False, True], ids=["", "find unused"])
@pytest.mark.parametrize("view", [False, True], ids=["", "bucket views"])
@pytest.mark.parametrize("accum_grad", [1, 3])
def test_R31_under_ddp(two: Pool, accum_grad: int, view: bool, unused: bool) -> None:
    members = {"main": {"accum_grad": accum_grad, "grad_clip": 0.3}}
    ddp = {"gradient_as_bucket_view": view, "find_unused_parameters": unused}
    check(two, Setting(wrap="ddp", members=members, ddp=ddp, batches=9), [8])


@pytest.mark.parametrize("last", [False, True], ids=["flushed", "announced"])
@pytest.mark.parametrize("wrap", ["ddp", "hand", "parts"])
@pytest.mark.parametrize("members", MEMBERS)
def test_R31_with_any_wrapper_and_short_windows(two: Pool, members: str, wrap: str, last: bool) -> None:
    setting = Setting(wrap=wrap, members=MEMBERS[members], last=last, sizes=(4, 1, 3))
    check(two, setting, [8] if members == "one" else [2, 2, 4])


@pytest.mark.parametrize("optim_type", ["SGD", "RMSprop", "NAdam"])
def test_R31_with_every_kind_of_kernel(two: Pool, optim_type: str) -> None:
    members = {"main": {**ONE["main"], "optim_type": optim_type, "optim_conf": {"lr": 0.02}}}
    check(two, Setting(wrap="ddp", members=members), [8])


@pytest.mark.parametrize("view", [False, True], ids=["", "bucket views"])
@pytest.mark.parametrize("accum_grad", [1, 2])
def test_R29_under_ddp_a_parameter_with_a_gradient_on_one_rank_only(
    two: Pool, accum_grad: int, view: bool
) -> None:
    setting = Setting(
        wrap="ddp",
        members={"main": {"accum_grad": accum_grad}},
        ddp={"find_unused_parameters": True, "gradient_as_bucket_view": view},
        one_sided=True,
    )
    check(two, setting, [8])


@pytest.mark.parametrize("members", MEMBERS)
def test_R29_reduced_by_hand_a_parameter_with_a_gradient_on_one_rank_only(two: Pool, members: str) -> None:
    setting = Setting(wrap="hand", members=MEMBERS[members], one_sided=True)
    check(two, setting, [8] if members == "one" else [2, 2, 4])


# ---- a gradient that comes and goes ----


def comes_and_goes(wrap: str, view: bool) -> tuple[float, list[list[int]], dict[str, Tensor]]:
    """The side is used by both ranks, by one, by none, by the other, by both."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    ddp = {"find_unused_parameters": True, "gradient_as_bucket_view": view}
    setting = Setting(wrap=wrap, members={"main": {"accum_grad": 1}}, ddp=ddp, batches=10)
    used = [(True, True)] * 3 + [(True, False), (False, False), (False, False), (False, True)]
    used += [(False, False), (True, True), (True, True)]
    found, counts = [], []
    for layout in ("flat", "loose"):
        model = wrapped(Heads(), setting)
        conf = {"optim_conf": {"lr": 0.05, "weight_decay": 0.1}, "optim_type": "AdamW"}
        optims = build(model, members_of(setting, layout), distributed=wrap == "hand", **conf)
        count = []
        for batch, who in zip(data(setting, ranks), used, strict=True):
            before = weights(model)["side.weight"]
            with optims.forward():
                losses = model(batch[rank], side=who[rank])
            optims.step(losses)
            moved = not torch.equal(weights(model)["side.weight"], before)
            # a wrapper that is told to look for unused parameters leaves them alone where no rank uses them
            assert moved is any(who), f"{layout}: {who}"
            count += stored_tensors(optims)
        found.append(weights(model))
        counts.append(count)
    return max(float((w - found[1][n]).abs().max()) for n, w in found[0].items()), counts, found[0]


@pytest.mark.parametrize(("wrap", "view"), [("hand", False), ("ddp", False), ("ddp", True)])
def test_R29_without_a_gradient_on_all_ranks_a_parameter_does_not_move(
    two: Pool, wrap: str, view: bool
) -> None:
    (far_0, counts_0, weights_0), (far_1, counts_1, weights_1) = two.run(comes_and_goes, wrap, view)
    assert max(far_0, far_1) < CLOSE
    assert counts_0 == counts_1
    assert counts_0[0][:4] == [8] * 4
    assert counts_0[0][-1] >= 6, "the others are still together"
    assert all(torch.equal(weights_0[name], weights_1[name]) for name in weights_0)


# ---- layouts that differ ----


def one_dissolves(
    wrap: str, dtype: torch.dtype, check_ranks: bool, grad_clip: float | None
) -> tuple[dict[str, Tensor], list[int], list[float]]:
    """Rank 1 moves a weight to other memory; its values stay what they are."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    members = {
        "main": {"accum_grad": 1, "grad_clip": grad_clip, "layout": "flat", "check_ranks": check_ranks}
    }
    setting = Setting(wrap=wrap, members=members, batches=203)
    inner = Heads().to(dtype)
    model = wrapped(inner, setting)
    optims = build(model, members, distributed=wrap == "hand", optim_conf={"lr": 0.01})
    norms = []
    for number, batch in enumerate(data(setting, ranks), start=1):
        if number == 3:
            assert stored_tensors(optims) == [8]
            if rank == 1:
                inner.left.weight.data = inner.left.weight.data.clone()
        with optims.forward():
            losses = model(batch[rank].to(dtype))
        norms.append(float(optims.step(losses)["main"].grad_norm or 0))
    return weights(model), stored_tensors(optims), norms


@pytest.mark.parametrize("grad_clip", [None, 0.3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("wrap", ["ddp", "hand"])
def test_R32_one_rank_alone_dissolves_its_layout(
    two: Pool, wrap: str, dtype: torch.dtype, grad_clip: float | None
) -> None:
    """The ranks stay equal in every bit, or they drift apart without end."""
    (weights_0, flat_0, norms_0), (weights_1, flat_1, norms_1) = two.run(
        one_dissolves, wrap, dtype, False, grad_clip
    )
    assert (flat_0, flat_1) == ([0], [0])
    far = max(float((w - weights_1[n]).abs().max()) for n, w in weights_0.items())
    assert far < (1e-9 if dtype is torch.float64 else 1e-3)
    assert far == 0, f"by {far:g}"
    assert norms_0 == norms_1


@pytest.mark.parametrize("wrap", ["ddp", "hand"])
def test_R32_check_ranks_does_not_blame_a_layout(two: Pool, wrap: str) -> None:
    (_, flat_0, _), (_, flat_1, _) = two.run(one_dissolves, wrap, torch.float32, True, 0.3)
    assert (flat_0, flat_1) == ([0], [0])


def test_R33_a_state_of_two_ranks_goes_into_the_other_layout(two: Pool) -> None:
    for far, flat in two.run(handed_over):
        assert far < CLOSE
        assert flat == [[8], [0], [8]]


def handed_over() -> tuple[float, list[list[int]]]:
    """Flat for four batches, then loose, then flat again, against flat all along."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    setting = Setting(wrap="ddp", members=ONE, batches=12)
    batches = [batch[rank] for batch in data(setting, ranks)]
    part = replace(setting, last=True, batches=4)
    whole = wrapped(Heads(), setting)
    train(whole, build(whole, members_of(setting, "loose")), batches, setting, side=True)
    model, flat, state = wrapped(Heads(), setting), [], None
    for turn, layout in enumerate(("flat", "loose", "flat")):
        optims = build(model, members_of(setting, layout))
        if state is not None:
            optims.load_state_dict(state)
        train(model, optims, batches[4 * turn : 4 * turn + 4], part, side=True)
        flat.append(stored_tensors(optims))
        state = optims.state_dict()
    theirs = weights(whole)
    return max(float((w - theirs[n]).abs().max()) for n, w in weights(model).items()), flat

"""R30, R45: meshes that people bring, and `dcp.save` and `dcp.load` of the objects themselves."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from optimscheduler import OptimScheduler, OptimSchedulerDict
from tests.distributed.jobs import weights
from tests.distributed.pool import Pool

pytestmark = pytest.mark.xdist_group("ranks")

CLOSE = 1e-10  # sums in another order; float64


# ---- the norm over a part of a mesh ----


def sharded_over_a_part(grad_clip: float | None) -> tuple[float, float, float]:
    """The norm of the library, torch's, and how far the updated weights are from torch's."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).double()
        fully_shard(model, mesh=mesh["dp"])
        models.append(model)
    ours, theirs = models
    x = torch.ones(2, 4, dtype=torch.float64)
    optim = OptimScheduler("SGD", {"lr": 0.1}, ours, use_amp=False, grad_clip=grad_clip)
    with optim.forward():
        loss = ours(x).square().mean()
    norm = optim.step({"loss": loss}).read().grad_norm
    theirs(x).square().mean().backward()
    bound = float("inf") if grad_clip is None else grad_clip
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), bound).full_tensor()
    torch.optim.SGD(theirs.parameters(), lr=0.1).step()
    mine, plain = weights(ours), weights(theirs)
    return norm, float(expected), max(float((mine[n] - plain[n]).abs().max()) for n in mine)


@pytest.mark.parametrize("grad_clip", [None, 0.1])
def test_R30_the_norm_over_one_dimension_of_a_mesh(four: Pool, grad_clip: float | None) -> None:
    for norm, expected, distance in four.run(sharded_over_a_part, grad_clip):
        assert norm == pytest.approx(expected, rel=1e-10)
        assert distance < CLOSE


# ---- dcp of the object itself ----


def batches() -> tuple[Tensor, Tensor]:
    x = torch.randn(96, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return x, x.sum(1, keepdim=True)


def built(seed: int, members: str, layout: str) -> tuple[nn.Module, OptimScheduler | OptimSchedulerDict]:
    """Sharded where there are several ranks."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    if dist.is_initialized():
        fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    conf: dict[str, Any] = {"use_amp": False, "accum_grad": 2, "grad_clip": 0.5, "layout": layout}
    conf["schedule"] = "Warmup(steps=3, then=Linear(steps=9))"

    def member(modules: list[str] | None) -> OptimScheduler:
        return OptimScheduler("AdamW", {"lr": 1e-2}, model, updated_modules=modules, **conf)

    if members == "one":
        return model, member(None)
    return model, OptimSchedulerDict({"first": member(["0"]), "last": member(["2"])})


def steps(model: nn.Module, optim: Any, numbers: range) -> None:
    """Each rank takes its part of every batch."""
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    x, y = batches()
    for number in numbers:
        own = slice(8 * number + rank, 8 * number + 8, ranks)
        with optim.forward(last=number % 2 == 1):
            loss = (model(x[own]) - y[own]).square().mean()
        optim.step({"loss": loss})


def saved_half_way(folder: str, members: str, layout: str) -> dict[str, Tensor]:
    """The weights of the run that goes on."""
    model, optim = built(0, members, layout)
    steps(model, optim, range(6))
    with told():
        dcp.save({"model": model.state_dict(), "optim": optim}, checkpoint_id=folder, no_dist=_alone())
    steps(model, optim, range(6, 12))
    return weights(model)


def gone_on(folder: str, members: str, layout: str) -> dict[str, Tensor]:
    """The weights of one that was built anew, from other weights, and loaded."""
    model, optim = built(7, members, layout)
    state = model.state_dict()
    with told():
        dcp.load({"model": state, "optim": optim}, checkpoint_id=folder, no_dist=_alone())
    model.load_state_dict(state)
    steps(model, optim, range(6, 12))
    return weights(model)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What dcp raises is no Exception, and would end the process of a rank."""
    try:
        yield
    except CheckpointException as error:
        raise AssertionError(str(error)) from error


def _alone() -> bool:
    return not dist.is_initialized()


def on(ranks: int, two: Pool, function: Any, *args: Any) -> dict[str, Tensor]:
    """What the first rank answers, or this process."""
    found: dict[str, Tensor] = two.run(function, *args)[0] if ranks == 2 else function(*args)
    return found


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("layout", ["auto", "loose"])
@pytest.mark.parametrize("members", ["one", "two"])
@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2), (1, 1)], ids=str)
def test_R45_dcp_saves_and_loads_the_object(
    two: Pool, tmp_path: Path, before: int, after: int, members: str, layout: str
) -> None:
    expected = on(before, two, saved_half_way, str(tmp_path), members, layout)
    found = on(after, two, gone_on, str(tmp_path), members, layout)
    far = {name: float((found[name] - expected[name]).abs().max()) for name in expected}
    assert max(far.values()) < CLOSE, far


# ---- a hook on one rank ----


def watched_on_one_rank(layout: str, wrap: bool) -> dict[str, Tensor]:
    """Weights after a hook on rank 0 has looked at a few updates, was taken away, and updates followed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    trained = nn.parallel.DistributedDataParallel(model) if wrap else model
    arguments: dict[str, Any] = {
        "use_amp": False,
        "grad_clip": 0.1,
        "layout": layout,
        "distributed": not wrap,
    }
    optim = OptimScheduler("AdamW", {"lr": 0.01}, trained, **arguments)
    looks: list[int] = []
    handle = None
    generator = torch.Generator().manual_seed(dist.get_rank())
    for number in range(9):
        if number == 3 and dist.get_rank() == 0:
            handle = optim.optimizer.register_step_pre_hook(lambda *_: looks.append(1))
        if number == 6 and handle is not None:
            handle.remove()
        with optim.forward():
            loss = trained(torch.randn(3, 4, generator=generator)).square().mean()
        optim.step({"loss": loss})
    assert len(looks) == (3 if dist.get_rank() == 0 else 0)
    return weights(model)


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("layout", ["auto", "loose"])
def test_R41_a_hook_on_one_rank_leaves_the_ranks_equal_in_every_bit(
    two: Pool, layout: str, wrap: bool
) -> None:
    """The fused kernel and torch's plain one differ in the last bit, so all take the same."""
    first, second = two.run(watched_on_one_rank, layout, wrap)
    for name, weight in first.items():
        assert torch.equal(weight, second[name])

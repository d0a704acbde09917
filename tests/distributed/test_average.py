"""The average of the weights on several ranks is that of one process, and so are its checkpoints."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel as Ddp

from optimscheduler import Average, OptimScheduler
from tests.distributed.jobs import weights
from tests.distributed.meshes import Net, laid, loss_of, mesh_of_four, part_of, texts
from tests.distributed.pool import Pool
from tests.distributed.test_other_hands import told

pytestmark = pytest.mark.xdist_group("ranks")

CLOSE = 1e-10  # sums in another order; float64
SHARDED = "sequence sharded"


def built(how: str, seed: int = 0) -> tuple[Any, OptimScheduler, Average]:
    """The model as it is called, an OptimScheduler over it, an average."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    model: Any = Net()
    for parameter in model.parameters():
        parameter.data += seed
    if how == "ddp":
        model = Ddp(model)
    elif how == "fsdp":
        fully_shard(model.head)
        fully_shard(model, reshard_after_forward=False)  # what is gathered stays, until somebody drops it
    elif how:
        model = laid(model, mesh_of_four(), how)
    optim = OptimScheduler("AdamW", {"lr": 0.05}, model, use_amp=False, grad_clip=0.1, accum_grad=2)
    return model, optim, Average(optim, decay=0.7)


def mine(text: Tensor, how: str) -> Tensor:
    if not how:
        return text
    return text.chunk(2)[dist.get_rank()] if how in ("ddp", "fsdp") else part_of(text, mesh_of_four(), how)


def steps(model: Any, optim: OptimScheduler, numbers: slice, how: str) -> None:
    for number, text in list(enumerate(texts(12)))[numbers]:
        with optim.forward():
            loss = loss_of(model, mine(text, how))
        optim.step({"loss": loss * torch.nan if number == 4 else loss})  # refused


def validated(model: Any, average: Average) -> tuple[float, float, float]:
    """The loss with the own weights, with the averaged ones, and with the own again."""
    text = texts(13)[-1]
    model.eval()
    with torch.no_grad():
        before = loss_of(model, text).item()
        with average.applied():
            inside = loss_of(model, text).item()
        after = loss_of(model, text).item()
    model.train()
    return before, inside, after


def whole(average: Average) -> dict[str, Tensor]:
    return {
        n: (w.full_tensor() if hasattr(w, "full_tensor") else w).clone() for n, w in average.weights().items()
    }


def averaged(how: str) -> tuple[dict[str, Tensor], dict[str, Tensor], list[tuple[float, float, float]]]:
    model, optim, average = built(how)
    losses = []
    for part in (slice(0, 6), slice(6, 12)):
        steps(model, optim, part, how)
        losses.append(validated(model, average))
    return whole(average), weights(model), losses


@pytest.mark.parametrize("how", ["ddp", "fsdp", SHARDED])
def test_R31_several_ranks_average_what_one_process_averages(two: Pool, four: Pool, how: str) -> None:
    expected, own, losses = averaged("")
    assert len(losses) == 2
    for found, weights_, validations in (four if how == SHARDED else two).run(averaged, how):
        assert set(found) == set(expected)
        assert max(float((found[n] - w).abs().max()) for n, w in expected.items()) < CLOSE
        assert max(float((weights_[n] - w).abs().max()) for n, w in own.items()) < CLOSE
        for (before, inside, after), alone in zip(validations, losses, strict=True):
            assert before == after != pytest.approx(inside, rel=1e-4)
            assert (before, inside) == pytest.approx(alone[:2], rel=1e-10)


# ---- checkpoints ----


def saved_half_way(folder: str, how: str) -> dict[str, Tensor]:
    model, optim, average = built(how)
    steps(model, optim, slice(0, 6), how)
    with told():
        dcp.save({"model": model.state_dict(), "optim": optim}, checkpoint_id=folder, no_dist=not how)
    steps(model, optim, slice(6, 12), how)
    return whole(average)


def gone_on(folder: str, how: str) -> dict[str, Tensor]:
    model, optim, average = built(how, seed=1)
    state = model.state_dict()
    with told():
        dcp.load({"model": state, "optim": optim}, checkpoint_id=folder, no_dist=not how)
    model.load_state_dict(state)
    assert average.updates == 2, "of three windows one was refused"
    steps(model, optim, slice(6, 12), how)
    return whole(average)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize(("before", "after"), [("", SHARDED), (SHARDED, "")], ids=["there", "back"])
def test_R45_a_checkpoint_takes_the_average_to_a_mesh_and_back(
    four: Pool, tmp_path: Any, before: str, after: str
) -> None:
    found = []
    for job, how in ((saved_half_way, before), (gone_on, after)):
        found.append(four.run(job, str(tmp_path), how)[0] if how else job(str(tmp_path), how))
    assert max(float((found[1][n] - w).abs().max()) for n, w in found[0].items()) < CLOSE


def whole_state_on_a_mesh() -> float:
    model, optim, average = built("")
    steps(model, optim, slice(0, 6), "")
    state, before = copy.deepcopy(optim.state_dict()), copy.deepcopy(model)
    steps(model, optim, slice(6, 12), "")
    mesh_model = laid(before, mesh_of_four(), SHARDED)
    other = OptimScheduler("AdamW", {"lr": 0.05}, mesh_model, use_amp=False, grad_clip=0.1, accum_grad=2)
    again = Average(other, decay=0.7)
    other.load_state_dict(state)
    steps(mesh_model, other, slice(6, 12), SHARDED)
    found, expected = whole(again), whole(average)
    return max(float((found[n] - w).abs().max()) for n, w in expected.items())


def test_R36_an_average_of_whole_tensors_is_spread_over_the_mesh(four: Pool) -> None:
    assert max(four.run(whole_state_on_a_mesh)) < CLOSE

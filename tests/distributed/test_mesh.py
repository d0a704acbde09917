"""R30, R31: on a mesh of four ranks, sharded and tensor parallel, one process's training comes out."""

from __future__ import annotations

import contextlib
import copy
import logging
from typing import Any

import pytest
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.tensor.parallel import loss_parallel
from torch.nn.parallel import DistributedDataParallel as Ddp

from optimscheduler import OptimScheduler, OptimSchedulerDict
from tests.distributed.jobs import weights
from tests.distributed.meshes import Net, laid, loss_of, mesh_of_four, part_of, texts
from tests.distributed.pool import Pool
from tests.distributed.test_agreement import Said
from tests.distributed.test_other_hands import told

pytestmark = pytest.mark.xdist_group("ranks")

CLOSE = 1e-10  # sums in another order; float64
HOWS = (
    "sharded",
    "hybrid",
    "tensor",
    "tensor sharded",
    "sequence",
    "sequence sharded",
    "tensor loss sharded",
)
ONE: dict[str, dict[str, Any]] = {"main": {}}
TWO: dict[str, dict[str, Any]] = {
    "body": {"exclude": ["head.*", "last.*"]},
    "head": {"updated_modules": ["head", "last"]},
}


def build(model: Net, members: dict[str, dict[str, Any]] = ONE, **more: Any) -> OptimSchedulerDict:
    conf = {"optim_type": "AdamW", "optim_conf": {"lr": 0.02}, "use_amp": False, "grad_clip": 0.05, **more}
    return OptimSchedulerDict({n: OptimScheduler(model=model, **{**conf, **m}) for n, m in members.items()})


def far(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in other)


# ---- norms and weights ----


def beside_one_process(how: str, cut: int = 2, members: Any = ONE, **more: Any) -> tuple[float, float]:
    """The largest relative difference of a norm, and of a weight, after six batches."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    mesh = mesh_of_four()
    model, alone = laid(Net(), mesh, how), Net()
    optims, single = build(model, members, **more), build(alone, members, **more)
    norms, parts = [], 4 if how == "hybrid" else 2 if "sharded" in how else 1
    for text in texts(6):
        mine = part_of(text, mesh, how, cut)
        with loss_parallel() if "loss" in how else contextlib.nullcontext():
            with optims.forward():
                loss = loss_of(model, mine)
            found = optims.step({"loss": loss}, weight=len(mine))
        with single.forward():
            loss = loss_of(alone, text)
        expected = single.step({"loss": loss}, weight=len(text) / parts)
        for name, report in found.items():
            if report.completes:
                ours, theirs = report.read(), expected[name].read()
                assert ours.loss == pytest.approx(theirs.loss, rel=1e-10)
                assert theirs.grad_norm > 0.05, "nothing was clipped"
                norms.append(abs(ours.grad_norm / theirs.grad_norm - 1))
    assert far(weights(Net()), weights(alone)) > 1e-2, "nothing was trained"
    return max(norms), far(weights(model), weights(alone))


def check(four: Pool, how: str, *args: Any, **more: Any) -> None:
    for norm, weight in four.run(_keywords, how, args, more):
        assert norm < CLOSE
        assert weight < CLOSE


def _keywords(how: str, args: tuple[Any, ...], more: dict[str, Any]) -> tuple[float, float]:
    return beside_one_process(how, *args, **more)


@pytest.mark.parametrize("norm_type", [2, *(pytest.param(p, marks=pytest.mark.slow) for p in (1, 3, "inf"))])
@pytest.mark.parametrize("how", HOWS)
def test_R30_norm_and_weights_on_a_mesh_are_those_of_one_process(
    four: Pool, how: str, norm_type: float | str
) -> None:
    check(four, how, grad_norm_type=norm_type, grad_clip=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_R30_on_a_mesh_with_windows_weights_and_several_members(four: Pool, how: str) -> None:
    check(four, how, 1, accum_grad=2, grad_clip=0.04)
    check(four, how, 3, TWO, grad_clip=0.03)


@pytest.mark.parametrize("optim_type", ["SGD", "NAdam"])
def test_R30_on_a_mesh_with_every_kind_of_kernel(four: Pool, optim_type: str) -> None:
    conf = {"lr": 5.0 if optim_type == "SGD" else 0.02}
    check(four, "sequence sharded", optim_type=optim_type, optim_conf=conf, accum_grad=3, grad_clip=0.04)


# ---- checkpoints ----


def steps(model: Net, optims: OptimSchedulerDict, numbers: slice, how: str) -> None:
    mesh = mesh_of_four() if how else None
    for text in texts(8)[numbers]:
        with optims.forward():
            loss = loss_of(model, part_of(text, mesh, how) if mesh else text)
        optims.step({"loss": loss})


def saved_half_way(folder: str, how: str, optim_type: str) -> dict[str, Tensor]:
    """The weights of the run that goes on."""
    model = laid(Net(), mesh_of_four(), how) if how else Net()
    optims = build(model, TWO, optim_type=optim_type)
    steps(model, optims, slice(0, 4), how)
    state = {"model": model.state_dict(), "optims": optims.state_dict()}
    with told():
        dcp.save(state, checkpoint_id=folder, no_dist=not dist.is_initialized())
    steps(model, optims, slice(4, 8), how)
    return weights(model)


def gone_on(folder: str, how: str, optim_type: str) -> dict[str, Tensor]:
    """The weights of one that was built anew, from other weights, and loaded."""
    model = Net()
    for parameter in model.parameters():
        parameter.data += 1.0
    model = laid(model, mesh_of_four(), how) if how else model
    optims = build(model, TWO, optim_type=optim_type)
    state = {"model": model.state_dict(), "optims": optims.state_dict()}
    with told():
        dcp.load(state, checkpoint_id=folder, no_dist=not dist.is_initialized())
    model.load_state_dict(state["model"])
    optims.load_state_dict(state["optims"])
    steps(model, optims, slice(4, 8), how)
    return weights(model)


WAYS = [("", "sequence sharded"), ("sequence sharded", ""), ("sequence sharded", "tensor sharded")]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("optim_type", ["AdamW", "NAdam"])
@pytest.mark.parametrize(("before", "after"), WAYS, ids=["there", "back", "to another"])
def test_R45_a_checkpoint_goes_from_one_process_to_a_mesh_and_back(
    four: Pool, tmp_path: Any, before: str, after: str, optim_type: str
) -> None:
    found = []
    for job, how in ((saved_half_way, before), (gone_on, after)):
        told_to = (str(tmp_path), how, optim_type)
        found.append(four.run(job, *told_to)[0] if how else job(*told_to))
    assert far(found[0], weights(Net())) > 1e-2
    assert far(found[0], found[1]) < CLOSE


def whole_state_on_a_mesh(optim_type: str, torchs: bool) -> float:
    """A state with whole tensors, as `torch.load` gives it on every rank."""
    alone = Net()
    single = build(alone, optim_type=optim_type)
    steps(alone, single, slice(0, 4), "")
    state = single["main"].optimizer.state_dict() if torchs else single.state_dict()["main"]
    state, before = copy.deepcopy(state), copy.deepcopy(alone)
    steps(alone, single, slice(4, 8), "")
    model = laid(before, mesh_of_four(), "sequence sharded")
    optims = build(model, optim_type=optim_type)
    optims["main"].load_state_dict(state)
    steps(model, optims, slice(4, 8), "sequence sharded")
    return far(weights(model), weights(alone))


@pytest.mark.parametrize("torchs", [False, True], ids=["ours", "torch's"])
@pytest.mark.parametrize("optim_type", ["AdamW", "SGD", "NAdam"])
def test_R36_a_state_of_whole_tensors_is_spread_over_the_mesh(
    four: Pool, optim_type: str, torchs: bool
) -> None:
    assert max(four.run(whole_state_on_a_mesh, optim_type, torchs)) < CLOSE


# ---- what cannot be ----


def stepped_outside_of_loss_parallel() -> None:
    mesh = mesh_of_four()
    model = laid(Net(), mesh, "tensor loss sharded")
    optims = build(model)
    with loss_parallel(), optims.forward():
        loss = loss_of(model, part_of(texts(1)[0], mesh, "sharded"))
    optims.step({"loss": loss})


def test_R13_a_step_outside_of_loss_parallel_is_told_what_to_do(four: Pool) -> None:
    for kind, text in four.outcomes(stepped_outside_of_loss_parallel):
        assert kind == "GraphError"
        assert "with loss_parallel():`, call optim.step(losses) inside it too" in text


def refused(how: str) -> list[str]:
    heard, mesh, model = Said(), mesh_of_four(), Net()
    laid(model, mesh, "tensor")
    if how == "said":
        build(model)
        return heard.lines
    trained = Ddp(model, device_mesh=mesh["dp"]) if how == "ddp" else model
    with pytest.raises(ValueError) as error:  # noqa: PT011  # what it says is what is tested
        OptimScheduler("SGD", {"lr": 0.1}, trained, distributed=how == "averaged")
    return [str(error.value)]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("ddp", "DistributedDataParallel over a part of a mesh, round a model with tensor parallelism"),
        ("averaged", "the model is tensor-parallel over 2 of 4 processes, and nothing brings in"),
        ("said", "the model is tensor-parallel over 2 of 4 processes: each 2 train a model of their own"),
    ],
)
def test_R31_tensor_parallel_models_that_nobody_brings_together(four: Pool, how: str, text: str) -> None:
    for lines in four.run(refused, how):
        assert any(text in line and "rite fully_shard(model, mesh=mesh['dp'])" in line for line in lines)

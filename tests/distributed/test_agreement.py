"""What one rank does, all do; and what one does alone is said."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as Ddp

from optimscheduler import GraphError, OptimScheduler, OptimSchedulerDict, StepReport
from tests.distributed.jobs import ONE, SEVERAL, WRAPS, Heads, Setting, build, data, train, weights, wrapped
from tests.distributed.pool import Pool

pytestmark = pytest.mark.xdist_group("ranks")

MEMBERS = {"one": ONE, "several": SEVERAL}


class Said(logging.Handler):
    """What the package logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logger = logging.getLogger("optimscheduler")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


# ---- a gradient that is not finite ----


def poisoned(setting: Setting) -> tuple[dict[str, Tensor], list[dict[str, StepReport]], list[str]]:
    said = Said()
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = wrapped(Heads(), setting)
    optims = build(model, setting.members, setting.clip_together, distributed=setting.wrap == "hand")
    reports = train(model, optims, [batch[rank] for batch in data(setting, ranks)], setting, side=True)
    return weights(model), [{n: r.read() for n, r in each.items()} for each in reports], said.lines


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("wrap", WRAPS)
def test_B14_R20_a_nan_on_one_rank_is_a_skip_on_all(two: Pool, wrap: str, members: str) -> None:
    loss = "loss"  # of the only one, and of the trunk; the others take losses of their own
    setting = Setting(wrap=wrap, members=MEMBERS[members], poison=(3, 1, loss))
    (weights_0, reports_0, said), (weights_1, reports_1, _) = two.run(poisoned, setting)
    closed = [[{n: r for n, r in b.items() if r.completes} for b in each] for each in (reports_0, reports_1)]
    assert repr(closed[0]) == repr(closed[1]), "with the same loss, the mean over the ranks"
    assert all(torch.equal(weights_0[name], weights_1[name]) for name in weights_0)
    assert all(weight.isfinite().all() for weight in weights_0.values())
    skipped = [(n, name) for n, each in enumerate(reports_0, 1) for name, r in each.items() if r.skipped]
    assert skipped == [(4, next(iter(setting.members)))], (
        "the window of batches 3 and 4, of that member alone"
    )
    assert sum(r.updated for each in reports_0 for r in each.values()) == (
        4 - 1 if members == "one" else 12 - 1
    )
    assert any("on rank 1;" in line for line in said), said


def test_R21_where_no_loss_was_bad_the_rank_is_unknown(two: Pool) -> None:
    (_, _, said), _ = two.run(overflowing)
    assert any("rank unknown, already averaged" in line for line in said), said


def overflowing() -> Any:
    said = Said()
    model = Ddp(nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model.module.weight.zero_()
    optim = OptimScheduler("SGD", {"lr": 0.1}, model, use_amp=False)
    x = torch.full((1, 2), 3e38 if dist.get_rank() else 0.0)
    for _ in range(1):
        with optim.forward():
            losses = {"loss": (model(x) * 9).sum()}
        optim.step(losses)
    return None, None, said.lines


# ---- the norm of a gradient that is spread over ranks ----


def norms(norm_type: float | str, meshes: str) -> list[float]:
    """Of three updates; with two meshes the trunk is copied over one dimension, sharded over the other."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = Heads()
    if meshes != "none":
        flat = init_device_mesh("cpu", (ranks,))
        names = ("copies", "shards")
        grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=names) if meshes == "two" else flat
        fully_shard(model.trunk, mesh=grid)
        fully_shard(model, mesh=flat)
    optims = build(model, {"main": {"grad_clip": 0.1, "grad_norm_type": norm_type}})
    setting = Setting(wrap="fsdp", members=ONE, batches=3)
    rows = data(setting, ranks)
    if meshes == "none":
        reports = train(model, optims, [torch.cat(row) for row in rows], setting, side=True)
    else:
        reports = train(model, optims, [row[rank] for row in rows], setting, side=True)
    return [float(report["main"].grad_norm) for report in reports]


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.5, "inf"])
@pytest.mark.parametrize("meshes", ["one", "two"])
def test_B19_R30_the_norm_is_over_the_mesh_and_reported_whole(
    four: Pool, meshes: str, norm_type: float | str
) -> None:
    expected = four.run(norms, norm_type, "none")[0]
    for seen in four.run(norms, norm_type, meshes):
        assert seen == pytest.approx(expected, rel=1e-12)  # each clipped update hangs on the norm before


# ---- loss scale and weights in float16 ----


def in_fp16(members: Mapping[str, Any], wrap: str) -> tuple[Any, ...]:
    """Weighted windows in float16, the first of which overflow; each rank's weights are its own."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    setting = Setting(wrap=wrap, members=members, batches=12, sizes=(3, 0, 5, 1))
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model = wrapped(Heads().float(), setting)
    optims = build(model, members, distributed=wrap == "hand", use_amp="fp16")
    for optim in optims.values():
        optim.scaler.value.fill_(2.0**18)
    batches = [batch[rank].float() for batch in data(setting, ranks)]
    reports = train(model, optims, batches, setting, side=True)
    skips = [(n, name) for n, each in enumerate(reports) for name, r in each.items() if r.read().skipped]
    scales = {n: (o.scaler.get_scale(), o.scaler.reference_weight) for n, o in optims.items()}
    return weights(model), skips, scales


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("wrap", ["ddp", "hand"])
def test_B9_R11_R26_loss_scales_stay_equal_on_all_ranks(two: Pool, wrap: str, members: str) -> None:
    (weights_0, skips_0, scales_0), (weights_1, skips_1, scales_1) = two.run(in_fp16, MEMBERS[members], wrap)
    assert scales_0 == scales_1
    assert {reference for _, reference in scales_0.values()} == {3.0}, "the larger of the first 3 and 0"
    assert skips_0 == skips_1 != []
    assert all(torch.equal(weights_0[name], weights_1[name]) for name in weights_0)
    start = weights(Heads().float())
    assert all(not torch.equal(weights_0[name], start[name]) for name in ("trunk.0.weight", "right.weight"))


# ---- buffers ----


class WithNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)
        self.register_buffer("rank", torch.tensor(float(dist.get_rank())), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = self.last(self.norm(self.first(x)))
        return {"loss": out.square().mean(), "other": out.mean()}


def buffers(wrap: str) -> dict[str, Tensor]:
    torch.manual_seed(dist.get_rank())
    inner = WithNorm()
    model: Any = inner if wrap == "hand" else Ddp(inner)
    if wrap == "ddp, not shared":
        model.broadcast_buffers = False
    conf = {"optim_type": "SGD", "optim_conf": {"lr": 0.1}, "use_amp": False, "distributed": True}
    members = {
        "first": OptimScheduler(model=model, updated_modules=["first", "norm"], accum_grad=2, **conf),
        "last": OptimScheduler(model=model, updated_modules="last", optim_loss="other", **conf),
    }
    optims = OptimSchedulerDict(members)
    for _ in range(4):
        with optims.forward():
            losses = model(torch.randn(5, 2))
        optims.step(losses)
    return {name: buffer.clone() for name, buffer in inner.named_buffers()}


@pytest.mark.parametrize("wrap", ["ddp", "hand"])
def test_R29_buffers_are_those_of_rank_0_at_a_windows_end(two: Pool, wrap: str) -> None:
    first, second = two.run(buffers, wrap)
    assert torch.equal(first["norm.running_mean"], second["norm.running_mean"])
    assert int(second["norm.num_batches_tracked"]) == 4
    if wrap == "hand":
        assert (float(first["rank"]), float(second["rank"])) == (0, 1), "what is not saved is not shared"


def test_R29_a_wrapper_that_shares_no_buffers_is_obeyed(two: Pool) -> None:
    first, second = two.run(buffers, "ddp, not shared")
    assert not torch.equal(first["norm.running_mean"], second["norm.running_mean"])


# ---- a rank that is missing or different ----


def one_stops_early(wrap: str) -> None:
    setting = Setting(wrap=wrap, members=ONE)
    model = wrapped(Heads(), setting)
    optims = build(model, ONE, distributed=True)
    batches = [batch[0] for batch in data(setting, 2)]
    train(model, optims, batches[: 2 if dist.get_rank() else None], setting, side=True)


@pytest.mark.parametrize("wrap", ["ddp", "hand"])
def test_R32_a_rank_that_is_missing_is_a_rank_error(impatient: Pool, wrap: str) -> None:
    (kind, text), (other, _) = impatient.outcomes(one_stops_early, wrap)
    assert (kind, other) == ("RankError", "")
    assert "rank 0 waited for the other ranks to" in text
    assert "does one loader give fewer batches" in text


def different(how: str) -> None:
    model = Heads()
    lr = 0.05 if how == "configuration" and dist.get_rank() else 0.1
    optim = OptimScheduler(
        "SGD", {"lr": lr}, model, use_amp=False, distributed=True, check_ranks=True, optim_loss="loss"
    )
    if how == "sum of the weights" and dist.get_rank():
        with torch.no_grad():
            model.left.bias += 1.0
    for number in (1, 2):
        step_num = number + (how == "batch number" and dist.get_rank())
        with optim.forward(step_num=step_num):
            losses = model(torch.ones(1, 3, dtype=torch.float64))
        optim.step(losses)


@pytest.mark.parametrize("how", ["configuration", "batch number", "sum of the weights"])
def test_R32_check_ranks_names_the_rank_that_differs(two: Pool, how: str) -> None:
    for kind, text in two.outcomes(different, how):
        assert kind == "RankError"
        assert f"rank 1 differs from rank 0 in the {how}" in text


def test_R32_ranks_that_are_alike_pass_the_check(two: Pool) -> None:
    two.run(different, "nothing")


# ---- settings and weights that differ ----


def differently_set(settings: list[dict[str, Any]]) -> None:
    """One update; rank by rank its settings."""
    common = {"optim_type": "SGD", "optim_conf": {"lr": 0.1}, "use_amp": False, "optim_loss": "loss"}
    own = {"check_ranks": True, **common, **settings[dist.get_rank()]}
    optim = OptimScheduler(model=Heads(), distributed=True, **own)
    for _ in range(2):
        with optim.forward():
            losses = optim.model(torch.ones(1, 3, dtype=torch.float64))
        optim.step(losses)


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({}, {"optim_conf": {"lr": 0.2}}, "optim_conf.lr: 0.2 there, 0.1 on rank 0"),
        ({}, {"grad_clip": None}, "grad_clip: None there, 1.0 on rank 0"),
        ({"max_skips": 3}, {}, "max_skips: 25 there, 3 on rank 0"),
        (
            {"ft_factor": 2.0, "schedule": "Linear(steps=3)"},
            {"ft_factor": 0.5, "schedule": "Linear(steps=4)"},
            "ft_factor: 0.5 there, 2.0 on rank 0; schedule: 'Linear(steps=4)' there, 'Linear(steps=3)'",
        ),
    ],
)
def test_R32_check_ranks_names_the_settings_and_both_values(
    two: Pool, one: dict[str, Any], other: dict[str, Any], told: str
) -> None:
    for kind, text in two.outcomes(differently_set, [one, other]):
        assert kind == "RankError"
        assert f"rank 1 differs from rank 0 in the configuration: {told}" in text


def test_R32_check_ranks_on_one_rank_alone_is_an_error_on_all(impatient: Pool) -> None:
    for kind, text in impatient.outcomes(differently_set, [{"check_ranks": False}, {}]):
        assert kind == "RankError"
        assert "check_ranks is True on rank 1, and is False on rank 0. Set it alike on every rank" in text


def differently_weighted(wrap: str, members: Any, use_amp: object, weights_: list[Any]) -> None:
    setting = Setting(wrap=wrap, members=members)
    model = wrapped(Heads(), setting)
    optims = build(model, members, distributed=wrap == "hand", use_amp=use_amp)
    for parts in data(setting, dist.get_world_size()):
        with optims.forward():
            losses = model(parts[dist.get_rank()])
        optims.step(losses, weight=weights_[dist.get_rank()])


@pytest.mark.parametrize("use_amp", [False, "fp16"])
@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("wrap", WRAPS)
def test_R08_R32_a_weight_on_one_rank_alone_is_an_error_on_all(
    impatient: Pool, wrap: str, members: str, use_amp: object
) -> None:
    for kind, text in impatient.outcomes(differently_weighted, wrap, MEMBERS[members], use_amp, [None, 4]):
        assert kind == "RankError"
        assert "weight was given on rank 1, and was not given on rank 0. Give step(..., weight=)" in text


def test_R32_of_many_ranks_a_few_are_named(four: Pool) -> None:
    outcomes = four.outcomes(differently_weighted, "ddp", ONE, False, [3, None, 2, 2])
    for _, text in outcomes:
        assert "weight was given on ranks 0, 2, 3, and was not given on rank 1" in text


# ---- a graph that never changes ----


def under_a_static_graph(used: list[bool]) -> list[str]:
    """Windows of two batches, of which each uses a part of the model or not."""
    heard = Said()
    model = Ddp(Heads(), static_graph=True)
    optims = build(model, ONE)
    for x, side in zip(data(Setting(wrap="ddp", members=ONE), 2), used, strict=False):
        with optims.forward():
            losses = model(x[dist.get_rank()], side=side)
        optims.step(losses)
    return heard.lines


def test_R28_what_a_static_graph_costs_is_said_once(two: Pool) -> None:
    for lines in two.run(under_a_static_graph, [True] * 6):
        told = [line for line in lines if "static_graph" in line]
        assert len(told) == 1
        assert (
            "the gradients of the first batch travel in mid-window. From then on once per window" in told[0]
        )


def test_R28_a_static_graph_that_changes_is_told_what_to_write(two: Pool) -> None:
    for kind, text in two.outcomes(under_a_static_graph, [False, True]):
        assert kind == GraphError.__name__
        assert "Write DistributedDataParallel(model, find_unused_parameters=True) in its place" in text


# ---- said once ----


def said(how: str) -> list[str]:
    heard = Said()
    setting = Setting(wrap="ddp" if how == "outside" else "none", members=ONE, inside=how != "outside")
    model = wrapped(Heads(), setting)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    optims = build(model, ONE)
    train(model, optims, [batch[rank] for batch in data(setting, ranks)], setting, side=True)
    with torch.no_grad():
        model(torch.zeros(1, 3, dtype=torch.float64))
    return heard.lines


def test_B6_R28_a_training_forward_outside_forward_is_said_once(two: Pool) -> None:
    for lines in two.run(said, "outside"):
        assert [line for line in lines if "outside forward()" in line] == [
            "a training forward ran outside forward(): gradients travel between the ranks in every batch "
            "instead of once per window. Write: with optim.forward(): losses = model(batch)"
        ]


def test_B7_processes_that_train_apart_are_told_so(two: Pool) -> None:
    for lines in two.run(said, "apart"):
        assert any("each process trains a model of its own. Write distributed=True" in line for line in lines)


def cast_to_half(wrap: str) -> list[str]:
    heard = Said()
    model = wrapped(Heads().float(), Setting(wrap=wrap, members=ONE))
    optims = build(model, ONE, distributed=wrap == "hand")
    for _ in range(3):
        with optims.forward(), torch.autocast("cpu", torch.float16):
            losses = model(torch.ones(2, 3))
        optims.step(losses)
    return heard.lines


@pytest.mark.parametrize("wrap", WRAPS)
def test_R26_float16_of_others_is_said_once_on_several_ranks(two: Pool, wrap: str) -> None:
    for lines in two.run(cast_to_half, wrap):
        assert len([line for line in lines if "Write use_amp='fp16', which scales it" in line]) == 1


def flushed_under_fsdp() -> str:
    setting = Setting(wrap="fsdp", members={"main": {"accum_grad": 4}}, batches=3)
    model = wrapped(Heads(), setting)
    optims = build(model, setting.members)
    batches = [batch[dist.get_rank()] for batch in data(setting, 2)]
    with pytest.raises(ValueError, match="flush: under fully_shard") as error:
        train(model, optims, batches, Setting(**{**setting.__dict__, "last": False}), side=True)
    return str(error.value)


def test_R13_under_fsdp_a_flush_says_what_to_write(two: Pool) -> None:
    assert two.run(flushed_under_fsdp)[0].endswith("with optim.forward(last=True)")


# ---- what fully_shard keeps out of reach ----


def kept_by_fsdp(how: str) -> str:
    setting = Setting(wrap="fsdp", members={"main": {"accum_grad": 2}})
    model = wrapped(Heads(), setting)
    optims = build(model, setting.members)
    state = optims.state_dict()
    x = data(setting, 2)[0][dist.get_rank()]
    with optims.forward():
        losses = model(x)
    if how == "broken off":
        with pytest.raises(ValueError, match="loss 'loss' must be a scalar"):
            optims.step({"loss": losses["loss"].expand(2)})
        losses["loss"].register_hook(_fail)
        with pytest.raises(ArithmeticError), optims.forward():
            optims.step({"loss": losses["loss"] * 1.0})
        with pytest.raises(ValueError, match="cannot be dropped") as told, optims.forward():
            pass
        return str(told.value)
    optims.step(losses)
    if how == "saved":
        with pytest.raises(RuntimeError, match="where no window is open") as saved:
            optims.state_dict()
        return str(saved.value)
    if how == "loaded":
        with pytest.raises(RuntimeError, match="cannot be loaded in the middle") as loaded:
            optims.load_state_dict(state)
        return str(loaded.value)
    losses = model(x)  # outside
    with pytest.raises(ValueError, match="must run inside forward") as outside:
        optims.step(losses)
    return str(outside.value)


def _fail(gradient: Tensor) -> Tensor:
    raise ArithmeticError("of the user's own")


@pytest.mark.parametrize("how", ["broken off", "saved", "loaded", "outside"])
def test_R13_R30_what_torch_keeps_is_never_trained_on_by_mistake(two: Pool, how: str) -> None:
    two.run(kept_by_fsdp, how)


def saved_in_mid_window() -> None:
    setting = Setting(wrap="ddp", members={"main": {"accum_grad": 2}}, batches=1, last=False)
    model = wrapped(Heads(), setting)
    optims = build(model, setting.members)
    with optims.forward():
        losses = model(data(setting, 2)[0][dist.get_rank()])
    optims.step(losses)
    with pytest.raises(RuntimeError, match="where no window is open"):
        optims.state_dict()
    optims.flush()
    optims.state_dict()


def test_R34_with_several_ranks_state_is_saved_at_a_windows_end(two: Pool) -> None:
    two.run(saved_in_mid_window)


# ---- models in evaluation mode, and what nobody owns ----


def trained_in_evaluation_mode() -> float:
    """A full window in training mode, then a short one that is flushed, then one with a batch of weight 0."""
    rank = dist.get_rank()
    model, alone = Ddp(Heads()), Heads()
    optims, single = build(model, ONE), build(alone, ONE)
    for number, parts in enumerate(data(Setting(wrap="ddp", members=ONE, batches=5), 2), start=1):
        if number == 3:
            model.eval()
        weight = 0 if number == 5 and rank else 1
        with optims.forward():
            losses = model(parts[rank])
        optims.step(losses, weight=weight)
        outputs = [alone(x) for x in parts]
        loss = outputs[0]["loss"] if number == 5 else (outputs[0]["loss"] + outputs[1]["loss"]) / 2
        single.step({"loss": loss}, weight=1 if number == 5 else 2)
        if number == 3:
            optims.flush()
            single.flush()
    mine, expected = weights(model), weights(alone)
    return max(float((mine[name] - expected[name]).abs().max()) for name in mine)


def test_R28_a_model_in_evaluation_mode_trains_right(two: Pool) -> None:
    assert max(two.run(trained_in_evaluation_mode)) < 1e-9


def started(wrap: str) -> dict[str, Tensor]:
    torch.manual_seed(dist.get_rank())
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("a", "b", "c")})
    if wrap == "part":
        model["a"] = Ddp(model["a"])
    conf = {"optim_type": "SGD", "optim_conf": {"lr": 0.1}, "use_amp": False, "distributed": True}
    OptimScheduler(model=model, updated_modules="b", **conf)
    return weights(model)


@pytest.mark.parametrize("wrap", ["nothing", "part"])
def test_R29_every_rank_starts_with_the_whole_model_of_rank_0(two: Pool, wrap: str) -> None:
    first, second = two.run(started, wrap)
    assert all(torch.equal(first[name], second[name]) for name in first)


# ---- members stepped one by one ----


def one_by_one(shared_graph: bool) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    heard = Said()
    rank, ranks = dist.get_rank(), dist.get_world_size()
    batches = data(Setting(wrap="ddp", members=SEVERAL, batches=6), ranks)
    model, alone = Ddp(Heads()), Heads()
    members, single = build(model, SEVERAL), build(alone, SEVERAL)
    lone = [OptimScheduler(model=model, optim_type="SGD", optim_conf={"lr": 0.1}, updated_modules="left")]
    assert lone[0].sync is not members["left"].sync
    for number, parts in enumerate(batches, start=1):
        losses = model(parts[rank])
        for optim in members.values():
            losses = losses if shared_graph else model(parts[rank])
            optim.step(losses, step_num=number)
        for optim in single.values():
            outputs = [alone(x) for x in parts]
            optim.step({key: sum(o[key] for o in outputs) / ranks for key in outputs[0]}, step_num=number)
    return weights(model), weights(alone), heard.lines


def test_R29_members_stepped_one_by_one_are_right(two: Pool) -> None:
    for mine, expected, _ in two.run(one_by_one, False):
        assert max(float((mine[name] - expected[name]).abs().max()) for name in mine) < 1e-9


class TwoNorms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.b = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": self.a(x).square().mean(), "b": self.b(x).square().mean()}


def one_by_one_with_buffers(wrap: str) -> dict[str, Tensor]:
    torch.manual_seed(dist.get_rank() + 5)
    inner = TwoNorms()
    model = Ddp(inner) if wrap == "ddp" else inner
    conf = {"optim_type": "SGD", "optim_conf": {"lr": 0.1}, "use_amp": False, "distributed": True}
    optims = [OptimScheduler(model=model, optim_loss=part, updated_modules=part, **conf) for part in "ab"]
    torch.manual_seed(dist.get_rank() + 5)
    for _ in range(3):
        losses = model(torch.randn(4, 2))
        for optim in optims:
            optim.step(losses)
    return {name: tensor.clone() for name, tensor in inner.state_dict().items()}


@pytest.mark.parametrize("wrap", ["ddp", "hand"])
def test_R29_members_with_buffers_and_graphs_of_their_own_are_stepped_one_by_one(
    two: Pool, wrap: str
) -> None:
    first, second = two.run(one_by_one_with_buffers, wrap)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_R29_a_shared_graph_stepped_one_by_one_points_to_the_dict(two: Pool) -> None:
    for kind, text in two.outcomes(one_by_one, True):
        assert kind == GraphError.__name__
        assert "take their step together: OptimSchedulerDict({'name': optim, ...}).step(losses)" in text


# ---- learning rates ----


def rates() -> list[float]:
    model = Ddp(Heads())
    optim = OptimScheduler(
        "SGD", {"lr": 1.0}, model, use_amp=False, accum_grad=2, schedule="Cosine(steps=5, floor=0.1)"
    )
    seen = []
    for _ in range(10):
        with optim.forward():
            losses = model(torch.ones(1, 3, dtype=torch.float64))
        optim.step(losses)
        seen.append(optim.get_lr())
    return seen


def test_B1_R05_the_curve_is_that_of_one_process(two: Pool, four: Pool) -> None:
    alone = OptimScheduler(
        "SGD", {"lr": 1.0}, Heads(), use_amp=False, accum_grad=2, schedule="Cosine(steps=5, floor=0.1)"
    )
    expected = []
    for _ in range(10):
        alone.step({"loss": alone.model(torch.ones(1, 3, dtype=torch.float64))["loss"]})
        expected.append(alone.get_lr())
    assert two.run(rates)[0] == four.run(rates)[3] == expected

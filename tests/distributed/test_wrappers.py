"""R43: DistributedDataParallel belongs to its user; R31: whoever calls whom, the ranks stay equal."""

from __future__ import annotations

import gc
import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel as Ddp
from torch.utils.checkpoint import checkpoint

from optimscheduler import GraphError, OptimScheduler, OptimSchedulerDict
from optimscheduler._torch_compat import scatters_gradients
from tests.distributed.jobs import ONE, SEVERAL, Heads, Setting, build, data, weights, wrapped
from tests.distributed.pool import Pool
from tests.distributed.test_agreement import Said

pytestmark = pytest.mark.xdist_group("ranks")

MEMBERS = {"one": ONE, "several": SEVERAL}
KINDS: dict[str, dict[str, Any]] = {
    "": {},
    "unused": {"find_unused_parameters": True},
    "static": {"static_graph": True},
    "views": {"gradient_as_bucket_view": True},
}
EXACT = 1e-9  # sums over ranks in another order; float64

Batches = list[list[Tensor]]


def settings_of(ddp: Ddp) -> tuple[bool, bool, int, int]:
    hooks = len(ddp._forward_pre_hooks), len(ddp._forward_hooks)
    return ddp.require_backward_grad_sync, ddp.require_forward_param_sync, *hooks


def rows(number: int) -> Batches:
    return data(Setting(wrap="ddp", members=ONE, batches=number), dist.get_world_size())


def loop(model: nn.Module, batches: list[Tensor]) -> None:
    """A plain one, on what the user has built."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x in batches:
        optimizer.zero_grad()
        sum(model(x).values()).backward()  # type: ignore[union-attr]
        optimizer.step()


def loop_alone(model: nn.Module, batches: Batches) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for parts in batches:
        optimizer.zero_grad()
        for x in parts:
            (sum(model(x).values()) / len(parts)).backward()  # type: ignore[union-attr]
        optimizer.step()


def alone(optims: OptimSchedulerDict, model: nn.Module, batches: Batches) -> None:
    """Our step in one process, with the mean of the ranks' losses."""
    for parts in batches:
        outputs = [model(x) for x in parts]
        optims.step({name: sum(o[name] for o in outputs) / len(parts) for name in outputs[0]})


def distance(model: nn.Module, other: nn.Module) -> float:
    mine, theirs = weights(model), weights(other)
    assert all(weight.isfinite().all() for weight in mine.values())
    return max(float((mine[name] - theirs[name]).abs().max()) for name in theirs)


# ---- a plain loop over the same module ----


def before_while_and_after(members: str, kind: str, inside: bool, plain_first: bool) -> float:
    """The user's loop perhaps, ours, the user's, ours, and the user's when the object is gone."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    model, single = Ddp(Heads(), **KINDS[kind]), Heads()
    fresh = settings_of(model)
    if plain_first:
        loop(model, [x[dist.get_rank()] for x in rows(2)])
        loop_alone(single, rows(2))
    optims, twin = build(model, MEMBERS[members]), build(single, MEMBERS[members])
    setting = Setting(wrap="ddp", members=MEMBERS[members], batches=6, inside=inside, last=False)
    for _ in range(2):
        for parts in data(setting, 2):
            if inside:
                with optims.forward():
                    losses = model(parts[dist.get_rank()])
            else:
                losses = model(parts[dist.get_rank()])
            optims.step(losses)
        assert model.require_backward_grad_sync
        alone(twin, single, data(setting, 2))
        loop(model, [x[dist.get_rank()] for x in rows(3)])
        loop_alone(single, rows(3))
    del optims
    gc.collect()
    assert settings_of(model) == fresh
    loop(model, [x[dist.get_rank()] for x in rows(3)])
    loop_alone(single, rows(3))
    return distance(model, single)


@pytest.mark.parametrize(
    ("members", "kind", "inside", "plain_first"),
    [
        case
        for case in itertools.product(MEMBERS, KINDS, (True, False), (True, False))
        if case != ("several", "static", False, False)
    ],
)  # that one is an error: test_R29_a_static_graph_that_ours_would_spoil_says_what_to_write
def test_R43_a_plain_loop_over_the_same_module_is_reduced_by_torch(
    two: Pool, members: str, kind: str, inside: bool, plain_first: bool
) -> None:
    assert max(two.run(before_while_and_after, members, kind, inside, plain_first)) < EXACT


def static_and_outside() -> str:
    model = Ddp(Heads(), static_graph=True)
    optims = build(model, SEVERAL)
    with pytest.raises(ValueError, match="with several OptimSchedulers") as told:
        optims.step(model(rows(1)[0][dist.get_rank()]))
    return str(told.value)


def test_R29_a_static_graph_that_ours_would_spoil_says_what_to_write(two: Pool) -> None:
    assert two.run(static_and_outside)[0].endswith("Write: with optim.forward(): losses = model(batch)")


# ---- what is ours on the wrapper ----


def hooks_and_settings() -> None:
    model = Ddp(Heads())
    fresh = settings_of(model)
    for members in (ONE, SEVERAL):
        optims = build(model, members)
        held = settings_of(model)
        assert held[:2] == fresh[:2]
        assert held[2] > fresh[2]
        with pytest.raises(ZeroDivisionError), optims.forward():
            assert not model.require_backward_grad_sync
            raise ZeroDivisionError
        assert settings_of(model) == held
        state = optims.state_dict()
        name = next(iter(members))
        state[name]["config"]["accum_grad"] = 3
        for _ in range(3):
            optims.load_state_dict(state, on_mismatch="checkpoint")
            assert settings_of(model) == held, "those that were replaced took their hooks along"
        del optims
        assert settings_of(model) == fresh, "counting references is enough"


def test_R43_hooks_go_with_the_object_and_settings_hold_inside_forward_only(two: Pool) -> None:
    two.run(hooks_and_settings)


def fsdp_settings(theirs: bool) -> None:
    setting = Setting(wrap="fsdp", members={"main": {"accum_grad": 2}})
    model: Any = wrapped(Heads(), setting)
    model.set_requires_gradient_sync(theirs)
    optims, seen = build(model, setting.members), []
    for number, parts in enumerate(rows(4), start=1):
        with optims.forward():
            losses = model(parts[dist.get_rank()])
        losses["loss"].register_hook(lambda _: seen.append(scatters_gradients(model)))
        optims.step(losses)
        assert seen.pop() == (number % 2 == 0)
        assert scatters_gradients(model) == theirs


@pytest.mark.parametrize("theirs", [True, False])
def test_R43_what_fully_shard_was_told_holds_outside_step(two: Pool, theirs: bool) -> None:
    two.run(fsdp_settings, theirs)


# ---- two wrappers: an actor whose loss runs through a critic ----


class Judged(nn.Module):
    """Batch statistics and all, so that there are buffers to share."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        torch.manual_seed(inputs)
        self.net = nn.Sequential(nn.Linear(inputs, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self.seen += 1
        return self.net(x)


def actor_and_critic(ours: bool, accum_grad: int) -> dict[str, Tensor]:
    """Two steps of each, in turn; by hand every gradient is zeroed before a backward."""
    critic, actor = Ddp(Judged(3)), Ddp(Judged(2))
    models, conf = {"critic": critic, "actor": actor}, {"lr": 0.3}
    losses: dict[str, Callable[[Tensor], Tensor]] = {
        "critic": lambda x: (critic(x) - x.sum(1, keepdim=True)).square().mean(),
        "actor": lambda x: -critic(torch.cat([x[:, :2], actor(x[:, :2])], 1)).mean(),
    }
    make = lambda m: OptimScheduler("SGD", conf, m, use_amp=False, grad_clip=None, accum_grad=accum_grad)  # noqa: E731
    optims = {n: make(m) if ours else torch.optim.SGD(m.parameters(), **conf) for n, m in models.items()}
    before = {name: settings_of(model) for name, model in models.items()}
    for parts in rows(8):
        x = parts[dist.get_rank()]
        for name, optim in optims.items():
            for _ in range(accum_grad):
                if isinstance(optim, OptimScheduler):
                    with optim.forward():
                        loss = losses[name](x)
                    optim.step({"loss": loss})
                    continue
                loss = losses[name](x)
                for other in optims.values():
                    other.zero_grad()
                loss.backward()
            if not isinstance(optim, OptimScheduler):
                optim.step()
    assert (
        {name: settings_of(model) for name, model in models.items()} == before or not ours or accum_grad > 1
    )
    return {f"{n}.{key}": w for n, model in models.items() for key, w in weights(model).items()}


@pytest.mark.parametrize("accum_grad", [1, 2])
def test_R42_an_actors_loss_through_a_critic_under_two_wrappers(two: Pool, accum_grad: int) -> None:
    plain = two.run(actor_and_critic, False, accum_grad)[0]
    start = {f"critic.{key}": w for key, w in weights(Judged(3)).items()}
    assert max(float((plain[key] - w).abs().max()) for key, w in start.items()) > 0.1
    for found in two.run(actor_and_critic, True, accum_grad):
        assert max(float((found[key] - plain[key]).abs().max()) for key in plain) < EXACT


def told_to_others() -> list[tuple[bool, bool]]:
    critic, actor = Ddp(Judged(3)), Ddp(Judged(2))
    optims = [OptimScheduler("SGD", {"lr": 0.1}, m, use_amp=False) for m in (critic, actor)]
    critic.require_forward_param_sync = False
    with optims[1].forward():
        found = [settings_of(critic)[:2], settings_of(actor)[:2]]
        actor(torch.zeros(1, 2, dtype=torch.float64))
    return [*found, settings_of(critic)[:2], settings_of(actor)[:2]]


def test_R43_inside_forward_the_wrappers_of_others_are_quiet(two: Pool) -> None:
    quiet, own, after, own_after = two.run(told_to_others)[0]
    assert quiet == (False, False)
    assert own == (True, True)
    assert (after, own_after) == ((True, False), (True, True))


def told_to_the_own() -> bool:
    """One is given the wrapper, the other what is in it."""
    model = Ddp(Heads())
    optims = [OptimScheduler("SGD", {"lr": 0.1}, m, use_amp=False) for m in (model, model.module)]
    with optims[1].forward():
        return model.require_backward_grad_sync


def test_R43_a_wrapper_round_the_own_parameters_is_nobody_elses(two: Pool) -> None:
    assert two.run(told_to_the_own) == [True, True]


def through_a_sharded_critic(sharded: str) -> dict[str, Tensor]:
    """Actor and critic, either of them under `fully_shard`; or neither, with all the data."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    models = {"critic": Judged(3), "actor": Judged(2)}
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for name, model in models.items():
        if name in sharded:
            fully_shard(model, mesh=mesh)
    critic, actor = models.values()
    optims = {
        n: OptimScheduler("SGD", {"lr": 0.3}, m, use_amp=False, grad_clip=None, distributed=sharded != "")
        for n, m in models.items()
    }
    for parts in rows(6):
        mine = [parts[dist.get_rank()]] if sharded else parts
        for name, optim in optims.items():
            with optim.forward():
                loss = sum(
                    (critic(x) - x.sum(1, keepdim=True)).square().mean()
                    if name == "critic"
                    else -critic(torch.cat([x[:, :2], actor(x[:, :2])], 1)).mean()
                    for x in mine
                ) / len(mine)
            optim.step({"loss": loss})
    return {f"{n}.{key}": w for n, model in models.items() for key, w in weights(model).items()}


@pytest.mark.parametrize("sharded", ["critic", "actor", "critic actor"])
def test_R42_an_actors_loss_through_a_critic_of_which_one_is_sharded(two: Pool, sharded: str) -> None:
    expected = two.run(through_a_sharded_critic, "")[0]
    for found in two.run(through_a_sharded_critic, sharded):
        assert max(float((found[key] - w).abs().max()) for key, w in expected.items()) < EXACT


# ---- a wrapper whose forward is the whole training step ----


class Stepping(Heads):
    """What Lightning makes of a module: its forward takes the step."""

    optims: OptimSchedulerDict | None = None

    def forward(self, x: Tensor, side: bool = True, weight: float | None = None) -> Any:
        if self.optims is None:
            return super().forward(x, side)
        with self.optims.forward():
            losses = super().forward(x, side)
        self.optims.step(losses, weight=weight)
        return losses["loss"]


def enclosed(members: Any, kind: str, owner: str, silent: bool = False) -> float:
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        if silent:
            patch.setattr("optimscheduler.sync.watch.inside_ddp", lambda: False)
        return _enclosed(members, kind, owner)


def _enclosed(members: Any, kind: str, owner: str) -> float:
    inner, single = Stepping(), Heads()
    model = Ddp(inner, **KINDS[kind])
    inner.optims = build(model if owner == "wrapper" else inner, members, distributed=True)
    for parts in rows(6):
        model(parts[dist.get_rank()])
    alone(build(single, members), single, rows(6))
    far = distance(model, single)
    inner.optims = None
    loop(model, [x[dist.get_rank()] for x in rows(3)])
    loop_alone(single, rows(3))
    return max(far, distance(model, single))


@pytest.mark.parametrize("owner", ["wrapper", "module"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accum_grad", [1, 2])
def test_R31_a_step_inside_the_wrappers_forward(two: Pool, accum_grad: int, kind: str, owner: str) -> None:
    assert max(two.run(enclosed, {"main": {"accum_grad": accum_grad}}, kind, owner)) < EXACT


@pytest.mark.parametrize("owner", ["wrapper", "module"])
@pytest.mark.parametrize("kind", KINDS)
def test_R31_a_step_of_several_inside_the_wrappers_forward(two: Pool, kind: str, owner: str) -> None:
    assert max(two.run(enclosed, SEVERAL, kind, owner)) < EXACT


def said_when_enclosed() -> list[str]:
    heard, inner = Said(), Stepping()
    model = Ddp(inner)
    inner.optims = build(model, ONE)
    for parts in rows(4):
        model(parts[dist.get_rank()])
    return heard.lines


def test_R28_a_forward_inside_the_wrappers_is_none_outside(two: Pool) -> None:
    assert [line for line in two.run(said_when_enclosed)[0] if "outside forward()" in line] == []


def enclosed_with_nothing(members: Any) -> dict[str, Tensor]:
    inner = Stepping()
    model = Ddp(inner)
    inner.optims = build(model, members)
    for number, parts in enumerate(rows(4)):
        model(parts[dist.get_rank()], weight=float(dist.get_rank() != number % 2))
    return weights(model)


@pytest.mark.parametrize("members", MEMBERS)
def test_R31_a_rank_with_nothing_inside_the_wrappers_forward(two: Pool, members: str) -> None:
    first, second = two.run(enclosed_with_nothing, MEMBERS[members])
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["trunk.0.weight"], weights(Heads())["trunk.0.weight"])


@pytest.mark.parametrize("members", MEMBERS)
def test_R47_a_wrapper_with_hooks_of_ours_needs_no_private_name(two: Pool, members: str) -> None:
    assert max(two.run(enclosed, MEMBERS[members], "", "wrapper", True)) < EXACT


# ---- a forward outside, with a reentrant checkpoint ----


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        inner = checkpoint(self.first, x.requires_grad_(), use_reentrant=True)
        return {"loss": self.last(inner).sum()}


def checkpointed_outside() -> str:
    model = Ddp(Checkpointed())
    optim = OptimScheduler("SGD", {"lr": 0.1}, model, use_amp=False, updated_modules="first")
    with pytest.raises(GraphError) as told:
        optim.step(model(torch.ones(1, 3)))
    with optim.forward():
        losses = model(torch.ones(1, 3))
    with pytest.raises(GraphError):
        optim.step(losses)  # the wrapper still waits for those of the first
    return str(told.value)


def test_R43_a_reentrant_checkpoint_outside_says_what_to_write(two: Pool) -> None:
    text = two.run(checkpointed_outside)[0]
    assert "its window was dropped. Write checkpoint(..., use_reentrant=False)" in text
    assert "with optim.forward(): losses = model(batch)" in text

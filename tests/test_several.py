"""R09 to R13, R15: several members over one model and one batch, against a loop written out by hand."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from optimscheduler import (
    CheckpointError,
    ConfigError,
    OptimScheduler,
    OptimSchedulerDict,
    ParameterError,
    build_optim_sches,
)
from tests.cases_models import forgotten

torch.set_num_threads(1)


class Tree(nn.Module):
    """A trunk and two branches; the branches' losses overlap in the trunk, the third is made of both."""

    def __init__(self, mode: str = "plain") -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
        self.left = nn.Linear(5, 2)
        self.right = nn.Linear(5, 2)
        self.mode = mode

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        h = self.call(self.trunk, x)
        left, right = self.call(self.left, h), self.call(self.right, h)
        losses = {"left": (left - y).square().mean(), "right": (right + y).abs().mean()}
        return {**losses, "both": losses["left"] + 0.5 * losses["right"]}

    def call(self, part: nn.Module, x: Tensor) -> Tensor:
        if self.mode == "plain":
            return part(x)
        x = x if x.requires_grad else x.detach().requires_grad_()
        return checkpoint(part, x, use_reentrant=self.mode == "reentrant")


def a_tree(mode: str = "plain") -> Tree:
    torch.manual_seed(5)
    return Tree(mode).double()


def data(count: int) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(6)
    make = lambda width: torch.randn(3, width, generator=g, dtype=torch.float64)  # noqa: E731
    return [(make(4), make(2)) for _ in range(count)]


@dataclass(kw_only=True)
class Part:
    """One member, as the hand-written loop sees it."""

    name: str
    loss: str
    module: str
    lr: float
    accum_grad: int
    step_per_update: int
    grad_clip: float | None
    sums: dict[str, Tensor] = field(default_factory=dict)
    weight: float = 0.0
    optimizer: Any = None

    def described(self) -> dict[str, Any]:
        return {
            "conf": {
                "optim_type": "AdamW",
                "optim_conf": {"lr": self.lr},
                "optim_loss": self.loss,
                "updated_modules": self.module,
                "accum_grad": self.accum_grad,
                "step_per_update": self.step_per_update,
                "grad_clip": self.grad_clip,
                "use_amp": False,
            }
        }


def parts_of(accum_grads: tuple[int, ...], intervals: tuple[int, ...], clip: float | None) -> list[Part]:
    """Three members: the branches with their own losses, the trunk with the loss of both."""
    rows = [("l", "left", "left", 1e-2), ("r", "right", "right", 2e-2), ("t", "both", "trunk", 5e-3)]
    return [
        Part(name=n, loss=loss, module=module, lr=lr, accum_grad=k, step_per_update=i, grad_clip=clip)
        for (n, loss, module, lr), k, i in zip(rows, accum_grads, intervals, strict=True)
    ]


def by_hand(model: Tree, parts: list[Part], batches: list[Any], weights: list[float] | None) -> None:
    """All gradients of a batch from one forward; then, part by part, the updates that are due."""
    for part in parts:
        part.optimizer = torch.optim.AdamW(getattr(model, part.module).parameters(), lr=part.lr)
    for n, (x, y) in enumerate(batches, start=1):
        losses, n_items = model(x, y), weights[n - 1] if weights else 1.0
        for part in parts:
            if ((n - 1) // part.accum_grad + 1) % part.step_per_update == 0:
                named = dict(getattr(model, part.module).named_parameters())
                grads = torch.autograd.grad(losses[part.loss], list(named.values()), retain_graph=True)
                for name, grad in zip(named, grads, strict=True):
                    part.sums[name] = part.sums.get(name, 0) + n_items * grad
                part.weight += n_items
        for part in parts:
            if part.sums and (n % part.accum_grad == 0 or n == len(batches)):
                update_by_hand(model, part)


def update_by_hand(model: Tree, part: Part) -> None:
    named = dict(getattr(model, part.module).named_parameters())
    for name, parameter in named.items():
        parameter.grad = part.sums[name] / part.weight
    if part.grad_clip is not None:
        nn.utils.clip_grad_norm_(named.values(), part.grad_clip)
    part.optimizer.step()
    part.optimizer.zero_grad()
    part.sums, part.weight = {}, 0.0


def ours(
    model: Tree, parts: list[Part], batches: list[Any], weights: list[float] | None
) -> OptimSchedulerDict:
    optims = build_optim_sches(model, {part.name: part.described() for part in parts})
    for n, (x, y) in enumerate(batches, start=1):
        with optims.forward(last=n == len(batches)):
            losses = model(x, y)
        optims.step(losses, weight=weights[n - 1] if weights else None)
    return optims


def assert_equal(model: nn.Module, other: nn.Module) -> None:
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(
            one, two, rtol=1e-10, atol=1e-12, msg=name
        )  # float64, another order of sums


WINDOWS = [(1, 1, 1), (3, 3, 3), (1, 2, 3), (4, 1, 2)]
INTERVALS = [(1, 1, 1), (1, 2, 3), (2, 1, 1)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize(("windows", "intervals"), list(itertools.product(WINDOWS, INTERVALS)))
def test_each_members_weights_are_those_of_a_hand_written_loop(
    windows: tuple[int, ...], intervals: tuple[int, ...], clip: float | None, weighted: bool
) -> None:
    """20 updates and more for the members that are always active, with a short end."""
    batches = data(41 if max(windows) == 1 else 83)
    weights = [float(n % 5 + 1) for n in range(len(batches))] if weighted else None
    model = a_tree()
    twin = copy.deepcopy(model)
    optims = ours(model, parts_of(windows, intervals, clip), batches, weights)
    by_hand(twin, parts_of(windows, intervals, clip), batches, weights)
    assert_equal(model, twin)
    applied = {name: optim.state_dict()["ledger"]["applied"] for name, optim in optims.items()}
    expected = {
        name: sum(r % i == 0 for r in range(1, -(-len(batches) // k) + 1))
        for name, k, i in zip(optims, windows, intervals, strict=True)
    }
    assert applied == expected
    assert max(applied.values()) >= 20


@pytest.mark.parametrize("mode", ["plain", "checkpointed", "reentrant"])
@pytest.mark.parametrize("order", list(itertools.permutations("lrt")))
@pytest.mark.parametrize(("accum_grad", "interval"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_R09_no_member_leaks_into_another_and_planted_gradients_stay(
    mode: str, order: tuple[str, ...], accum_grad: int, interval: int
) -> None:
    model = a_tree(mode)
    foreign = nn.Linear(2, 2).double()
    model.add_module("foreign", foreign)
    twin = copy.deepcopy(model)
    twin.mode = "plain"
    planted = [torch.full_like(p, 7.0) for p in foreign.parameters()]
    for parameter, gradient in zip(foreign.parameters(), planted, strict=True):
        parameter.grad = gradient.clone()
    parts = {part.name: part for part in parts_of((accum_grad,) * 3, (interval,) * 3, 0.3)}
    optims = build_optim_sches(model, {name: parts[name].described() for name in order})
    batches = data(9)
    for x, y in batches:
        with optims.forward():
            losses = model(x, y)
        before = {name: loss.item() for name, loss in losses.items()}
        optims.step(losses)
        assert {name: loss.item() for name, loss in losses.items()} == before
        for parameter, gradient in zip(foreign.parameters(), planted, strict=True):
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, gradient)
    optims.flush()
    hand = parts_of((accum_grad,) * 3, (interval,) * 3, 0.3)
    by_hand(twin, hand, batches, None)
    assert_equal(model, twin)


def test_R11_members_that_name_the_same_loss_share_one_backward() -> None:
    model = a_tree()
    optims = build_optim_sches(
        model,
        {
            name: {"conf": {**CONF, "optim_loss": "both", "updated_modules": name, "accum_grad": k}}
            for name, k in {"trunk": 1, "left": 2, "right": 2}.items()
        },
    )
    timed: list[list[str]] = []

    class Note:
        def __init__(self, names: list[str]) -> None:
            timed.append(names)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    twin = copy.deepcopy(model)
    batches = data(8)
    for x, y in batches:
        with optims.forward():
            losses = model(x, y)
        optims.step(losses, Note)
    assert [names[1] for names in timed if names[0] == "loss_backward_time"] == ["trunk"] * 8
    rows = [("trunk", 1), ("left", 2), ("right", 2)]
    hand = [
        Part(name=m, loss="both", module=m, lr=1e-2, accum_grad=k, step_per_update=1, grad_clip=1.0)
        for m, k in rows
    ]
    by_hand(twin, hand, batches, None)
    assert_equal(model, twin)


CONF: dict[str, Any] = {"optim_type": "AdamW", "optim_conf": {"lr": 1e-2}, "use_amp": False}


def test_an_idle_member_costs_no_backward() -> None:
    model = a_tree()
    optims = build_optim_sches(
        model,
        {
            "often": {"conf": {**CONF, "optim_loss": "left", "updated_modules": "left"}},
            "seldom": {
                "conf": {**CONF, "optim_loss": "right", "updated_modules": "right", "step_per_update": 3}
            },
            "never": {
                "conf": {**CONF, "optim_loss": "both", "updated_modules": "trunk", "step_per_update": 99}
            },
        },
    )
    for x, y in data(5):
        with optims.forward():
            losses = model(x, y)
        del losses["both"]  # an idle member does not even look for its loss
        optims.step(losses)
    assert forgotten(model)


def test_R11_there_is_one_loss_scale_per_distinct_loss() -> None:
    model = a_tree().float()
    described = {
        name: {
            "conf": {**CONF, "optim_loss": loss, "updated_modules": name, "use_amp": "fp16", "accum_grad": k}
        }
        for name, loss, k in [("left", "left", 1), ("right", "both", 1), ("trunk", "both", 2)]
    }
    optims = build_optim_sches(model, described)
    assert optims["right"].scaler is optims["trunk"].scaler
    assert optims["left"].scaler is not optims["right"].scaler
    for name in ("left", "trunk"):
        optims[name].scaler.value.fill_(256.0)  # the default overflows with so small a model
    scales = []
    for n, (x, y) in enumerate(data(4), start=1):
        with optims.forward():
            losses = model(x.float(), y.float())
        bad = {name: loss * (1e30 if n == 1 and name == "both" else 1.0) for name, loss in losses.items()}
        optims.step(bad)
        scales.append((optims["left"].scaler.get_scale(), optims["trunk"].scaler.get_scale()))
    # "both" overflows in batch 1, but the window of the trunk that it feeds is open until batch 2
    assert scales == [(256.0, 256.0), (256.0, 128.0), (256.0, 128.0), (256.0, 128.0)]
    assert all(p.isfinite().all() for p in model.parameters())


def test_step_only_moves_the_named_members_and_the_others_clocks_stand_still() -> None:
    model = a_tree()
    described = {
        name: {"conf": {**CONF, "optim_loss": name, "updated_modules": name, "accum_grad": 2}}
        for name in ("left", "right")
    }
    optims = build_optim_sches(model, described)
    for n, (x, y) in enumerate(data(8)):
        with optims.forward():
            losses = model(x, y)
        turn = "left" if n % 4 < 2 else "right"
        assert list(optims.step(losses, only=[turn])) == [turn]
    assert {name: optim.state_dict()["ledger"]["applied"] for name, optim in optims.items()} == {
        "left": 2,
        "right": 2,
    }
    with pytest.raises(ConfigError, match=r"only: there is no OptimScheduler 'rigth'\. Did you mean 'right'"):
        optims.step(losses, only=["rigth"])


def test_R15_two_owners_of_a_parameter_are_refused_by_name() -> None:
    described = {
        "one": {"conf": {**CONF, "optim_loss": "left", "updated_modules": ["left", "trunk"]}},
        "two": {"conf": {**CONF, "optim_loss": "right", "updated_modules": ["right", "trunk"]}},
    }
    with pytest.raises(ParameterError, match=r"'trunk\.0\.weight' is owned by both 'one' and 'two'"):
        build_optim_sches(a_tree(), described)


def test_R15_tied_weights_have_two_owners_too() -> None:
    model = a_tree()
    model.right.weight = model.left.weight
    described = {
        name: {"conf": {**CONF, "optim_loss": name, "updated_modules": name}} for name in ("left", "right")
    }
    with pytest.raises(ParameterError, match=r"'left\.weight' is owned by both 'left' and 'right'"):
        build_optim_sches(model, described)


def test_R15_what_nobody_owns_is_a_warning_or_an_error(caplog: pytest.LogCaptureFixture) -> None:
    model = a_tree()
    left = OptimScheduler(model=model, updated_modules="left", **CONF)
    OptimSchedulerDict({"left": left})
    assert "no OptimScheduler owns 4 trainable parameters: trunk.0.weight" in caplog.text
    with pytest.raises(ParameterError, match="no OptimScheduler owns 4 trainable parameters"):
        OptimSchedulerDict({"left": left}, unowned="error")


def test_members_must_share_model_and_precision() -> None:
    model = a_tree()
    left = OptimScheduler(model=model, updated_modules="left", **CONF)
    with pytest.raises(ConfigError, match="'other' and 'left' are of different models"):
        OptimSchedulerDict({"left": left, "other": OptimScheduler(model=a_tree(), **CONF)})
    right = OptimScheduler(model=model, updated_modules="right", **{**CONF, "use_amp": "bf16"})
    with pytest.raises(ConfigError, match="use_amp: 'bf16' for 'right', False for 'left'"):
        OptimSchedulerDict({"left": left, "right": right})


def test_a_failing_backward_drops_the_windows_of_all_members() -> None:
    model = a_tree()
    described = {
        name: {"conf": {**CONF, "optim_loss": name, "updated_modules": name, "accum_grad": 2}}
        for name in ("left", "right")
    }
    optims = build_optim_sches(model, described)
    x, y = data(1)[0]
    losses = model(x, y)
    losses["right"].register_hook(lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        optims.step(losses)
    assert forgotten(model)


def test_R34_several_members_resume_bit_for_bit_in_mid_window() -> None:
    batches = data(12)
    one, two = a_tree(), a_tree()
    parts = parts_of((2, 3, 4), (1, 1, 1), 0.3)
    described = {part.name: part.described() for part in parts}
    optims, resumed = build_optim_sches(one, described), build_optim_sches(two, described)
    for n, (x, y) in enumerate(batches):
        if n == 5:
            two.load_state_dict(copy.deepcopy(one.state_dict()))
            resumed.load_state_dict(copy.deepcopy(optims.state_dict()))
        for model, each in ((one, optims), (two, resumed)) if n >= 5 else ((one, optims),):
            with each.forward():
                losses = model(x, y)
            each.step(losses)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


# ---- state of several ----


def two_in_fp16(lr: float = 0.1) -> OptimSchedulerDict:
    torch.manual_seed(0)
    model = Tree()
    conf = {"optim_type": "Adam", "optim_conf": {"lr": lr}, "use_amp": "fp16", "model": model}
    return OptimSchedulerDict(
        {
            "left": OptimScheduler(updated_modules="left", optim_loss="left", **conf),
            "right": OptimScheduler(updated_modules=["right", "trunk"], optim_loss="right", **conf),
        }
    )


def stepped(optims: OptimSchedulerDict, batches: int = 3) -> OptimSchedulerDict:
    for seed in range(batches):
        torch.manual_seed(seed)
        with optims.forward():
            losses = optims["left"].model(torch.randn(3, 4), torch.randn(3, 2))
        optims.step(losses)
    return optims


def test_R35_a_state_that_does_not_fit_one_member_changes_none() -> None:
    state = stepped(two_in_fp16()).state_dict()
    fresh = two_in_fp16()
    state["right"]["parameters"].pop("right.bias")
    with pytest.raises(
        CheckpointError, match=r"^right: this state is damaged: optimizer.state must name parameters"
    ):
        fresh.load_state_dict(state)
    assert fresh["left"].member.clock.batch == 0
    assert not fresh["left"].optimizer.state


@pytest.mark.parametrize("on_mismatch", ["error", "config", "checkpoint"])
def test_R27_R35_every_loss_scale_comes_back_whoever_wins(on_mismatch: Any) -> None:
    trained = stepped(two_in_fp16())
    trained["left"].scaler.value.fill_(8.0)
    trained["right"].scaler.value.fill_(2.0)
    fresh = two_in_fp16(lr=0.1 if on_mismatch == "error" else 0.2)
    fresh.load_state_dict(trained.state_dict(), on_mismatch)
    assert (fresh["left"].scaler.get_scale(), fresh["right"].scaler.get_scale()) == (8.0, 2.0)
    assert fresh["left"].precision is fresh["right"].precision
    stepped(fresh, 1)
    expected = 0.2 if on_mismatch == "config" else 0.1
    assert fresh.get_lr() == {"left": expected, "right": expected}


def test_only_takes_one_name_as_it_is() -> None:
    optims = two_in_fp16()
    with optims.forward():
        losses = optims["left"].model(torch.randn(3, 4), torch.randn(3, 2))
    assert set(optims.step(losses, only="left")) == {"left"}

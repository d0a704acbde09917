"""R33 to R36: what is saved, what goes on from it bit for bit, and what is refused."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from optimscheduler import CheckpointError, ConfigError, Noamlr, OptimScheduler
from optimscheduler.schedules import FeedbackSchedule
from optimscheduler.state import differences, plain
from tests.cases import HalvedWhenWorse
from tests.cases_models import a_model, assert_same, batches, frozen, optim_of, stored, take, train, weights

DATA = batches(12)
Make = Callable[[nn.Module], OptimScheduler]


def adam(model: nn.Module, **arguments: Any) -> OptimScheduler:
    return optim_of(model, "Adam", 0.01, grad_clip=0.5, **arguments)


MAKES: dict[str, Make] = {
    "plain": lambda m: adam(m, conf={"fused": False}),
    "momentum": lambda m: optim_of(m, "SGD", 0.01, conf={"momentum": 0.9}, accum_grad=2),
    "accumulation": lambda m: adam(m, accum_grad=3, step_per_update=2),
    "guard": lambda m: adam(m, guard={"z": 2.0, "window": 4, "warm_up": 2}),
    "feedback": lambda m: adam(m, schedule=HalvedWhenWorse(), accum_grad=2),
    "first skipped": lambda m: Noamlr("Adam", {"lr": 0.01}, m, use_amp=False, accum_grad=3, warmup_steps=3),
    "noam": lambda m: Noamlr("Adam", {"lr": 0.01}, m, use_amp=False, accum_grad=2, warmup_steps=3),
    "applied clock": lambda m: adam(m, schedule="Cosine(steps=9)", lr_clock="applied"),
    "bf16": lambda m: adam(m, use_amp="bf16", accum_grad=2),
    "fp16": lambda m: adam(m, use_amp="fp16", accum_grad=3),
    "groups": lambda m: adam(m, param_groups=[{"ndim": "<2", "lr": 0.1, "weight_decay": 0.1}]),
    "part": lambda m: adam(m, updated_modules=["3"], exclude="3.bias", accum_grad=2),
}


def go(optim: OptimScheduler, data: list[Any], first: int = 0, weighted: bool = False) -> list[Any]:
    """Train, with a NaN in every fifth batch and a metric after every third."""
    reports = []
    for number, batch in enumerate(data, start=first):
        times = float("nan") if number % 5 == 2 else 1.0
        reports.append(take(optim, batch, times, **({"weight": number + 1} if weighted else {})))
        if number % 3 == 2:
            optim.observe(float(number % 4))
    return reports


def resumed(make: Make, optim: OptimScheduler) -> OptimScheduler:
    """Another object over another model, gone through a file."""
    saved = stored({"model": optim.model.state_dict(), "optim": optim.state_dict()})
    model = a_model(seed=99)
    model.load_state_dict(saved["model"])
    other = make(model)
    other.load_state_dict(saved["optim"])
    return other


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize("stop", [0, 1, 4, 6])
@pytest.mark.parametrize("weighted", [False, True])
def test_R34_two_copies_continue_in_mid_window_and_stay_equal_bit_for_bit(
    make: Make, stop: int, weighted: bool
) -> None:
    optim = make(a_model())
    if optim.scaler is not None:
        optim.scaler.growth_interval = 2
        optim.scaler.value.fill_(256.0)  # the default overflows with so small a model
    go(optim, DATA[:stop], weighted=weighted)
    other = resumed(make, optim)
    assert_same(frozen(other), frozen(optim))
    for number, batch in enumerate(DATA[stop:], start=stop):
        one, two = (go(o, [batch], number, weighted)[0] for o in (optim, other))
        assert repr(one) == repr(two)
        assert_same(frozen(other), frozen(optim))
    assert optim.state_dict()["ledger"]["applied"] > 0


@pytest.mark.parametrize("use_amp", [False, "fp16"])
def test_R34_a_window_of_weight_0_so_far_is_resumed_as_well(use_amp: Any) -> None:
    def make(model: nn.Module) -> OptimScheduler:
        return adam(model, use_amp=use_amp, accum_grad=2)

    optim = make(a_model())
    take(optim, DATA[0], float("nan"), weight=0)
    other = resumed(make, optim)
    for one in (optim, other):
        take(one, DATA[1], weight=3)
    assert_same(frozen(other), frozen(optim))


def test_R33_the_state_is_a_plain_nested_dict() -> None:
    optim = MAKES["fp16"](a_model())
    go(optim, DATA[:4])
    state = stored(optim.state_dict())
    assert set(state) == {
        "version",
        "config",
        "parameters",
        "optimizer",
        "scaler",
        "clock",
        "ledger",
        "guard",
        "feedback",
        "window",
    }
    assert state["version"] == 1
    assert state["clock"] == {"batch": 4, "epoch": 1, "closed_windows": 1, "inside": 1}
    assert state["parameters"]["0.weight"] == [6, 4]
    assert set(state["window"]["gradients"]) == {name for name, _ in optim.model.named_parameters()}
    assert state["config"]["optim_conf"] == {"lr": 0.01}
    assert_same(state, optim.state_dict())


def test_R33_a_closed_window_saves_no_gradients() -> None:
    optim = adam(a_model())
    go(optim, DATA[:2])
    assert optim.state_dict()["window"]["gradients"] == {}


def test_R33_wrapped_or_not_the_names_are_the_same() -> None:
    class Wrapped(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.module = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.module(x)
            return out

    optim, other = adam(a_model(), accum_grad=2), adam(Wrapped(a_model()), accum_grad=2)
    train(optim, DATA[:3])
    other.model.load_state_dict({f"module.{k}": v for k, v in optim.model.state_dict().items()})
    other.load_state_dict(stored(optim.state_dict()))
    for o in (optim, other):
        train(o, DATA[3:6])
    assert_same(list(weights(other.model).values()), list(weights(optim.model).values()))


def test_R01_resumed_with_another_accum_grad_the_real_step_goes_on() -> None:
    optim = adam(a_model(), accum_grad=2)
    train(optim, DATA[:6])
    other = adam(a_model(), accum_grad=3)
    other.load_state_dict(stored(optim.state_dict()), "config")
    reports = train(other, DATA[6:12])
    assert [(r.batch, r.real_step) for r in reports] == [(7, 4), (8, 4), (9, 4), (10, 5), (11, 5), (12, 5)]


# ---- what is refused ----


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Drop(FeedbackSchedule[dict[str, float]]):
    """Another schedule with another state."""

    def start(self) -> dict[str, float]:
        return {"drops": 0.0}

    def observe(self, state: dict[str, float], metric: float) -> dict[str, float]:  # noqa: ARG002 -- counts
        return {"drops": state["drops"] + 1}

    def __call__(self, step: int, state: dict[str, float]) -> float:  # noqa: ARG002 -- hears only the metric
        return float(0.5 ** state["drops"])


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "lr": ({"lr": 0.2}, "optim_conf.lr: 0.1 in the checkpoint, 0.2 in the configuration"),
    "missing": (
        {"conf": {"momentum": 0.9}},
        "optim_conf.momentum: missing in the checkpoint, 0.9 in the configuration",
    ),
    "accum_grad": ({"accum_grad": 3}, "accum_grad: 2 in the checkpoint, 3 in the configuration"),
    "use_amp": ({"use_amp": "bf16"}, "use_amp: False in the checkpoint, 'bf16' in the configuration"),
    "optim_loss": ({"optim_loss": "x"}, "optim_loss: None in the checkpoint, 'x' in the configuration"),
    "schedule": (
        {"schedule": "Cosine(steps=9)"},
        "schedule: 'Constant()' in the checkpoint, 'Cosine(steps=9)' in the configuration",
    ),
    "clip": ({"grad_clip": 2}, "grad_clip: None in the checkpoint, 2 in the configuration"),
    "guard": ({"guard": {"z": 3}}, "guard: None in the checkpoint, {'z': 3} in the configuration"),
    "groups": (
        {"param_groups": [{"ndim": "<2", "lr": 1}]},
        "param_groups: [] in the checkpoint, [{'ndim': '<2', 'lr': 1}] in the configuration",
    ),
}


def saved_state(batches_done: int = 3, **arguments: Any) -> Any:  # Any: a state
    optim = optim_of(a_model(), **{"accum_grad": 2, **arguments})
    train(optim, DATA[:batches_done])
    return stored(optim.state_dict())


def refused(optim: OptimScheduler, state: Any, how: Any = "error") -> str:
    """The message of a load that must change nothing."""
    before = frozen(optim)
    with pytest.raises(CheckpointError) as caught:
        optim.load_state_dict(state, how)
    assert_same(frozen(optim), before)
    return str(caught.value)


@pytest.mark.parametrize(("arguments", "line"), CHANGES.values(), ids=CHANGES)
def test_R35_another_configuration_is_refused_and_changes_nothing(
    arguments: dict[str, Any], line: str
) -> None:
    optim = optim_of(a_model(seed=5), **{"accum_grad": 2, **arguments})
    if arguments.get("optim_loss") is None:
        train(optim, DATA[5:8])
    assert refused(optim, saved_state()) == (
        "the checkpoint was made with another configuration; on_mismatch='config' or 'checkpoint' says "
        f"which side wins:\n  {line}"
    )


@pytest.mark.parametrize(("arguments", "line"), CHANGES.values(), ids=CHANGES)
def test_R35_the_configuration_wins_where_it_is_told_to(
    arguments: dict[str, Any], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = saved_state()
    optim = optim_of(a_model(), **{"accum_grad": 2, **arguments})
    kept = {key: value for key, value in optim.optimizer.param_groups[0].items() if key != "params"}
    with caplog.at_level(logging.WARNING, "optimscheduler"):
        optim.load_state_dict(state, "config")
    assert caplog.messages == [f"{line}; taken from the configuration"]
    assert {k: v for k, v in optim.optimizer.param_groups[0].items() if k != "params"} == kept
    loaded = optim.state_dict()
    assert loaded["config"] == optim_of(a_model(), **{"accum_grad": 2, **arguments}).state_dict()["config"]
    assert loaded["clock"]["batch"] == 3
    assert_same(loaded["window"], state["window"])


@pytest.mark.parametrize(("arguments", "line"), CHANGES.values(), ids=CHANGES)
def test_R35_the_checkpoint_wins_where_it_is_told_to(
    arguments: dict[str, Any], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = saved_state()
    twin = optim_of(a_model(), accum_grad=2)
    twin.load_state_dict(state)
    model = a_model()
    optim = optim_of(model, **{"accum_grad": 2, **arguments})
    with caplog.at_level(logging.WARNING, "optimscheduler"):
        optim.load_state_dict(state, "checkpoint")
    assert caplog.messages == [f"{line}; taken from the checkpoint"]
    assert optim.model is model
    for one in (twin, optim):
        train(one, DATA[3:7])
    assert_same(frozen(optim), frozen(twin))


def test_R35_what_is_told_neither_by_config_nor_by_checkpoint_stays() -> None:
    optim = optim_of(a_model(), max_skips=7, forensics=True)
    optim.load_state_dict(saved_state(), "checkpoint")
    assert optim.accum_grad == 2
    assert (optim.member.ledger.max_skips, optim.member.ledger.forensics) == (7, True)


def test_R35_a_subclass_becomes_the_checkpoints() -> None:
    old = Noamlr("Adam", {"lr": 0.1}, a_model(), use_amp=False, warmup_steps=5)
    train(old, DATA[:3])
    optim = Noamlr("Adam", {"lr": 0.2}, a_model(), use_amp=False, warmup_steps=9)
    optim.load_state_dict(stored(old.state_dict()), "checkpoint")
    assert (optim.warmup_steps, optim.init_lr) == (5, 0.1)
    assert_same(optim.state_dict(), old.state_dict())


def test_R35_another_optimizer_can_only_be_taken_over_whole() -> None:
    state = saved_state()
    message = refused(optim_of(a_model(), "RMSprop", accum_grad=2), state, "config")
    assert message == "the checkpoint does not fit:\n  optim_type: SGD in the checkpoint, RMSprop here"
    optim = optim_of(a_model(), "RMSprop", accum_grad=2)
    optim.load_state_dict(state, "checkpoint")
    assert isinstance(optim.optimizer, torch.optim.SGD)


def other_model(change: str) -> nn.Sequential:
    model = a_model()
    if change == "missing":
        model[3] = nn.Linear(6, 2, bias=False)
    elif change == "extra":
        model.append(nn.LayerNorm(2))
    else:
        model[3] = nn.Linear(6, 5)
    return model


@pytest.mark.parametrize("how", ["error", "config", "checkpoint"])
@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ("missing", ["3.bias is in the checkpoint alone"]),
        ("extra", ["4.weight is not in the checkpoint", "4.bias is not in the checkpoint"]),
        (
            "reshaped",
            [
                "3.weight has shape (2, 6) in the checkpoint, (5, 6) here",
                "3.bias has shape (2,) in the checkpoint, (5,) here",
            ],
        ),
    ],
)
def test_R35_other_parameters_are_refused_with_every_difference(
    how: str, change: str, lines: list[str]
) -> None:
    optim = optim_of(other_model(change), accum_grad=2)
    message = refused(optim, saved_state(), how)
    assert message == "\n  ".join(["the checkpoint does not fit:", *lines])
    rebuilt = optim_of(other_model(change), accum_grad=4, lr=0.7)
    if how == "checkpoint":
        assert refused(rebuilt, saved_state(), how) == message
        assert (rebuilt.accum_grad, rebuilt.get_lr()) == (4, 0.7)


def test_R35_a_configuration_that_cannot_be_built_here_is_refused() -> None:
    state = saved_state()
    state["config"]["accum_grad"] = 0
    message = refused(optim_of(a_model()), state, "checkpoint")
    assert message == (
        "the checkpoint's configuration cannot be built here: "
        "accum_grad must be a whole number of batches >= 1, got 0"
    )


def test_R35_a_selection_that_matches_nothing_here_is_refused() -> None:
    state = saved_state(updated_modules="3")
    optim = optim_of(nn.Sequential(nn.Linear(4, 2)))
    assert "cannot be built here" in refused(optim, state, "checkpoint")


@pytest.mark.parametrize(("before", "after"), [("fp16", False), (False, "fp16")])
def test_R35_in_mid_window_the_pending_gradients_keep_their_meaning(before: Any, after: Any) -> None:
    norms = []
    for now in (before, after):
        optim, other = (optim_of(a_model(), use_amp=amp, accum_grad=2) for amp in (before, now))
        for one in (optim, other):
            if one.scaler is not None:
                one.scaler.value.fill_(64.0)
        train(optim, DATA[:1])
        other.load_state_dict(stored(optim.state_dict()), "config")
        norms.append(take(other, DATA[1]).grad_norm)
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)  # float16


def test_R35_a_feedback_schedule_is_not_given_the_state_of_another() -> None:
    old = optim_of(a_model(), schedule=HalvedWhenWorse())
    optim = optim_of(a_model(), schedule=Drop())
    optim.load_state_dict(stored(old.state_dict()), "config")
    assert take(optim, DATA[0]).updated


def test_R35_settings_that_change_speed_alone_are_no_difference() -> None:
    optim = optim_of(a_model(), conf={"fused": True})
    train(optim, DATA[:2])
    other = optim_of(a_model(), conf={"foreach": False})
    other.load_state_dict(stored(optim.state_dict()))
    assert other.optimizer.param_groups[0]["fused"] is None
    assert other.state_dict()["clock"] == optim.state_dict()["clock"]


def test_R35_whole_numbers_and_floats_tuples_and_lists_are_no_difference() -> None:
    optim = optim_of(a_model(), "Adam", 1, conf={"betas": (0.9, 0.99)})
    optim_of(a_model(), "Adam", 1.0, conf={"betas": [0.9, 0.99]}).load_state_dict(stored(optim.state_dict()))


def test_R35_another_version_is_refused() -> None:
    state = saved_state()
    state["version"] = 2
    assert refused(optim_of(a_model()), state) == "this state has version 2; this package reads 1"


def test_R35_a_side_that_is_none_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^on_mismatch: 'confg' is not known. Did you mean 'config'\?"):
        optim_of(a_model()).load_state_dict(saved_state(), "confg")  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["config", "parameters", "optimizer", "clock", "window"])
def test_R35_a_damaged_state_is_refused(key: str) -> None:
    state = saved_state()
    del state[key]
    refused(optim_of(a_model(), accum_grad=2), state)


# ---- other formats ----


@pytest.mark.parametrize("wrapped", ["plain", "origin", "origin without scaler"])
@pytest.mark.parametrize("use_amp", [False, "fp16"])
def test_R36_the_origins_state_and_a_plain_optimizers_are_taken(wrapped: str, use_amp: Any) -> None:
    model = a_model()
    theirs = torch.optim.Adam(model.parameters(), lr=0.5)
    (model(DATA[0][0]).sum()).backward()
    theirs.step()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(1))
    state: Any = {
        "plain": theirs.state_dict(),
        "origin": {"optimizer": theirs.state_dict(), "scaler": scaler.state_dict()},
        "origin without scaler": {"optimizer": theirs.state_dict(), "scaler": None},
    }[wrapped]
    rules = [{"ndim": "<2", "weight_decay": 0.1}]
    optim = optim_of(a_model(), "Adam", 0.25, use_amp=use_amp, param_groups=rules)
    optim.load_state_dict(stored(state))
    for (name, p), q in zip(model.named_parameters(), optim.model.parameters(), strict=True):
        assert_same(dict(optim.optimizer.state[q]), dict(theirs.state[p]))
        assert theirs.state[p], name
    assert [group["lr"] for group in optim.optimizer.param_groups] == [0.25, 0.25], "ours, not theirs"
    assert [group["weight_decay"] for group in optim.optimizer.param_groups] == [0.0, 0.1]
    if optim.scaler is not None:
        assert optim.scaler.get_scale() == (8.0 if wrapped == "origin" else 65536.0)


def test_R36_a_state_without_a_clock_is_said_to_have_none(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "optimscheduler"):
        optim = optim_of(a_model())
        optim.load_state_dict(torch.optim.SGD(a_model().parameters(), lr=0.1).state_dict())
    assert caplog.messages == [
        "this state has no clock: give step_num, or the schedule begins at real step 1"
    ]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"model": 1, "epoch": 2}, "this is no optimizer state: its keys are ['epoch', 'model']"),
        ({"optimizer": [1]}, "this is no optimizer state: its keys are ['optimizer']"),
        ({}, "this is no optimizer state: its keys are []"),
    ],
)
def test_R36_what_is_no_state_is_refused(state: dict[str, Any], message: str) -> None:
    assert refused(optim_of(a_model()), state) == message


def test_R36_a_plain_optimizer_over_other_parameters_is_refused() -> None:
    theirs = torch.optim.Adam(nn.Linear(2, 2).parameters())
    message = refused(optim_of(a_model(), "Adam"), theirs.state_dict())
    assert message.startswith(
        "this optimizer state (2 parameters, groups: 1) does not fit the 6 parameters owned here"
    )


# ---- plain values ----


def test_plain_is_what_yaml_would_hold() -> None:
    value = {
        "a": (1, 2.5),
        3: {"b": None, "c": True},
        "t": torch.tensor(2.0),
        "s": frozenset({1}),
        "m": nn.ReLU(),
        "v": torch.ones(2),
    }
    kept = copy.copy(value)
    assert plain(value) == {
        "a": [1, 2.5],
        "3": {"b": None, "c": True},
        "t": 2.0,
        "s": [1],
        "m": "ReLU()",
        "v": "tensor([1., 1.])",
    }
    assert value == kept


def test_differences_name_the_place() -> None:
    nan = float("nan")
    saved = {"a": {"b": 1, "c": [1, 2]}, "gone": 2, "same": nan}
    now = {"a": {"b": 2, "c": [1, 3]}, "same": nan, "new": None}
    assert list(differences(saved, now)) == [
        "a.b: 1 in the checkpoint, 2 in the configuration",
        "a.c: [1, 2] in the checkpoint, [1, 3] in the configuration",
        "gone: 2 in the checkpoint, missing in the configuration",
        "new: missing in the checkpoint, None in the configuration",
    ]
    assert list(differences(saved, saved)) == []

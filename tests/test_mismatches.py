"""R35: a saved state of something else: what is refused, and which side wins where it is told."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from optimscheduler import CheckpointError, ConfigError, Noamlr
from optimscheduler.schedules import FeedbackSchedule
from tests.cases import HalvedWhenWorse
from tests.cases_models import a_model, assert_same, batches, frozen, optim_of, refused, stored, take, train

DATA = batches(8)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Drop(FeedbackSchedule[dict[str, float]]):
    """Another schedule with another state."""

    def start(self) -> dict[str, float]:
        return {"drops": 0.0}

    def observe(self, state: dict[str, float], metric: float) -> dict[str, float]:
        return {"drops": state["drops"] + 1}

    def __call__(self, step: int, state: dict[str, float]) -> float:
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


@pytest.mark.parametrize(("arguments", "line"), CHANGES.values(), ids=CHANGES)
def test_B22_R35_another_configuration_is_refused_and_changes_nothing(
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
    begins = ["no optimizer state of SGD is in the checkpoint; all of it begins anew"]
    assert caplog.messages == [
        f"{line}; taken from the configuration",
        *(begins if "conf" in arguments else []),
    ]
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
def test_R35_other_parameters_are_refused_or_taken_in_part_with_every_difference(
    how: Any, change: str, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    optim = optim_of(other_model(change), accum_grad=2)
    hint = "\non_mismatch='config' takes what fits"
    if how == "config":
        optim.load_state_dict(saved_state(), how)
        assert [line in caplog.text for line in lines] == [True] * len(lines)
        assert optim.member.clock.real_step == saved_state()["clock"]["closed_windows"] + 1
        train(optim, DATA[:2] if change != "reshaped" else [])
        return
    message = refused(optim, saved_state(), how)
    assert message == "\n  ".join(["the checkpoint does not fit:", *lines]) + hint
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


# ---- parts of another model ----


class Grown(nn.Module):
    """Two layers; a teacher beside them, or a third one."""

    def __init__(self, teacher: bool = False, third: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        if teacher:
            self.teacher = nn.Linear(2, 2).requires_grad_(False)
        if third:
            self.third = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x))
        x = self.third(x) if hasattr(self, "third") else x
        return x.square().sum()


def go(model: Grown, optim: Any, times: int) -> None:  # Any: an OptimScheduler
    for i in range(times):
        with optim.forward():
            loss = model(torch.full((1, 2), 1.0 + i))
        optim.step({"loss": loss})


@pytest.mark.parametrize("how", ["error", "config", "checkpoint"])
def test_R35_frozen_parts_that_are_gone_have_left_nothing_behind(how: Any) -> None:
    old = Grown(teacher=True)
    before = optim_of(old, "AdamW")
    go(old, before, 3)
    model = Grown()
    model.load_state_dict(old.state_dict(), strict=False)
    after = optim_of(model, "AdamW")
    after.load_state_dict(stored(before.state_dict()), how)
    go(old, before, 3)
    go(model, after, 3)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, old.get_parameter(name))


def test_R35_a_grown_model_takes_what_fits_and_starts_the_rest_anew(caplog: pytest.LogCaptureFixture) -> None:
    old = Grown()
    before = optim_of(old, "AdamW")
    go(old, before, 3)
    model = Grown(third=True)
    after = optim_of(model, "AdamW")
    with pytest.raises(CheckpointError, match=r"third\.weight is not in the checkpoint"):
        after.load_state_dict(stored(before.state_dict()))
    after.load_state_dict(stored(before.state_dict()), "config")
    assert "third.weight is not in the checkpoint; its optimizer state starts anew" in caplog.text
    assert set(after.optimizer.state) == {*model.first.parameters(), *model.second.parameters()}
    go(model, after, 1)
    steps = {name: float(after.optimizer.state[p]["step"]) for name, p in model.named_parameters()}
    assert steps["first.weight"] == steps["second.bias"] == 4
    assert steps["third.weight"] == steps["third.bias"] == 1


@pytest.mark.parametrize("optim_type", ["Adagrad", "AdamW", "RMSprop", "SGD"])
def test_R35_a_grown_model_is_stepped_like_one_whose_new_part_has_no_state(optim_type: str) -> None:
    conf = {"momentum": 0.9} if optim_type == "SGD" else {}
    old = Grown()
    before = optim_of(old, optim_type, conf=conf)
    go(old, before, 3)
    model, theirs = Grown(third=True), Grown(third=True)
    for one in (model, theirs):
        one.load_state_dict(old.state_dict(), strict=False)
    after = optim_of(model, optim_type, conf=conf)
    go(model, after, 1)  # what it has gathered about the third part by then does not count
    model.load_state_dict(theirs.state_dict())
    after.load_state_dict(stored(before.state_dict()), "config")
    reference = getattr(torch.optim, optim_type)(theirs.parameters(), lr=0.1, **conf)
    fresh = reference.state_dict()
    fresh["state"] |= before.optimizer.state_dict()["state"]
    reference.load_state_dict(fresh)
    go(model, after, 3)
    for i in range(3):
        theirs(torch.full((1, 2), 1.0 + i)).backward()
        reference.step()
        reference.zero_grad()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter, theirs.get_parameter(name), rtol=2e-5, atol=2e-6
        )  # fused kernels


@pytest.mark.parametrize("attached", [True, False])
def test_R44_an_optimizer_that_is_built_anew_has_lost_what_was_attached(
    attached: bool, caplog: pytest.LogCaptureFixture
) -> None:
    optim = optim_of(a_model(), accum_grad=2, lr=0.7)
    if attached:
        torch.optim.lr_scheduler.StepLR(optim.optimizer, 1)
    optim.load_state_dict(saved_state(), "checkpoint")
    assert ("attach its hooks and schedulers again" in caplog.text) is attached

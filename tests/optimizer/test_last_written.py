"""R44: numbers of the optimizer's groups that other hands write stay, or it is said who overwrites them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from optimscheduler import OptimScheduler, OptimSchedulerDict
from optimscheduler.optimizer.last_written import LastWritten
from tests.cases_models import (
    a_model,
    assert_same,
    batches,
    frozen,
    mse,
    optim_of,
    spy,
    stored,
    take,
    train,
    weights,
)

DATA = batches(8)
MATRICES = {"ndim": ">=2", "lr": 0.05}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was said since it was asked last."""
    caplog.set_level(logging.WARNING, "optimscheduler")

    def take_all() -> list[str]:
        messages = list(caplog.messages)
        caplog.clear()
        return messages

    return take_all


Said = Callable[[], list[str]]


def write(optim: OptimScheduler, lr: float, group: int = 0) -> None:
    optim.optimizer.param_groups[group]["lr"] = lr


def rates(optim: OptimScheduler) -> list[float]:
    return [group["lr"] for group in optim.optimizer.param_groups]


# ---- a number that nobody drives ----


@pytest.mark.parametrize("schedule", [None, "Constant()"])
@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("layout", ["loose", "flat"])
def test_R44_a_rate_written_by_hand_is_what_updates_use(
    schedule: str | None, before: int, layout: str, said: Said
) -> None:
    optim = optim_of(a_model(), schedule=schedule, layout=layout)
    twin = optim_of(a_model(), schedule=schedule, layout=layout)
    for one in (optim, twin):
        train(one, DATA[:before])
    write(optim, 0.02)
    assert optim.get_lr() == 0.02
    assert [report.lr for report in train(optim, DATA[before:6])] == [0.02] * (6 - before)
    twin.optimizer.param_groups[0]["lr"] = 0.02
    for batch in DATA[before:6]:  # the plain update
        grads = torch.autograd.grad(mse(twin.model, batch), list(twin.model.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(twin.model.parameters(), grads, strict=True):
                parameter -= 0.02 * grad
    for name, weight in weights(twin.model).items():  # one rounding per update
        torch.testing.assert_close(weights(optim.model)[name], weight, rtol=1e-5, atol=1e-7)
    assert said() == []


def test_R44_each_group_is_its_own(said: Said) -> None:
    optim = optim_of(a_model(), param_groups=[MATRICES], ft_factor=0.5)
    write(optim, 0.3, group=1)
    take(optim, DATA[0])
    assert rates(optim) == [0.05, 0.3], "0.5 x 0.1, and what was written"
    assert said() == [
        "lr of group 1 is 0.3, written by other hands before the first update, and is used as it is, without "
        "the factor 0.5 of ft_factor and schedule; multiply what you write by it, or leave the factor out"
    ]
    write(optim, 0.2)
    train(optim, DATA[1:3])
    assert rates(optim) == [0.2, 0.3]
    assert said() == []


def test_R03_ft_factor_is_written_once_at_the_first_update(said: Said) -> None:
    optim = optim_of(a_model(), ft_factor=0.5, schedule="Constant(0.5)")
    assert optim.get_lr() == 0.1
    assert [report.lr for report in train(optim, DATA[:2])] == [0.025, 0.025]
    write(optim, 0.1)  # the base again
    assert [report.lr for report in train(optim, DATA[2:4])] == [0.1, 0.1]
    assert said() == []


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, gamma=0.5),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda s: (s + 1) / 8),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 8),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=9),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
@pytest.mark.parametrize("optim_type", ["SGD", "AdamW"])
@pytest.mark.parametrize("fused", [True, False])
def test_R44_a_scheduler_of_torch_drives_as_in_a_plain_loop(
    make: Callable[[torch.optim.Optimizer], Any], optim_type: str, fused: bool, said: Said
) -> None:
    optim = optim_of(a_model(), optim_type, conf={"fused": fused}, layout="loose")
    model = a_model()
    plain = getattr(torch.optim, optim_type)(model.parameters(), lr=0.1, fused=fused)
    ours, theirs = make(optim.optimizer), make(plain)
    for batch in DATA:
        report = take(optim, batch)
        assert report.lr == plain.param_groups[0]["lr"]
        ours.step()
        plain.zero_grad()
        mse(model, batch).backward()  # type: ignore[no-untyped-call]
        plain.step()
        theirs.step()
        assert optim.get_lr() == ours.get_last_lr()[0] == theirs.get_last_lr()[0]
    assert_same(weights(optim.model), weights(model))
    assert said() == []


def test_R44_a_scheduler_of_torch_takes_the_rate_over_from_ft_factor(said: Said) -> None:
    optim = optim_of(a_model(), ft_factor=0.5)
    scheduler = lr_scheduler.LambdaLR(optim.optimizer, lambda s: 1 / (s + 1))
    seen = []
    for batch in DATA[:3]:
        seen.append(take(optim, batch).lr)
        scheduler.step()
    assert seen == pytest.approx([0.1, 0.05, 0.1 / 3])
    assert [line[:20] for line in said()] == ["lr of group 0 is 0.1"]


# ---- a number that is driven ----

DRIVEN = {
    "schedule": (
        lambda: optim_of(a_model(), schedule="Linear(steps=4)"),
        "Linear(steps=4) drives it, so the update is made with 0.075. To drive it "
        "yourself, use OptimScheduler and leave schedule out; otherwise use ft_factor, or write what you "
        "want as a schedule",
        0.075,
    ),
    "update_lr": (
        lambda: spy(grad_clip=None),
        "Spy.update_lr drives it, so the update is made with 0.1. To drive it yourself, use OptimScheduler "
        "and leave schedule out; otherwise use ft_factor, or write what you want as a schedule",
        0.1,
    ),
    "a group's own": (
        lambda: optim_of(a_model(), param_groups=[{"name": "*", "schedule": "Linear(steps=4)"}]),
        "Linear(steps=4) drives it, so the update is made with 0.075. To drive it "
        "yourself, take the schedule out of its rule in param_groups",
        0.075,
    ),
}


@pytest.mark.parametrize(("make", "message", "lr"), DRIVEN.values(), ids=DRIVEN)
def test_R44_a_rate_that_is_driven_is_overwritten_and_that_is_said_once(
    make: Callable[[], OptimScheduler], message: str, lr: float, said: Said
) -> None:
    optim = make()
    take(optim, DATA[0])
    assert said() == []
    write(optim, 0.02)
    assert optim.get_lr() == 0.02, "what the optimizer holds"
    assert take(optim, DATA[1]).lr == pytest.approx(lr)
    assert said() == [f"lr of group 0 is 0.02, written by other hands; {message}"]
    write(optim, 0.03)
    take(optim, DATA[2])
    assert said() == []


def test_R44_before_the_first_update_too(said: Said) -> None:
    optim = optim_of(a_model(), schedule="Linear(steps=4)")
    write(optim, 0.02)
    assert take(optim, DATA[0]).lr == 0.1
    assert len(said()) == 1


def test_R44_a_scheduler_of_torch_beside_a_schedule_is_said_once(said: Said) -> None:
    optim = optim_of(a_model(), schedule="Linear(steps=9)")
    scheduler = lr_scheduler.StepLR(optim.optimizer, 1, gamma=0.5)
    for batch in DATA:
        take(optim, batch)
        scheduler.step()
    assert len(said()) == 1


@pytest.mark.parametrize(
    ("place", "key", "value"), [("weight_decay", "weight_decay", 0.5), ("betas[0]", "betas", (0.3, 0.9))]
)
def test_R44_other_numbers_that_are_driven_are_said_by_name(
    place: str, key: str, value: Any, said: Said
) -> None:
    optim = optim_of(
        a_model(),
        "AdamW",
        conf={"weight_decay": 0.1, "betas": (0.8, 0.9)},
        schedules={place: "Linear(steps=4)"},
    )
    train(optim, DATA[:2])
    optim.optimizer.param_groups[0][key] = value
    take(optim, DATA[2])
    (line,) = said()
    now = 0.5 * {"weight_decay": 0.1, "betas[0]": 0.8}[place]
    given = value if isinstance(value, float) else value[0]
    assert line == (
        f"{place} of group 0 is {given:g}, written by other hands; Linear(steps=4) "
        f"drives it, so the update is made with {now:g}. To drive it yourself, take {place} out of schedules"
    )


def test_R44_numbers_that_nobody_drives_stay(said: Said) -> None:
    optim = optim_of(a_model(), "AdamW", conf={"weight_decay": 0.1}, schedule="Linear(steps=9)")
    take(optim, DATA[0])
    optim.optimizer.param_groups[0]["weight_decay"] = 0.7
    train(optim, DATA[1:3])
    assert optim.optimizer.param_groups[0]["weight_decay"] == 0.7
    assert said() == []


# ---- save, load, resume, copy ----

MAKES: dict[str, Callable[..., OptimScheduler]] = {
    "constant": lambda **a: optim_of(a_model(), "AdamW", param_groups=[MATRICES], **a),
    "schedule": lambda **a: optim_of(
        a_model(), "AdamW", param_groups=[MATRICES], schedule="Cosine(steps=9)", **a
    ),
    "everything": lambda **a: optim_of(
        a_model(),
        "AdamW",
        schedule="Cosine(steps=9)",
        schedules={"weight_decay": "Linear(steps=9)", "betas[0]": "Linear(steps=9, end=0.5)"},
        param_groups=[{**MATRICES, "schedule": "Linear(steps=9)"}],
        **a,
    ),
    "a constant and a group's own": lambda **a: optim_of(
        a_model(), "AdamW", param_groups=[{**MATRICES, "schedule": "Linear(steps=9)"}], **a
    ),
    "ft_factor": lambda **a: optim_of(a_model(), "AdamW", ft_factor=0.5, **a),
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize(
    "how", ["ours", "ours, old", "config", "checkpoint", "torch's", "optimizer's", "copy", "dict"]
)
@pytest.mark.parametrize("done", [0, 1, 3])
def test_R44_a_load_is_no_other_hand(
    make: Callable[..., OptimScheduler], how: str, done: int, said: Said
) -> None:
    old = make()
    train(old, DATA[:done])
    changed = {"grad_clip": 3.0} if how in ("config", "checkpoint") else {}
    new = make(**changed)
    new.model.load_state_dict(old.model.state_dict())
    state = stored(old.state_dict())
    if how == "ours, old":
        del state["values"]
    if how == "torch's":
        new.load_state_dict(stored(old.optimizer.state_dict()))
    elif how == "optimizer's":
        new.optimizer.load_state_dict(stored(old.optimizer.state_dict()))
    elif how == "copy":
        new = copy.deepcopy(new)
        new.optimizer.load_state_dict(stored(old.optimizer.state_dict()))
    elif how == "dict":
        OptimSchedulerDict({"main": new}).load_state_dict({"main": state})
    else:
        new.load_state_dict(state, "error" if how.startswith("ours") else how)  # type: ignore[arg-type]
    said()  # the change of grad_clip
    for step, batch in enumerate(DATA[done:], start=done + 1):
        for one in (old, new):
            one.step({"loss": mse(one.model, batch)}, step_num=step)
        assert rates(old) == rates(new)
        assert old.get_lr() == new.get_lr()
    assert said() == []


@pytest.mark.parametrize("how", ["ours", "config", "checkpoint", "optimizer's", "copy"])
@pytest.mark.parametrize("done", [0, 2])
@pytest.mark.parametrize(
    "make", [MAKES["constant"], MAKES["a constant and a group's own"], MAKES["ft_factor"]]
)
def test_R44_what_was_written_by_hand_survives_save_and_load(
    make: Callable[..., OptimScheduler], done: int, how: str, said: Said
) -> None:
    old = make()
    train(old, DATA[:done])
    write(old, 0.02)
    new = make(**({"grad_clip": 3.0} if how in ("config", "checkpoint") else {}))
    new.model.load_state_dict(old.model.state_dict())
    state = stored(old.state_dict())
    if how == "copy":
        new = copy.deepcopy(old)
    elif how == "optimizer's":
        new.optimizer.load_state_dict(stored(old.optimizer.state_dict()))
    else:
        new.load_state_dict(state, "error" if how == "ours" else how)  # type: ignore[arg-type]
    assert new.get_lr() == 0.02
    for step, batch in enumerate(DATA[done:], start=done + 1):
        for one in (old, new):
            assert one.step({"loss": mse(one.model, batch)}, step_num=step).lr == 0.02
        assert rates(old) == rates(new)
    again = make()
    again.load_state_dict(stored(old.state_dict()))
    assert again.get_lr() == 0.02


@pytest.mark.parametrize(
    "changed",
    [
        {"lr": 0.2},
        {"ft_factor": 0.5},
        {"schedule": "Constant(0.5)"},
        {"param_groups": [{"ndim": 1, "lr": 1}]},
    ],
)
def test_R44_another_configuration_of_rates_wins_over_hands_and_says_so(
    changed: dict[str, Any], said: Said
) -> None:
    old = optim_of(a_model())
    train(old, DATA[:2])
    write(old, 0.02)
    new = optim_of(a_model(), **changed)
    twin = optim_of(a_model(), **changed)
    new.load_state_dict(stored(old.state_dict()), "config")
    base = 0.2 if "lr" in changed else 0.1
    line = f"lr of group 0: 0.02 in the checkpoint, written by other hands, {base:g} in the configuration; "
    assert f"{line}taken from the configuration" in said()
    assert take(new, DATA[2]).lr == take(twin, DATA[2]).lr


def test_R44_a_group_of_its_own_schedule_takes_nothing_over(said: Said) -> None:
    old = MAKES["a constant and a group's own"](ft_factor=0.5)
    write(old, 0.02, group=1)
    new = MAKES["a constant and a group's own"](ft_factor=0.5, grad_clip=3.0)
    new.load_state_dict(stored(old.state_dict()), "config")
    assert rates(new) == [0.1, 0.05]
    take(new, DATA[0])
    assert rates(new) == [0.05, 0.025], "both by ft_factor"


def test_R44_what_was_written_over_a_schedule_is_still_said_after_a_resume(said: Said) -> None:
    old, new = (optim_of(a_model(), schedule="Linear(steps=9)") for _ in range(2))
    train(old, DATA[:2])
    write(old, 0.02)
    new.load_state_dict(stored(old.state_dict()))
    assert new.get_lr() == 0.02
    for optim in (old, new):
        take(optim, DATA[2])
        assert len(said()) == 1
    assert_same(old.state_dict()["values"], new.state_dict()["values"])


def test_R33_the_state_of_values_is_plain() -> None:
    optim = MAKES["everything"]()
    train(optim, DATA[:2])
    assert stored(optim.state_dict())["values"].keys() == {"written", "left"}
    twin = MAKES["everything"]()
    twin.load_state_dict(stored(optim.state_dict()))
    assert_same(frozen(twin)["optim"]["values"], frozen(optim)["optim"]["values"])


# ---- tensors ----


def with_tensor(lr: torch.Tensor) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, foreach=False)


def test_a_tensor_that_others_fill_or_replace_is_noticed() -> None:
    optimizer = with_tensor(torch.tensor(0.5))
    left, spot = LastWritten(optimizer, [(0, "lr")]), (0, "lr")
    left.put(spot, 0.1)  # no float32
    assert not left.touched(spot)
    optimizer.param_groups[0]["lr"].fill_(0.3)
    assert left.touched(spot)
    assert left.held(spot) == pytest.approx(0.3)
    left.put(spot, 0.1)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.3)
    assert left.touched(spot)
    left.put(spot, 0.25)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.25)  # as a copy or a load would
    assert not left.touched(spot)


def test_R24_a_tensor_that_nobody_wrote_is_not_read() -> None:
    class Remote(torch.Tensor):
        """Stands for one on an accelerator."""

        reads = 0

        def __float__(self) -> float:
            Remote.reads += 1
            return super().__float__()

    optimizer = with_tensor(torch.tensor(0.5))
    optimizer.param_groups[0]["lr"] = torch.tensor(0.5).as_subclass(Remote)
    left, spot = LastWritten(optimizer, [(0, "lr")]), (0, "lr")
    left.put(spot, 0.25)
    before = Remote.reads
    assert (left.touched(spot), left.held(spot)) == (False, 0.25)
    assert Remote.reads == before

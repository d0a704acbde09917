"""The running average of the weights, against torch's `AveragedModel` in a plain loop."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from optimscheduler import Average, CheckpointError, ConfigError, OptimScheduler, OptimSchedulerDict
from optimscheduler.update.weight_average import WeightAverage, weight_of

CLOSE = {"rtol": 1e-9, "atol": 1e-11}  # the layouts round otherwise; float64
EXACT = {"rtol": 0.0, "atol": 0.0}


class Net(nn.Module):
    """Small and large parameters, one that is used from a batch on, batch statistics."""

    def __init__(self, inputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        self.large = nn.Linear(8, 5000)  # more than lies in a buffer
        self.late = nn.Linear(8, 2)
        self.double()

    def forward(self, x: Tensor, late: bool = True) -> Tensor:
        z = torch.tanh(self.norm(self.first(x)))
        out = self.last(z).square().mean() + (self.large(z) - 1).square().mean()
        return out + self.late(z).mean().square() if late else out


def built(model: nn.Module, **more: Any) -> OptimScheduler:
    conf = {"optim_type": "AdamW", "optim_conf": {"lr": 0.05}, "use_amp": False, "grad_clip": 1.0}
    return OptimScheduler(model=model, **{**conf, **more})


def rows(number: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(6, 3, generator=generator, dtype=torch.float64) for _ in range(number)]


def go(optim: OptimScheduler | OptimSchedulerDict, x: Tensor, times: float = 1.0, late: bool = True) -> Any:
    model = optim.model if isinstance(optim, OptimScheduler) else next(iter(optim.values())).model
    with optim.forward():
        loss = model(x, late)
    return optim.step({"loss": loss * times})


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_alike(one: Any, other: Any, **tolerance: float) -> None:
    assert set(one) == set(other)
    for name in other:
        torch.testing.assert_close(
            one[name], other[name], msg=lambda text, n=name: f"{n}: {text}", **tolerance
        )


def weights_applied(average: Average, model: nn.Module) -> dict[str, Tensor]:
    with average.applied():
        return {name: p.detach().clone() for name, p in model.named_parameters()}


# ---- against torch ----

WAYS: dict[str, tuple[dict[str, Any], Callable[..., Any], dict[str, float]]] = {
    "exponential": ({"decay": 0.8}, lambda: get_ema_multi_avg_fn(0.8), EXACT),
    "mean": ({"decay": None}, get_swa_multi_avg_fn, {"rtol": 1e-6, "atol": 1e-8}),  # its 1 / n is float32
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("optim_type", ["AdamW", "SGD"])
@pytest.mark.parametrize("accum_grad", [1, 3])
def test_it_is_torchs_averaged_model(way: str, optim_type: str, accum_grad: int) -> None:
    """Torch's is told of the updates by hand; one gradient is refused, and one window is flushed."""
    settings, make, tolerance = WAYS[way]
    model = Net()
    optim = built(model, optim_type=optim_type, accum_grad=accum_grad)
    average = Average(optim, **settings)
    theirs, updates = AveragedModel(model, multi_avg_fn=make()), 0
    for number, x in enumerate(rows(20), start=1):
        report = go(optim, x, times=math.nan if number == 6 else 1.0).read()
        if number == 11 and accum_grad > 1:
            flushed = optim.flush()
            report = report if flushed is None else flushed.read()
        if report.updated:
            theirs.update_parameters(model)
            updates += 1
    assert average.updates == updates == {1: 19, 3: 6}[accum_grad]
    expected = dict(theirs.module.named_parameters())
    assert any((expected[n] - p).abs().max() > 1e-3 for n, p in model.named_parameters())
    assert_alike(average.weights(), expected, **tolerance)
    assert_alike(weights_applied(average, model), expected, **tolerance)


def test_members_of_a_dict_move_their_own_part() -> None:
    model = Net()
    members = {
        "body": built(model, updated_modules=["first", "norm", "large"], accum_grad=2),
        "heads": built(model, updated_modules=["last", "late"]),
    }
    optims = OptimSchedulerDict(members)
    average = Average(optims, decay=0.7)
    theirs = {name: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7)) for name in members}
    for x in rows(8):
        for name, report in go(optims, x).items():
            if report.read().updated:
                theirs[name].update_parameters(model)
    found = average.weights()
    for name, optim in members.items():
        expected = dict(theirs[name].module.named_parameters())
        own = optim.owned.by_name
        assert_alike({n: found[n] for n in own}, {n: expected[n] for n in own}, **EXACT)
    assert average.updates == 8


def test_the_plain_mean_from_an_update_on_and_the_warm_up_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optim = OptimScheduler("SGD", {"lr": 1.0}, model, use_amp=False, grad_clip=None)
    mean, warm = Average(optim, decay=None, start=2), Average(optim, decay=0.9, warm_up=True)
    seen = []
    for _ in range(4):
        optim.step({"loss": -model(torch.ones(1, 1)).sum()})  # the weight is 1, 2, 3, 4
        seen.append((mean.weights()["weight"].item(), warm.weights()["weight"].item()))
    # from update 3 on; (1 + 2) / (10 + 2) = 1/4: 1 + 3/4 (2 - 1); 4/13: 1.75 + 9/13 (3 - 1.75); 5/14
    warmed = 1.75 + 9 / 13 * 1.25
    assert [m for m, _ in seen] == [1.0, 2.0, 3.0, 3.5]
    assert [w for _, w in seen] == pytest.approx([1.0, 1.75, warmed, warmed + 9 / 14 * (4 - warmed)])


@pytest.mark.parametrize("settings", [(0.9, False, 0), (0.9, True, 2), (None, False, 0), (None, False, 3)])
def test_a_decision_that_stays_on_its_device_comes_to_the_same(settings: Any) -> None:
    decay, warm_up, start = settings
    near, far = (WeightAverage(decay, warm_up=warm_up, start=start) for _ in range(2))
    for count in range(1, 9):
        share = far._share_on_device(torch.tensor(count)).item()
        assert share == pytest.approx(near.weight_of(count), rel=1e-12)
    assert weight_of(0, decay, warm_up=warm_up) == 1.0


@pytest.mark.parametrize(
    "settings", [{"decay": 0.8}, {"decay": None, "start": 2}, {"decay": 0.9, "warm_up": True}]
)
def test_R24_where_the_host_does_not_look_the_average_is_the_same(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an accelerator: the decision is a tensor that nobody looks at."""
    found = []
    for near in (True, False):
        monkeypatch.setattr("optimscheduler.update.weight_average._is_near", lambda _, near=near: near)
        optim = built(Net())
        part = Average(optim, **settings)
        real = optim.member.averages[0].after_update
        monkeypatch.setattr(optim.member.averages[0], "after_update", lambda m, f=real: f(torch.as_tensor(m)))
        for number, x in enumerate(rows(8), start=1):
            go(optim, x, times=math.nan if number in (1, 5) else 1.0)
        assert isinstance(optim.member.averages[0]._count, int) is near
        assert part.updates == 6
        found.append(part.weights())
    assert_alike(found[1], found[0], **CLOSE)


def test_R47_without_torchs_private_lerp_the_average_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for private in (True, False):
        if not private:
            monkeypatch.delattr(torch, "_foreach_lerp_")
        optim = built(Net())
        average = Average(optim, decay=0.8)
        for x in rows(5):
            go(optim, x)
        found.append(average.weights())
    assert_alike(found[1], found[0], **EXACT)


# ---- parameters that come, go and move ----


def test_a_parameter_that_is_frozen_and_thawed_is_averaged_as_if_it_had_not_moved() -> None:
    """Torch's averages all parameters all the time."""
    model = Net()
    model.late.requires_grad_(False)
    optim = built(model)
    average = Average(optim, decay=0.8)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    assert "late.weight" not in average.weights()
    for number, x in enumerate(rows(16), start=1):
        if number == 4:
            model.late.requires_grad_(True)
        if number == 9:
            model.first.requires_grad_(False)
        if number == 12:
            model.first.requires_grad_(True)
        go(optim, x)
        theirs.update_parameters(model)
    assert_alike(average.weights(), dict(theirs.module.named_parameters()), **EXACT)


def test_a_parameter_without_a_gradient_for_a_while_takes_its_average_along() -> None:
    """It leaves its buffer, others are moved by hand, and the layout is given up."""
    model = Net()
    optim = built(model)
    average = Average(optim, decay=0.8)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    for number, x in enumerate(rows(12), start=1):
        if number == 8:
            model.last.weight.data = model.last.weight.data.clone()
        go(optim, x, late=number not in (3, 4, 5))
        theirs.update_parameters(model)
    assert_alike(average.weights(), dict(theirs.module.named_parameters()), **EXACT)


def test_a_lazy_parameter_is_averaged_from_its_first_update_on() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 1))
    optim = built(model)
    average = Average(optim, decay=0.5)
    expected: dict[str, Tensor] = {}
    for _ in range(3):
        optim.step({"loss": model(torch.ones(2, 3)).square().mean()})
        now = {name: p.detach().clone() for name, p in model.named_parameters()}
        expected = {n: expected[n].lerp(p, 0.5) if expected else p for n, p in now.items()}
    assert_alike(average.weights(), expected, **EXACT)


def replace_late(model: Net, optim: OptimScheduler) -> None:
    """By a layer of another shape."""
    old = model.late
    model.late = nn.Linear(8, 4).double()
    parameters = optim.optimizer.param_groups[0]["params"]
    for name in ("weight", "bias"):
        at = next(i for i, p in enumerate(parameters) if p is getattr(old, name))
        parameters[at] = getattr(model.late, name)
        optim.optimizer.state.pop(getattr(old, name), None)


def test_a_replaced_parameter_begins_with_its_own_weights() -> None:
    model = Net()
    optim = built(model)
    average = Average(optim, decay=0.8)
    for x in rows(3):
        go(optim, x)
    replace_late(model, optim)
    with pytest.raises(ConfigError, match="take a step first"), average.applied():
        pass
    start = model.late.weight.detach().clone()
    go(optim, rows(1)[0])
    expected = start.lerp(model.late.weight.detach(), 1 - 0.8)
    torch.testing.assert_close(average.weights()["late.weight"], expected, **CLOSE)


def test_R34_a_state_between_a_replaced_parameter_and_its_update_is_taken() -> None:
    model = Net()
    optim = built(model, accum_grad=2)
    Average(optim, decay=0.8)
    for x in rows(2):
        go(optim, x)
    replace_late(model, optim)
    go(optim, rows(5)[4])
    saved = copy.deepcopy(optim.state_dict())
    assert "late.weight" not in saved["averages"][0]["weights"], "its average begins with its next update"
    optim.load_state_dict(saved)
    late = {name: p.detach() for name, p in model.named_parameters() if name.startswith("late")}
    assert_alike(
        optim.state_dict()["averages"][0]["weights"], saved["averages"][0]["weights"] | late, **EXACT
    )


def test_weights_in_bfloat16_are_averaged_in_float32() -> None:
    model = nn.Linear(4, 1).to(torch.bfloat16)
    with torch.no_grad():
        model.weight.fill_(1.0)
    optim = OptimScheduler("SGD", {"lr": 2.0**-7}, model, use_amp=False, grad_clip=None)
    average = Average(optim, decay=0.999)
    for _ in range(100):
        optim.step({"loss": -model(torch.ones(1, 4, dtype=torch.bfloat16)).sum()})
    value = average.weights()["weight"]
    assert value.dtype is torch.float32
    assert (value - 1.0).min() > 0.01, "steps of 0.001 are below the precision of bfloat16"
    assert weights_applied(average, model)["weight"].dtype is torch.bfloat16


# ---- in place of the weights ----


def test_R40_applied_gives_the_weights_back_bit_for_bit() -> None:
    model = Net()
    optim = built(model)
    average = Average(optim, decay=0.5)
    with average.applied():
        assert_alike(copied(model), copied(Net()), **EXACT)  # nothing to apply yet
    for x in rows(4):
        go(optim, x)
    twin, before = copy.deepcopy((model, optim)), copied(model)
    with pytest.raises(ZeroDivisionError), average.applied():
        assert not torch.equal(model.first.weight, before["first.weight"])
        torch.testing.assert_close(model.norm.running_mean, before["norm.running_mean"])
        raise ZeroDivisionError
    assert_alike(copied(model), before, **EXACT)
    for x in rows(7)[4:]:
        go(optim, x)
        go(twin[1], x)
    assert_alike(copied(model), copied(twin[0]), **EXACT)


def test_R43_an_autocast_around_everything_sees_the_averaged_weights_and_then_its_own() -> None:
    model = nn.Linear(3, 1)
    optim = OptimScheduler("SGD", {"lr": 0.5}, model, use_amp=False)
    average = Average(optim, decay=0.5)
    x = torch.ones(1, 3)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):
            optim.step({"loss": model(x).float().sum()})
        own = model(x).item()
        with average.applied():
            averaged, held = model(x).item(), copy.deepcopy(model)
        assert model(x).item() == own != averaged
    with torch.autocast("cpu", torch.bfloat16):
        assert averaged == held(x).item()


def test_inside_applied_nothing_trains_and_nothing_is_saved() -> None:
    model = Net()
    optim = built(model)
    average = Average(optim)
    x = rows(1)[0]
    go(optim, x)
    state = copy.deepcopy(optim.state_dict())
    with average.applied():
        for what, attempt in {
            "step": lambda: optim.step({"loss": model(x)}),
            "forward": lambda: optim.forward().__enter__(),
            "flush": optim.flush,
            "state_dict": optim.state_dict,
            "load_state_dict": lambda: optim.load_state_dict(state),
            "applied()": lambda: average.applied().__enter__(),
        }.items():
            with pytest.raises(
                ConfigError, match=rf"^{what}: the model has averaged weights".replace("()", r"\(\)")
            ):
                attempt()
    assert go(optim, x).read().updated


def test_weights_written_inside_are_said(caplog: pytest.LogCaptureFixture) -> None:
    model = Net()
    optim = built(model)
    average = Average(optim)
    go(optim, rows(1)[0])
    before = copied(model)
    with average.applied(), torch.no_grad():
        model.last.bias.add_(1.0)
    assert "weights were written to inside applied()" in caplog.text
    assert_alike(copied(model), before, **EXACT)


# ---- state ----


@pytest.mark.parametrize("layouts", [("auto", "auto"), ("auto", "loose"), ("loose", "auto")])
@pytest.mark.parametrize(
    "settings", [{"decay": 0.8}, {"decay": None, "start": 3}, {"decay": 0.9, "warm_up": True}]
)
def test_R34_it_goes_on_as_if_never_stopped(settings: Any, layouts: tuple[str, str], tmp_path: Any) -> None:
    model = Net()
    optim = built(model, layout=layouts[0])
    average = Average(optim, **settings)
    for x in rows(6):
        go(optim, x)
    torch.save({"model": model.state_dict(), "optim": optim.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    other = Net()
    resumed = built(other, layout=layouts[1])
    again = Average(resumed, **settings)
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optim"])
    assert again.updates == 6
    assert_alike(again.weights(), average.weights(), **EXACT)
    for x in rows(12)[6:]:
        go(optim, x)
        go(resumed, x)
    tolerance = EXACT if layouts[0] == layouts[1] else CLOSE
    assert_alike(again.weights(), average.weights(), **tolerance)


def states(decay: float | None) -> tuple[Net, OptimScheduler, dict[str, Any]]:
    model = Net()
    optim = built(model)
    if decay is not None:
        Average(optim, decay=decay)
    for x in rows(4):
        go(optim, x)
    return model, optim, copy.deepcopy(optim.state_dict())


def test_R35_another_average_is_an_error_that_says_so() -> None:
    _, _, saved = states(0.8)
    _, _, without = states(None)
    optim = built(Net())
    with pytest.raises(CheckpointError, match=r"Average 1: \{'decay': 0.8, .* in the checkpoint, missing in"):
        optim.load_state_dict(saved)
    average = Average(optim, decay=0.9)
    with pytest.raises(CheckpointError, match=r"Average 1\.decay: 0\.8 in the checkpoint, 0\.9 in"):
        optim.load_state_dict(saved)
    with pytest.raises(CheckpointError, match="Average 1: missing in the checkpoint"):
        optim.load_state_dict(without)
    assert average.updates == 0


@pytest.mark.parametrize(("wins", "decay"), [("config", 0.9), ("checkpoint", 0.8)])
@pytest.mark.parametrize("lr", [0.05, 0.1])
def test_R35_on_mismatch_says_whose_decay_wins_and_the_values_are_kept(
    wins: Any, decay: float, lr: float, caplog: pytest.LogCaptureFixture
) -> None:
    model, trained, saved = states(0.8)
    optim = built(model, optim_conf={"lr": lr})
    average = Average(optim, decay=0.9)
    optim.load_state_dict(saved, wins)
    assert (average.decay, average.updates) == (decay, 4)
    assert "Average 1.decay: 0.8 in the checkpoint" in caplog.text
    expected = {name: value.clone() for name, value in saved["averages"][0]["weights"].items()}
    assert_alike(average.weights(), expected, **EXACT)
    go(optim, rows(5)[4])
    own = dict(model.named_parameters())
    moved = {name: value.lerp(own[name].detach(), 1 - decay) for name, value in expected.items()}
    assert_alike(average.weights(), moved, **CLOSE)
    del trained


def test_R36_a_state_without_an_average_begins_one_with_the_next_update() -> None:
    model, _, _ = states(None)
    optim = built(model)
    average = Average(optim, decay=0.9)
    for _ in range(2):
        optim.load_state_dict(torch.optim.AdamW(model.parameters(), lr=0.05).state_dict())
        assert average.updates == 0
        go(optim, rows(1)[0])
        assert_alike(average.weights(), {n: p.detach() for n, p in model.named_parameters()}, **EXACT)


@pytest.mark.parametrize(
    "damage",
    [
        {"weights": 3}, {"count": "many"}, {"count": -1}, {"weights": {"a": 1}}, {"count": math.nan},
        {"count": math.inf}, {"count": 2.5}, {"decay": 1.0}, {"decay": math.nan}, {"decay": "0.8"},
        {"decay": torch.zeros(3)}, {"start": None}, {"start": 0.5}, {"warm_up": 1},
        {"weights": torch.zeros(3)}, {"weights": {"first.bias": torch.zeros(3)}},
        {"decay": None, "warm_up": True},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("on_mismatch", ["error", "config", "checkpoint"])
def test_R35_a_damaged_average_changes_nothing(damage: dict[str, Any], on_mismatch: Any) -> None:
    model, _, saved = states(0.8)
    optim = built(model)
    average = Average(optim, decay=0.8)
    go(optim, rows(1)[0])
    before = copy.deepcopy(optim.state_dict())
    saved["averages"][0].update(damage)
    with pytest.raises(CheckpointError, match=r"damaged: averages\[0\]"):
        optim.load_state_dict(saved, on_mismatch)
    assert (average.updates, average.decay) == (1, 0.8)
    assert_alike(optim.state_dict()["averages"][0]["weights"], before["averages"][0]["weights"], **EXACT)
    assert optim.state_dict()["clock"] == before["clock"]


# ---- settings, and what it costs ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.0}, "decay must be a finite number >= 0 and < 1, got 1.0"),
        ({"decay": -0.1}, "decay must be"),
        ({"decay": "0.9"}, "decay must be"),
        ({"warm_up": 1}, "warm_up must be True or False"),
        ({"start": -1}, "start must be a whole number of updates >= 0"),
        ({"decay": None, "warm_up": True}, "has no decay to warm up"),
    ],
)
def test_R38_what_is_out_of_range_is_told(settings: Any, message: str) -> None:
    optim = built(Net())
    with pytest.raises(ConfigError, match=message):
        Average(optim, **settings)
    assert not optim.member.averages


def test_R38_it_takes_an_optim_scheduler() -> None:
    with pytest.raises(ConfigError, match=r"got AdamW; write Average\(optim, decay=0.999\)"):
        Average(torch.optim.AdamW([nn.Parameter(torch.ones(1))]))  # type: ignore[arg-type]  # that is the test


def test_one_lerp_moves_all_parameters_and_packed_ones_are_one_tensor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    real = torch._foreach_lerp_

    def counted(rows: Any, ends: Any, weight: float) -> None:
        seen.append(len(rows))
        real(rows, ends, weight)

    optim = built(nn.Sequential(*(nn.Linear(3, 3) for _ in range(10))), optim_type="RMSprop", layout="flat")
    Average(optim, decay=0.9)
    monkeypatch.setattr(torch, "_foreach_lerp_", counted)
    for _ in range(4):
        optim.step({"loss": optim.model(torch.ones(2, 3)).square().mean()})
    assert seen == [1, 1, 1], "twenty parameters in one buffer; the first update copies"


def test_an_update_that_nobody_averages_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "optimscheduler")
    optim = built(Net())
    go(optim, rows(1)[0])
    assert "averages" not in optim.state_dict()

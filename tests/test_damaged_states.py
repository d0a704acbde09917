"""R35: a state with one thing wrong is refused and changes nothing, or is held as it was given.

Each leaf of good states is left out, or something else stands in its place. The law: a load either raises and
leaves everything as it was, or the state of the object afterwards is the one that was loaded. With
`on_mismatch="config"` what is not held is said.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from optimscheduler import CheckpointError, OptimScheduler, OptimSchedulerDict
from optimscheduler.state.group_numbers import IMPLEMENTATION
from tests.cases import HalvedWhenWorse
from tests.cases_models import (
    TwoParts,
    a_model,
    assert_same,
    batches,
    differ,
    frozen,
    optim_of,
    refused,
    stored,
    take,
    train,
)

DATA = batches(6)
Path = tuple[Any, ...]  # keys and numbers, from the root

WRONG: list[Any] = ["x", None, True, [], {}, -5, 0, 2.5, math.nan, math.inf, -math.inf, 2**70, 1e300]


def adam(model: Any) -> OptimScheduler:
    rules = [{"ndim": "<2", "lr": 0.02}]
    return optim_of(
        model, "Adam", 0.01, use_amp="fp16", accum_grad=3, guard={"z": 9, "window": 4, "warm_up": 2},
        schedule=HalvedWhenWorse(), schedules={"weight_decay": "Linear(steps=9)"}, param_groups=rules,
        conf={"weight_decay": 0.1},
    )  # fmt: skip


def sgd(model: Any) -> OptimScheduler:
    return optim_of(model, "SGD", 0.1, conf={"momentum": 0.9}, accum_grad=2)


def good_state(make: Any) -> Any:
    """In the middle of the second window, or of the third."""
    optim = make(a_model())
    if optim.scaler is not None:
        optim.scaler.value.fill_(256.0)
    train(optim, DATA[:5])
    optim.observe(1.0)
    return stored(optim.state_dict())


LIKE_OTHERS = {"0.bias", "2.weight", "2.bias", "3.weight", *IMPLEMENTATION[2:]}
"""Parameters whose places are like those of 0.weight and 3.bias, and entries that are not taken."""


def leaves(tree: Any, path: Path = ()) -> Iterator[Path]:
    """All places, the branches too."""
    if path:
        yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield from leaves(child, (*path, key))


def at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def mutants(good: Any) -> Iterator[tuple[str, Any]]:
    """A good state with one thing wrong, and what that is."""
    for path in leaves(good):
        if LIKE_OTHERS.intersection(path) or (path[:3] == ("optimizer", "groups", 1) and len(path) > 3):
            continue
        place, value = ".".join(map(str, path)), at(good, path)
        instead = WRONG[:2] if path[0] == "config" else [*WRONG, torch.zeros(3, 1, 2)]
        if isinstance(value, Tensor) and value.ndim:
            instead += [value[:1], value.to(torch.int32), torch.cat([value, value])]
        for wrong in instead:
            if type(value) is not type(wrong) or differ(value, wrong):
                state = copy.deepcopy(good)
                at(state, path[:-1])[path[-1]] = wrong
                yield f"{place} = {wrong!r:.40}", state
        state = copy.deepcopy(good)
        del at(state, path[:-1])[path[-1]]
        yield f"without {place}", state


def _same(one: Any, other: Any) -> list[str]:
    try:
        return differ(one, other)
    except Exception as error:
        return [repr(error)]


def is_held(optim: OptimScheduler, state: Any) -> list[str]:
    """Where the object now differs from what was loaded. Where parameters lie is not held, but followed."""
    given, now = _what_counts(state), _what_counts(optim.state_dict())
    for theirs, ours in zip(given["optimizer"]["groups"], now["optimizer"]["groups"], strict=False):
        for key in set(ours) - set(theirs):
            del ours[key]
    given_left = state.get("values", {}).get("left", [])
    lost = [f"left {spot}" for spot in given_left if spot not in optim.state_dict()["values"]["left"]]
    if not given["values"]:
        del given["values"], now["values"]
    return lost + _same(given, now)


def _what_counts(state: Any) -> Any:
    """Without what tells of a state and is not held, and what older states and those of others do not have.

    Shapes; where parameters lie, which is followed as far as it goes; which kernel is used, which the
    configuration says; state of parameters that had none, for loaders that fill what they are given.
    """
    counts = {key: value for key, value in state.items() if key not in ("parameters", "layout")}
    saved = counts["optimizer"]
    present = saved.get("present", saved["state"])
    groups = [{k: v for k, v in group.items() if k not in IMPLEMENTATION} for group in saved["groups"]]
    if counts["scaler"]:  # of a GradScaler's, the reference is that of the open window
        counts["scaler"] = {k: v for k, v in counts["scaler"].items() if k != "reference_weight"}
    counts["values"] = {"written": counts["values"]["written"]} if "values" in counts else {}
    counts["optimizer"] = {"state": {name: saved["state"][name] for name in present}, "groups": groups}
    return _numbers(counts)


def _numbers(tree: Any) -> Any:
    """A tree with Python numbers for tensors of one element: torch makes tensors of counters."""
    if isinstance(tree, dict):
        return {key: _numbers(child) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        return [_numbers(child) for child in tree]
    return float(tree) if isinstance(tree, Tensor) and tree.numel() == 1 else tree


@pytest.mark.parametrize(("make", "how"), [(adam, "error"), (sgd, "config"), (sgd, "checkpoint")])
def test_R35_a_state_with_one_thing_wrong_is_refused_or_held_or_said(
    make: Any, how: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good, optim = good_state(make), make(a_model(seed=9))
    train(optim, DATA[5:6])
    before, silent, taken, refusals = frozen(optim), [], 0, 0
    for what, state in mutants(good):
        caplog.clear()
        try:
            optim.load_state_dict(state, how)
        except CheckpointError as error:
            refusals += 1
            now = frozen(optim)
            if found := differ(now, before):
                silent.append(f"{what}: refused, and changed {found[:3]}: {error}")
        else:
            taken += 1
            found = is_held(optim, state)
            now = None
            if found and not caplog.records:
                silent.append(f"{what}: taken, and not held: {found[:3]}")
        if now is None or differ(now, before):
            optim = make(a_model(seed=9))
            train(optim, DATA[5:6])
            before = frozen(optim)
    assert silent == []
    assert refusals > 300
    assert taken > 20


def changed(state: Any, place: str, value: Any) -> Any:
    """A copy with something else at a place."""
    state, path = copy.deepcopy(state), place.split(".")
    at(state, tuple(path[:-1]))[path[-1]] = value
    return state


DAMAGES: dict[str, tuple[str, Any, str]] = {
    "batch below 0": ("clock.batch", -5, "clock.batch must be a whole number >= 0, got -5"),
    "half a batch": ("clock.batch", 2.5, "clock.batch must be a whole number >= 0, got 2.5"),
    "batch is NaN": ("clock.batch", math.nan, "clock.batch must be a whole number >= 0, got nan"),
    "batch is true": ("clock.batch", True, "clock.batch must be a whole number >= 0, got True"),
    "epoch 0": ("clock.epoch", 0, "clock.epoch must be a whole number >= 1, got 0"),
    "too far inside": ("clock.inside", 3, "clock.inside must be less than the 3 batches of a window, got 3"),
    "scale 0": ("scaler.scale", 0, "scaler.scale must be a number > 0 and <= 3.40282e+38, got 0"),
    "scale NaN": ("scaler.scale", math.nan, "scaler.scale must be a number > 0 and <= 3.40282e+38, got nan"),
    "scale inf": ("scaler.scale", math.inf, "scaler.scale must be a number > 0 and <= 3.40282e+38, got inf"),
    "scale below 0": ("scaler.scale", -2.0, "scaler.scale must be a number > 0 and <= 3.40282e+38, got -2.0"),
    "no batch": ("clock", {"epoch": 1, "closed_windows": 0, "inside": 0}, "clock has no 'batch'"),
    "counters": ("ledger", {"applied": 1}, "ledger has no 'skipped', 'skips_in_row'"),
    "other norms": ("guard.norms", [1.0], "guard.norms must be a list of 4, got [1.0]"),
    "lost norms": ("guard", {}, "guard has no 'norms'"),
    "feedback": (
        "feedback",
        {"best": 1.0},
        "feedback must be like {'best': 1000000000.0, 'factor': 1.0}, got",
    ),
    "factor": ("feedback.factor", -1.0, "gives the factor -1.0, which must be finite and >= 0"),
    "gradient": (
        "window.gradients",
        {"3.bias": torch.zeros(3)},
        "window.gradients.3.bias must have the shape of its parameter, (2,), got (3,)",
    ),
    "whole numbers": (
        "window.gradients",
        {"3.bias": torch.zeros(2, dtype=torch.int64)},
        "window.gradients.3.bias must be of a floating-point type, got torch.int64",
    ),
    "window's scale": ("window.scale", 2.0, "window.scale must be 256, as the loss scale says, got 2.0"),
    "a config with a tensor": ("config.grad_clip", torch.ones(2), "config.grad_clip must be a plain value"),
    "written": ("values.written", 1, "values.written must be True or False, got 1"),
    "layout": ("layout", [[], ["x"], 0], "layout must name parameters of this state, got 'x'"),
    "no group": ("optimizer.groups", [], "optimizer.groups must have each parameter, and there is none with"),
    "too many states": ("optimizer.present", ["x"], "optimizer.present must name parameters of this state"),
}


@pytest.mark.parametrize(("place", "value", "says"), DAMAGES.values(), ids=DAMAGES)
def test_R35_the_message_names_place_value_and_what_is_allowed(place: str, value: Any, says: str) -> None:
    state, optim = changed(good_state(adam), place, value), adam(a_model(seed=9))
    train(optim, DATA[:1])
    assert "this state is damaged: " in (message := refused(optim, state))
    assert says in message


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("lr", math.nan, "lr of group 0 must be a finite number >= 0, got nan"),
        ("lr", -1.0, "lr of group 0 must be a finite number >= 0, got -1.0"),
        ("betas", (0.9, 1.5), "betas of group 0 must be 2 values like (0.9, 0.999), got (0.9, 1.5)"),
        ("betas", [0.9], "betas of group 0 must be 2 values like (0.9, 0.999), got [0.9]"),
        ("amsgrad", 1, "amsgrad of group 0 must be True or False, got 1"),
    ],
)
def test_R35_numbers_of_groups_are_looked_at(key: str, value: Any, says: str) -> None:
    state = good_state(adam)
    state["optimizer"]["groups"][0][key] = value
    assert says in refused(adam(a_model()), state)


@pytest.mark.parametrize(
    ("entry", "value", "says"),
    [
        ("exp_avg", torch.zeros(2, 2), "exp_avg has shape (2, 2) in the checkpoint, (6, 4) here (0.weight)"),
        ("exp_avg", "x", "exp_avg must be a tensor of shape (6, 4), got 'x' (0.weight)"),
        ("exp_avg", torch.zeros(6, 4).int(), "exp_avg is torch.int32 in the checkpoint, floating-point here"),
        ("step", torch.tensor(math.nan), "step must be finite and >= 0, got tensor(nan) (0.weight)"),
        ("step", -1, "step must be finite and >= 0, got -1 (0.weight)"),
        ("step", torch.zeros(2), "step has shape (2,) in the checkpoint, () here (0.weight)"),
    ],
)
def test_R35_entries_of_a_parameter_are_looked_at(entry: str, value: Any, says: str) -> None:
    state = good_state(adam)
    state["optimizer"]["state"]["0.weight"][entry] = value
    for how in ("error", "config"):
        assert says in refused(adam(a_model()), state, how)


TORCHS: dict[str, Any] = {
    "a group without parameters": lambda s: s["param_groups"][0].pop("params"),
    "groups that are none": lambda s: s.update(param_groups=3),
    "a state that is none": lambda s: s.update(state=[1]),
    "a state of nobody": lambda s: s["state"].update({99: s["state"][0]}),
    "an entry that is none": lambda s: s["state"].update({0: 3}),
    "an entry that is gone": lambda s: s["state"][0].pop("step"),
    "a shape": lambda s: s["state"][0].update(exp_avg=torch.zeros(2, 2)),
    "a number too many": lambda s: s["param_groups"][0]["params"].append(6),
}


@pytest.mark.parametrize("change", TORCHS.values(), ids=TORCHS)
def test_R36_a_damaged_state_of_a_plain_optimizer_changes_nothing(change: Any) -> None:
    model = a_model()
    theirs = torch.optim.Adam(model.parameters())
    model(DATA[0][0]).sum().backward()
    theirs.step()
    state = stored(theirs.state_dict())
    change(state)
    optim = optim_of(a_model(), "Adam")
    train(optim, DATA[:1])
    for how in ("error", "config"):
        refused(optim, state, how)


def test_R36_a_damaged_scaler_of_the_origin_changes_nothing() -> None:
    model = a_model()
    theirs = torch.optim.Adam(model.parameters()).state_dict()
    scaler = {**torch.amp.GradScaler("cpu").state_dict(), "scale": 0.0}
    optim = optim_of(a_model(), "Adam", use_amp="fp16")
    assert "scaler.scale must be a number > 0" in refused(optim, {"optimizer": theirs, "scaler": scaler})


@pytest.mark.parametrize("damage", ["clock", "gradient", "entry"])
def test_R35_a_dict_is_loaded_as_a_whole_or_not_at_all(damage: str) -> None:
    def pair() -> OptimSchedulerDict:
        model = TwoParts()
        return OptimSchedulerDict(
            {
                name: optim_of(model, "Adam", 0.1, updated_modules=name, accum_grad=2, optim_loss=loss)
                for name, loss in (("encoder", "loss"), ("decoder", "other"))
            }
        )

    def go(optims: OptimSchedulerDict, count: int) -> None:
        for i in range(count):
            with optims.forward():
                losses = optims["encoder"].model(torch.full((2, 3), 1.0 + i))
            optims.step(losses)

    old, optims = pair(), pair()
    go(old, 3)
    go(optims, 1)
    state = stored(old.state_dict())
    bad: Any = state["decoder"]
    if damage == "clock":
        bad["clock"]["batch"] = -1
    elif damage == "gradient":
        bad["window"]["gradients"]["decoder.0.bias"] = torch.zeros(1)
    else:
        del bad["optimizer"]["state"]["decoder.0.bias"]["exp_avg"]
    before = {name: frozen(optim) for name, optim in optims.items()}
    with pytest.raises(CheckpointError, match=r"^decoder: "):
        optims.load_state_dict(state)
    assert_same({name: frozen(optim) for name, optim in optims.items()}, before)


def test_R35_members_that_one_side_has_alone_are_passed_over_with_the_config(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def members(*names: str) -> OptimSchedulerDict:
        model = TwoParts()
        return OptimSchedulerDict({n: optim_of(model, "Adam", 0.1, updated_modules=n) for n in names})

    old, optims = members("encoder", "decoder"), members("decoder")
    with old.forward():
        losses = old["encoder"].model(torch.ones(2, 3))
    old.step(losses)
    state = stored(old.state_dict())
    with pytest.raises(CheckpointError, match=r"\['decoder', 'encoder'\].*on_mismatch='config' takes those"):
        optims.load_state_dict(state)
    optims.load_state_dict(state, "config")
    assert "encoder is in the checkpoint alone; its state is dropped" in caplog.text
    assert_same(optims["decoder"].state_dict()["optimizer"], old["decoder"].state_dict()["optimizer"])
    both = members("encoder", "decoder")
    before = frozen(both["encoder"])
    both.load_state_dict(stored(optims.state_dict()), "config")
    assert "encoder is not in the checkpoint; it stays as it is" in caplog.text
    assert_same(frozen(both["encoder"]), before)
    assert both["decoder"].member.clock.batch == 1
    with pytest.raises(CheckpointError, match="this dict has"):
        optims.load_state_dict({"other": {}}, "config")


def test_an_epoch_written_as_a_float_is_saved_as_a_whole_number() -> None:
    optim = optim_of(a_model())
    take(optim, DATA[0], epoch_num=2.0)
    optim_of(a_model()).load_state_dict(stored(optim.state_dict()))
    assert type(optim.state_dict()["clock"]["epoch"]) is int

"""R03, R17, R35, R36: an optimizer by name, by class, or one that is there already."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from optimscheduler import (
    ConfigError,
    Noamlr,
    OptimScheduler,
    OptimSchedulerDict,
    OptimSchedulerError,
    ParameterError,
)
from tests.cases_models import (
    Batch,
    a_model,
    assert_same,
    batches,
    frozen,
    mse,
    optim_of,
    refused,
    stored,
    take,
    train,
    weights,
)

DATA = batches(8)
PLAIN: dict[str, Any] = {"use_amp": False, "grad_clip": None}


def taken(optimizer: Optimizer, model: nn.Module, **arguments: Any) -> OptimScheduler:
    return OptimScheduler.from_optimizer(optimizer, model, **{**PLAIN, **arguments})


def adamw(model: nn.Module, **conf: Any) -> AdamW:
    return AdamW(model.parameters(), **{"lr": 0.1, **conf})


def by_torch(optimizer: Optimizer, model: nn.Module, data: list[Batch]) -> None:
    """The plain loop."""
    for batch in data:
        optimizer.zero_grad()
        mse(model, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    optimizer.zero_grad()


# ---- a class ----


def test_R17_a_class_needs_no_path() -> None:
    named, classed = optim_of(a_model(), "AdamW"), OptimScheduler(AdamW, {"lr": 0.1}, a_model(), **PLAIN)
    for optim in (named, classed):
        train(optim, DATA)
    assert_same(frozen(named), frozen(classed))
    assert repr(named) == repr(classed)


@pytest.mark.parametrize(
    ("optim_type", "message"),
    [
        (torch.optim.LBFGS, r"^optim_type: LBFGS\.step needs a closure"),
        (Optimizer, r"^optim_type: Optimizer is the base class; name one"),
        (nn.Linear, r"^optim_type must be the name of an Optimizer, got <class 'torch.nn.modules.linear"),
    ],
)
def test_R17_a_class_is_one_that_can_be_driven(optim_type: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimScheduler(optim_type, {"lr": 0.1}, a_model())


def test_a_class_needs_its_conf() -> None:
    with pytest.raises(ConfigError, match=r"^optim_conf must be a mapping like .*, got None$"):
        OptimScheduler(AdamW, None, a_model())


# ---- an optimizer that is there already ----


def test_R36_it_is_the_same_object_with_its_groups() -> None:
    model = a_model()
    optimizer = SGD(
        [{"params": model[0].parameters(), "lr": 0.05}, {"params": model[2:].parameters()}], lr=0.1
    )
    optim = taken(optimizer, model, layout="loose", schedule="Constant(0.5)", ft_factor=0.5)
    assert optim.optimizer is optimizer
    assert [list(group.parameters) for group in optim.owned.groups] == [
        ["0.weight", "0.bias"],
        ["2.weight", "2.bias", "3.weight", "3.bias"],
    ]
    take(optim, DATA[0])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.0125, 0.025])


@pytest.mark.parametrize("layout", ["loose", "flat"])
def test_R03_groups_keep_their_ratio_under_a_schedule(layout: str) -> None:
    model = a_model()
    optimizer = SGD(
        [{"params": model[0].parameters(), "lr": 0.05}, {"params": model[2:].parameters()}], lr=0.1
    )
    optim = taken(optimizer, model, layout=layout, schedule="Linear(steps=4)")
    assert optim.get_lr() == 0.1, "the base"
    for _ in range(3):
        take(optim, DATA[0])
    # Linear falls from 1 at 1 to 0 at 5, half of it at 3
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.025, 0.05])


@pytest.mark.parametrize("fused", [False, True])
def test_R36_a_warm_optimizer_goes_on_as_torch_would(fused: bool) -> None:
    ours, theirs = a_model(), a_model()
    warm, plain = adamw(ours, fused=fused), adamw(theirs, fused=fused)
    by_torch(warm, ours, DATA[:3])
    by_torch(plain, theirs, DATA)
    optim = taken(warm, ours, layout="loose")
    assert optim.get_lr() == 0.1
    train(optim, DATA[3:])
    assert_same(weights(ours), weights(theirs))
    assert optim.member.ledger.applied == 5


def test_R36_a_warm_optimizer_may_lie_side_by_side() -> None:
    ours, theirs = a_model(), a_model()
    warm, plain = adamw(ours), adamw(theirs)
    by_torch(warm, ours, DATA[:3])
    by_torch(plain, theirs, DATA)
    train(taken(warm, ours, layout="flat"), DATA[3:])
    for name, weight in weights(theirs).items():  # sums of another order: a few roundings of float32
        torch.testing.assert_close(weights(ours)[name], weight, rtol=1e-5, atol=1e-6)


def test_R16_what_it_holds_is_what_is_owned_and_nothing_else_moves() -> None:
    model = a_model()
    before = weights(model)
    optim = taken(SGD(model[3].parameters(), lr=0.1), model)
    assert list(optim.owned.by_name) == ["3.weight", "3.bias"]
    assert not optim.owned.whole_model
    train(optim, DATA[:2])
    moved = [name for name, weight in weights(model).items() if not weight.equal(before[name])]
    assert moved == ["3.weight", "3.bias"]
    assert all(p.grad is None for p in model[0].parameters())


def test_R33_names_are_canonical_and_a_frozen_part_is_left_out() -> None:
    model = a_model()
    model[0].requires_grad_(False)
    wrapped = nn.ModuleDict({"_forward_module": model})
    optimizer = AdamW((p for p in model.parameters() if p.requires_grad), lr=0.1)
    optim = OptimScheduler.from_optimizer(optimizer, wrapped)
    assert list(optim.owned.by_name) == ["2.weight", "2.bias", "3.weight", "3.bias"]
    assert optim.state_dict()["config"]["updated_modules"] is None, "it is all that trains"


def test_R15_members_of_a_dict_may_be_made_of_optimizers() -> None:
    model = a_model()
    optims = OptimSchedulerDict(
        {
            "low": taken(SGD(model[0].parameters(), lr=0.1), model),
            "high": taken(SGD(model[2:].parameters(), lr=0.2), model),
        },
        unowned="error",
    )
    optims.step(mse(model, DATA[0]))
    assert optims.get_lr() == {"low": 0.1, "high": 0.2}
    with pytest.raises(ParameterError, match=r"owned by both 'a' and 'b'"):
        OptimSchedulerDict({n: taken(SGD(model[0].parameters(), lr=0.1), model) for n in "ab"})


def test_R37_a_subclass_takes_its_own_arguments() -> None:
    model = a_model()
    optim = Noamlr.from_optimizer(adamw(model), model, warmup_steps=4, **PLAIN)
    twin = Noamlr("AdamW", {"lr": 0.1}, a_model(), warmup_steps=4, **PLAIN)
    assert isinstance(optim, Noamlr)
    assert repr(optim) == repr(twin)
    assert [take(optim, b).lr for b in DATA] == [take(twin, b).lr for b in DATA]


def test_R40_an_empty_group_is_no_obstacle() -> None:
    model = a_model()
    optimizer = SGD([{"params": []}, {"params": model.parameters()}], lr=0.1)
    optim = taken(optimizer, model)
    train(optim, DATA[:2])
    optim.load_state_dict(stored(optim.state_dict()))
    assert [take(optim, DATA[2]).lr, optim.member.ledger.applied] == [0.1, 3]


@pytest.mark.parametrize(
    ("lr", "group", "base"),
    [
        (0.1, {}, 0.1),
        (0.1, {"lr": 0.02}, 0.1),
        (0.0, {"lr": 0.02}, 0.02),
        (torch.tensor(0.5), {}, 0.5),
        (0.1, {"lr": 0.0, "initial_lr": 0.1}, 0.1),
    ],
)
def test_R03_the_base_is_the_default_or_the_first_groups(lr: Any, group: dict[str, Any], base: float) -> None:
    model = a_model()
    optimizer = SGD([{"params": model.parameters(), **group}], lr=lr, foreach=False)
    optim = taken(optimizer, model, schedule="Linear(steps=2)", layout="loose")
    assert optim.get_lr() == base
    first = float(group.get("initial_lr", group.get("lr", base)))  # at the first step Linear is 1
    assert take(optim, DATA[0]).lr == pytest.approx(first)


def test_R35_a_scheduler_that_moved_the_rate_makes_no_other_configuration() -> None:
    model = a_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    by_torch(optimizer, model, DATA[:1])
    scheduler.step()
    warm = taken(optimizer, model)
    assert warm.get_lr() == 0.05
    fresh = a_model()
    assert warm.state_dict()["config"] == taken(SGD(fresh.parameters(), lr=0.1), fresh).state_dict()["config"]


def test_R44_what_nobody_drives_is_told_as_it_is_before_the_first_update() -> None:
    model = a_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = 0.02
    optim = taken(optimizer, model)
    assert optim.get_lr() == 0.02
    assert take(optim, DATA[0]).lr == 0.02


def test_R03_a_tensor_stays_the_same_tensor() -> None:
    model = a_model()
    lr = torch.tensor(0.5)
    optim = taken(
        SGD(model.parameters(), lr=lr, foreach=False), model, schedule="Linear(steps=4)", layout="loose"
    )
    rates = [take(optim, batch).lr for batch in DATA[:3]]
    assert rates == [0.5, 0.375, 0.25]
    assert optim.optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == 0.25


# ---- its checkpoints ----


@pytest.mark.parametrize("by_name", ["saves", "loads"])
def test_R36_its_configuration_is_as_if_it_were_written_by_name(by_name: str) -> None:
    """A state goes from one to the other, and both continue in the same way."""
    arguments: dict[str, Any] = {"schedule": "Cosine(steps=9)", "layout": "loose"}
    model = a_model()
    named = optim_of(a_model(), "AdamW", conf={"weight_decay": 0.5}, **arguments)
    handed = taken(adamw(model, weight_decay=0.5), model, **arguments)
    assert handed.state_dict()["config"] == named.state_dict()["config"]
    old, new = (named, handed) if by_name == "saves" else (handed, named)
    train(old, DATA[:4])
    new.model.load_state_dict(old.model.state_dict())
    new.load_state_dict(stored(old.state_dict()))
    for optim in (old, new):
        train(optim, DATA[4:])
    assert_same(frozen(old), frozen(new))


def test_R36_groups_are_written_as_rules_with_what_differs() -> None:
    model = a_model()
    optimizer = AdamW(
        [{"params": model[0].parameters(), "weight_decay": 0.0}, {"params": model[3].parameters()}], lr=1e-3
    )
    config = taken(optimizer, model).state_dict()["config"]
    assert config["optim_conf"] == {"lr": 1e-3}
    assert config["param_groups"] == [{"name": ["0.weight", "0.bias"], "weight_decay": 0.0}]
    assert config["updated_modules"] == ["0.bias", "0.weight", "3.bias", "3.weight"]
    by_name = OptimScheduler(model=a_model(), **config)
    assert [sorted(group.parameters) for group in by_name.owned.groups] == [
        ["3.bias", "3.weight"],
        ["0.bias", "0.weight"],
    ]


def test_R35_an_optimizer_of_other_settings_is_refused_or_wins(caplog: pytest.LogCaptureFixture) -> None:
    old_model, model = a_model(), a_model()
    old = taken(adamw(old_model), old_model)
    train(old, DATA[:3])
    state = stored(old.state_dict())
    new = taken(adamw(model, lr=0.2), model)
    line = "optim_conf.lr: 0.1 in the checkpoint, 0.2 in the configuration"
    assert line in refused(new, state)
    assert refused(new, state, "checkpoint") == (
        "on_mismatch='checkpoint': the optimizer was handed in, and is not built anew here. Build it with "
        f"the checkpoint's settings before you hand it in, or use on_mismatch='config':\n  {line}"
    )
    with caplog.at_level(logging.WARNING, "optimscheduler"):
        new.load_state_dict(state, "config")
    assert caplog.messages == [f"{line}; taken from the configuration"]
    assert new.get_lr() == take(new, DATA[3]).lr == 0.2
    assert new.member.clock.batch == 4
    new.load_state_dict(stored(new.state_dict()), "checkpoint")  # nothing differs, nothing is built


def test_R35_an_object_by_name_becomes_what_an_optimizer_was() -> None:
    model = a_model()
    optimizer = SGD(
        [{"params": model[0].parameters(), "lr": 0.05}, {"params": model[2:].parameters()}], lr=0.1
    )
    old = taken(optimizer, model)
    train(old, DATA[:3])
    new = optim_of(copy.deepcopy(model), lr=0.7)
    new.load_state_dict(stored(old.state_dict()), "checkpoint")
    for optim in (old, new):
        train(optim, DATA[3:])
    for name, weight in weights(old.model).items():  # groups in another order
        torch.testing.assert_close(weights(new.model)[name], weight, rtol=1e-5, atol=1e-6)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"optim_conf": {"lr": 1}}, "optim_conf: {'lr': 1}"),
        ({"updated_modules": "0"}, "updated_modules: ['0']"),
        ({"exclude": ["0"]}, "exclude: ['0']"),
        ({"param_groups": [{"ndim": 1, "lr": 1}]}, "param_groups: [{'ndim': 1, 'lr': 1}]"),
    ],
)
def test_what_the_optimizer_says_itself_is_not_said_beside_it(arguments: dict[str, Any], key: str) -> None:
    model = a_model()
    with pytest.raises(ConfigError) as caught:
        taken(adamw(model), model, **arguments)
    assert str(caught.value) == (
        f"{key} has nothing to set, because the optimizer was handed in with its parameters, groups and "
        "settings. Build it otherwise, or give its class: OptimScheduler(AdamW, {'lr': 1e-3}, model, ...)"
    )


@pytest.mark.parametrize("nothing", [None, ()])
def test_nothing_may_be_said_beside_it(nothing: Any) -> None:
    model = a_model()
    optimizer = adamw(model)
    keys = ("optim_conf", "updated_modules", "exclude", "param_groups")
    assert taken(optimizer, model, **dict.fromkeys(keys, nothing)).optimizer is optimizer
    model = a_model()
    assert OptimScheduler(adamw(model), {}, model).get_lr() == 0.1


def test_R15_parameters_that_are_not_the_models_are_refused() -> None:
    model, other = a_model(), nn.Linear(2, 3)
    optimizer = SGD([{"params": model.parameters()}, {"params": other.parameters()}], lr=0.1)
    with pytest.raises(ParameterError) as caught:
        taken(optimizer, model)
    assert str(caught.value) == (
        "the optimizer holds 2 parameters that are not the model's: number 0 of group 1, of shape (3, 2), "
        "number 1 of group 1, of shape (3,). Build it over this model's parameters, after whatever replaces "
        "them (fully_shard, load_state_dict(assign=True)), and hand it in once"
    )
    with pytest.raises(
        ParameterError, match=r"holds 6 .*: 0.weight of group 0, of shape \(6, 4\), .* and 1 more\. "
    ):
        taken(SGD(a_model().named_parameters(), lr=0.1), model)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: torch.optim.LBFGS(m.parameters()), r"^optim_type: LBFGS\.step needs a closure"),
        (
            lambda m: SGD(m.parameters(), lr=0.0),
            r"^optimizer: it was built with lr=0; build it with the peak learning rate",
        ),
        (
            lambda m: SGD([p.requires_grad_(False) for p in m.parameters()], lr=0.1),
            r"^the optimizer has no trainable parameter: it holds 6, none",
        ),
    ],
)
def test_R17_an_optimizer_that_cannot_be_driven_is_refused(make: Any, message: str) -> None:
    model = a_model()
    with pytest.raises(OptimSchedulerError, match=message):
        taken(make(model), model)


def test_from_optimizer_takes_an_optimizer() -> None:
    message = (
        r"^from_optimizer takes a torch.optim.Optimizer first, then the model; the first is <class .*AdamW"
    )
    with pytest.raises(ConfigError, match=message):
        OptimScheduler.from_optimizer(AdamW, a_model())  # type: ignore[arg-type]
    model = a_model()
    with pytest.raises(
        ConfigError, match=r"^OptimScheduler takes no 'acum_grad'\. Did you mean 'accum_grad'"
    ):
        taken(adamw(model), model, acum_grad=2)

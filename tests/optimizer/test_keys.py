"""R16: rules of `param_groups` with keys that only the optimizer's class knows."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler import ConfigError, OptimScheduler
from optimscheduler.optimizer.keys import group_keys, parameters_name
from tests.cases_optimizers import FromSource, GroupsOnly, TwoInOne


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def data(count: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(6)
    return [torch.randn(5, 4, generator=g, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize(
    ("optimizer_class", "hidden"),
    [
        (TwoInOne, ["algorithm", "rank"]),  # neither "momentum", which it keeps, nor "sign", a value
        (GroupsOnly, ["betas", "lr", "use_sign"]),
        (type("Heir", (TwoInOne,), {}), ["algorithm", "rank"]),
        (torch.optim.AdamW, []),
        (torch.optim.Muon, []),
    ],
)
def test_R16_what_a_class_reads_from_its_groups_is_a_key(
    optimizer_class: type[Optimizer], hidden: list[str]
) -> None:
    signature = inspect.signature(optimizer_class).parameters
    assert [key for key in group_keys(optimizer_class) if key not in signature] == hidden


def test_R16_without_source_every_word_of_the_code_may_be_a_key() -> None:
    assert {"lr", "hidden_key"} <= set(group_keys(FromSource))
    assert not {"params", "hiden_key"} & set(group_keys(FromSource))


def test_what_takes_the_groups_may_have_another_name() -> None:
    assert [parameters_name(c) for c in (TwoInOne, GroupsOnly)] == ["params", "param_groups"]


def plain(model: nn.Module, *rules: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {**rule, "params": [p for p in model.parameters() if (p.ndim == 2) is (rule["ndim"] == 2)]}
        for rule in rules
    ]


@pytest.mark.parametrize(
    ("optimizer_class", "rules", "conf"),
    [
        (
            TwoInOne,
            [{"ndim": 2, "rank": 2.0}, {"ndim": "<2", "algorithm": "sgd", "lr": 0.05}],
            {"lr": 0.01, "mu": 0.8},
        ),
        (
            GroupsOnly,
            [{"ndim": 2, "use_sign": True}, {"ndim": "<2", "use_sign": False, "lr": 0.05}],
            {"lr": 0.01},
        ),
        (FromSource, [{"ndim": 2, "hidden_key": 0.5}, {"ndim": "<2", "lr": 0.05}], {"lr": 0.01}),
    ],
)
def test_R16_R34_several_algorithms_in_one_class_are_trained_and_resumed(
    optimizer_class: type[Optimizer], rules: list[dict[str, Any]], conf: dict[str, Any]
) -> None:
    """A falling schedule over all groups, against the class in a plain loop; resumed after five updates."""
    model, twin = net(), net()
    described = {"optim_type": optimizer_class, "optim_conf": conf, "param_groups": rules}
    described |= {"schedule": "Linear(steps=12)", "use_amp": False}
    optim = OptimScheduler(model=model, **described)
    groups = plain(twin, *rules)
    for group in groups:
        del group["ndim"]
        group.setdefault("lr", conf["lr"])
    optimizer = optimizer_class(
        groups, **{k: v for k, v in conf.items() if optimizer_class is not GroupsOnly}
    )
    bases = [group["lr"] for group in optimizer.param_groups]
    for n, x in enumerate(data(9)):
        if n == 5:
            state = copy.deepcopy(optim.state_dict())
            model = copy.deepcopy(model)
            optim = OptimScheduler(model=model, **described)
            optim.load_state_dict(state)
        optim.step(model(x).square().mean())
        twin(x).square().mean().backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        for group, base in zip(optimizer.param_groups, bases, strict=True):
            group["lr"] = base * (1 - n / 12)
        optimizer.step()
        optimizer.zero_grad()
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


def test_parameters_that_an_optimizer_sorts_keep_their_names() -> None:
    """The largest shape comes first there: (8, 4), then (3, 8); the model has them the other way round."""
    model = nn.Sequential(
        nn.Linear(8, 3, bias=False), nn.Linear(3, 2, bias=False), nn.Linear(2, 9, bias=False)
    )
    optim = OptimScheduler(
        GroupsOnly, {"lr": 0.1}, model, use_amp=False, param_groups=[{"ndim": 2, "use_sign": True}]
    )
    optim.step(model(torch.randn(4, 8)).square().mean())
    by_name = optim.state_dict()["optimizer"]["state"]
    assert {name: state["average"].shape for name, state in by_name.items()} == {
        name: p.shape for name, p in model.named_parameters()
    }


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"algoritm": "sgd"},
            "param_groups: unknown key 'algoritm'. Did you mean 'algorithm'? Known: algorith",
        ),
        ({"momentum": 0.9}, "param_groups: unknown key 'momentum'. "),
        ({"mu": -1}, "param_groups: the rule 'ndim ==2': TwoInOne refuses this: Invalid mu: -1"),
        ({"step": 3}, "param_groups: unknown key 'step'. "),
    ],
)
def test_R16_what_the_class_does_not_read_is_refused(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OptimScheduler(TwoInOne, {"lr": 0.1}, net(), param_groups=[{"ndim": 2, **rule}])
    assert str(caught.value).startswith(message)


def test_a_class_that_needs_its_key_in_every_group_says_so() -> None:
    with pytest.raises(ConfigError, match=r"^optim_conf: GroupsOnly refuses this: AssertionError: assert"):
        OptimScheduler(GroupsOnly, {"lr": 0.1}, net(), param_groups=[{"ndim": 2, "use_sign": True}])
    with pytest.raises(ConfigError, match="GroupsOnly needs an lr, which is missing"):
        OptimScheduler(GroupsOnly, {}, net())


def test_where_a_class_takes_matrices_alone_the_error_says_how_to_choose_them() -> None:
    with pytest.raises(ConfigError) as caught:
        OptimScheduler("Muon", {"lr": 0.1}, net(), use_amp=False)
    assert str(caught.value).endswith(
        "It takes parameters with 2 dimensions: write updated_modules: {ndim: 2}, and give the others to "
        "another OptimScheduler"
    )

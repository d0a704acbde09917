"""R16: the rules of `param_groups`, as a configuration holds them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from optimscheduler.errors import ConfigError
from optimscheduler.optimizer.keys import group_keys
from optimscheduler.parameters.group_rules import GroupRule, read_rules
from optimscheduler.parameters.selection import pattern

ALLOWED = group_keys(torch.optim.AdamW)


@pytest.mark.parametrize(
    ("text", "fits", "fits_not"),
    [
        ("encoder", ["encoder", "encoder.0.bias"], ["encoders", "my.encoder"]),
        ("a.b", ["a.b", "a.b.c"], ["axb", "a"]),
        ("*.bias", ["bias.bias", "a.b.bias"], ["bias", "a.biases"]),
        ("*.a.*.w", ["m.a.b.w", "a.a.a.w.x", "m.a.a.w"], ["a.b.w", "m.a.w", "m.a.b.v"]),
        ("a**#", ["a1", "ab.12.c"], ["a", "a.b"]),
        ("layers.#", ["layers.0", "layers.11.norm"], ["layers", "layers.x", "layers.-1"]),
        ("a+", ["a+", "a+.b"], ["aa"]),  # no other sign means anything
    ],
)
def test_R14_a_pattern_is_a_name_with_stars_and_numbers(
    text: str, fits: list[str], fits_not: list[str]
) -> None:
    assert all(map(pattern(text).fullmatch, fits))
    assert not any(map(pattern(text).fullmatch, fits_not))


def test_R14_a_pattern_of_many_stars_takes_no_longer_than_others() -> None:
    name = "decoder." + "a" * 200 + ".weight"
    assert pattern("*a" * 60 + "*").fullmatch(name)
    assert not pattern("*a" * 60 + "b").fullmatch(name)  # would not end, if every split were tried


def test_R16_a_rule_holds_what_was_written() -> None:
    written = {"name": ["a.#", "b"], "ndim": 2, "weight_decay": 0, "lr": 0.5}
    assert read_rules([written, {"ndim": "<2"}], ALLOWED) == [
        GroupRule(name=("a.#", "b"), ndim="==2", settings={"weight_decay": 0, "lr": 0.5}),
        GroupRule(ndim="<2"),
    ]
    assert written == {"name": ["a.#", "b"], "ndim": 2, "weight_decay": 0, "lr": 0.5}


def test_R16_a_rule_holds_schedules_of_its_own_as_they_were_written() -> None:
    both = {"name": "a", "schedule": "Constant()", "schedules": {"weight_decay": {"type": "Constant"}}}
    alone = {"name": "a", "schedules": {"lr": "Constant()"}}
    none = {"name": "a", "schedule": None, "schedules": None}
    rules = read_rules([both, alone, none], ALLOWED)
    assert [rule.schedules for rule in rules] == [
        {"lr": "Constant()", "weight_decay": {"type": "Constant"}},
        {"lr": "Constant()"},
        {},
    ]
    assert [rule.settings for rule in rules] == [{}, {}, {}], "they are no settings of the optimizer"


def test_R16_no_rules_are_none() -> None:
    assert read_rules(None, ALLOWED) == read_rules([], ALLOWED) == []


def test_R16_a_rule_gives_the_number_of_the_layer() -> None:
    rule = GroupRule(name=("enc.#", "dec"), ndim=">=2")
    assert rule.layer_of("enc.3.weight", 2) == 3
    assert rule.layer_of("dec.weight", 2) == 0
    assert rule.layer_of("enc.3.bias", 1) is None
    assert rule.layer_of("other", 2) is None
    assert rule.label == "enc.# dec ndim >=2"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("norm", "param_groups: a rule is a mapping like {ndim: '<2', weight_decay: 0}, got 'norm'"),
        (None, "param_groups: a rule is a mapping like {ndim: '<2', weight_decay: 0}, got None"),
        ({"weight_decay": 0}, "param_groups: a rule needs a 'name' or an 'ndim'"),
        (
            {"ndim": "<2", "weight_deca": 0},
            "param_groups: unknown key 'weight_deca'. Did you mean 'weight_decay'? Known: amsgrad, betas, "
            "eps, layer_decay, lr, maximize, name, ndim, schedule, schedules, weight_decay.",
        ),
        (
            {"ndim": "<2", "schedul": "Constant()"},
            "param_groups: unknown key 'schedul'. Did you mean 'schedule'? Known: amsgrad, betas, "
            "eps, layer_decay, lr, maximize, name, ndim, schedule, schedules, weight_decay.",
        ),
        *(
            (
                {"ndim": "<2", "schedules": schedules},
                "param_groups: schedules must be a mapping like {weight_decay: 'Linear(steps=100)'}, got "
                f"{schedules!r}",
            )
            for schedules in (["Constant()"], "Constant()", "", 0)
        ),
        (
            {"ndim": "<2", "schedule": "Constant()", "schedules": {"lr": "Constant(0.5)"}},
            "param_groups: the schedule of lr is given twice, as 'schedule' and in 'schedules'",
        ),
        ({"ndim": "<2", "lr": "fast"}, "param_groups: lr must be a finite number >= 0, got 'fast'"),
        ({"ndim": "<2", "lr": -1}, "param_groups: lr must be a finite number >= 0, got -1"),
        ({"ndim": "small"}, "param_groups: ndim must be like 1, '<2' or '>=2', got 'small'"),
        ({"ndim": True}, "param_groups: ndim must be like 1, '<2' or '>=2', got 'True'"),
        ({"ndim": 1.5}, "param_groups: ndim must be like 1, '<2' or '>=2', got '1.5'"),
        ({"name": ""}, "param_groups: name must be a pattern or a list of patterns, got ('',)"),
        ({"name": [0]}, "param_groups: name must be a pattern or a list of patterns, got (0,)"),
        ({"name": 0}, "param_groups: name must be a pattern or a list of patterns, got (0,)"),
        ({"name": None}, "param_groups: name must be a pattern or a list of patterns, got (None,)"),
        (
            {"name": "a.#", "layer_decay": 1.5},
            "param_groups: layer_decay must be a finite number <= 1 and > 0, got 1.5",
        ),
        (
            {"name": "a", "layer_decay": 0.5},
            "param_groups: layer_decay needs a name with one '#' for the layer's number",
        ),
        (
            {"name": "a.#.#", "layer_decay": 0.5},
            "param_groups: layer_decay needs a name with one '#' for the layer's number",
        ),
        (
            {"ndim": 1, "layer_decay": 0.5},
            "param_groups: layer_decay needs a name with one '#' for the layer's number",
        ),
    ],
)
def test_R16_a_malformed_rule_says_what_is_wrong(rule: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_rules([rule], ALLOWED)
    assert str(caught.value) == message

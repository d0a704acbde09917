"""R14 to R16: which parameters, under which names, in which groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from optimscheduler.errors import ParameterError
from optimscheduler.optimizer.keys import group_keys
from optimscheduler.parameters.group_rules import read_rules
from optimscheduler.parameters.owned import OwnedParameters, canonical, own, select

ALLOWED = group_keys(torch.optim.AdamW)


class Net(nn.Module):
    """Three layers in an encoder, a head tied to the embedding, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(3, 3) for _ in range(3))})
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 5, bias=True)
        self.head.weight = self.embed.weight


LAYERS = [f"encoder.layers.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
EVERYTHING = ["embed.weight", *LAYERS, "norm.weight", "norm.bias", "head.bias"]


class Wrapper(nn.Module):
    """What DDP, compile and checkpoint wrappers do to names."""

    def __init__(self, name: str, inner: nn.Module) -> None:
        super().__init__()
        self.add_module(name, inner)


def chosen(*names: str, exclude: tuple[str, ...] = (), model: nn.Module | None = None) -> list[str]:
    return list(select(model or Net(), names or None, exclude))


def groups(*rules: dict[str, Any], base_lr: float = 1.0) -> dict[str, list[str]]:
    owned = own(Net(), rules=read_rules(rules, ALLOWED), base_lr=base_lr)
    return {group.label: list(group.parameters) for group in owned.groups}


@pytest.mark.parametrize(
    "name",
    [
        "encoder.weight",
        "module.encoder.weight",
        "_orig_mod.encoder.weight",
        "encoder._checkpoint_wrapped_module.weight",
        "module._orig_mod.encoder._fsdp_wrapped_module.weight",
        "_forward_module.encoder.weight",
        "_forward_module.module.encoder.weight",
        "_original_module.encoder.weight",
    ],
)
def test_R33_wrappers_leave_no_trace_in_a_name(name: str) -> None:
    assert canonical(name) == "encoder.weight"


def test_R33_a_model_that_a_wrapper_holds_twice_has_every_name_once() -> None:
    """As Lightning Fabric's does: what it calls, and what the user gave it."""
    inner = Net()
    fabric = Wrapper("_forward_module", Wrapper("module", inner))
    fabric.add_module("_original_module", inner)
    assert chosen(model=fabric) == EVERYTHING
    assert own(fabric).whole_model


def test_R14_without_names_it_is_the_whole_model_each_parameter_once() -> None:
    model = Net()
    assert chosen() == EVERYTHING
    owned = own(model)
    assert owned.whole_model
    assert list(owned.by_name) == EVERYTHING
    assert owned.by_name["norm.bias"] is model.norm.bias
    assert [group.label for group in owned.groups] == ["all"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["norm"], ["norm.weight", "norm.bias"]),
        (["norm", "embed"], ["norm.weight", "norm.bias", "embed.weight"]),  # as they are listed
        (["norm", "*.bias"], ["norm.weight", "norm.bias", *LAYERS[1::2], "head.bias"]),  # and once
        (["encoder"], LAYERS),
        (["encoder.layers.1"], LAYERS[2:4]),
        (["encoder.layers.1.bias"], LAYERS[3:4]),
        (["encoder.*.bias"], LAYERS[1::2]),
        (["encoder.layers.#"], LAYERS),
        (["head"], ["embed.weight", "head.bias"]),  # tied: known under its first name
    ],
)
def test_R14_names_reach_as_deep_as_they_say(names: list[str], expected: list[str]) -> None:
    assert chosen(*names) == expected
    assert not own(Net(), names).whole_model


def test_R14_a_name_is_not_the_beginning_of_another() -> None:
    model = nn.ModuleDict({"enc": nn.Linear(1, 1), "encoder": nn.Linear(1, 1)})
    assert chosen("enc", model=model) == ["enc.weight", "enc.bias"]
    model = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(1, 1)}), "axb": nn.Linear(1, 1)})
    assert chosen("a.b", model=model) == ["a.b.weight", "a.b.bias"]


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod", "_checkpoint_wrapped_module"])
def test_R14_a_wrapped_model_has_the_same_names(wrapper: str) -> None:
    model = Wrapper(wrapper, Net())
    assert chosen(model=model) == EVERYTHING
    assert chosen("encoder.layers.2", model=model) == LAYERS[4:]


def test_R14_exclude_takes_out_again_and_by_every_name_of_a_tied_weight() -> None:
    assert chosen(exclude=("encoder", "norm.weight")) == ["embed.weight", "norm.bias", "head.bias"]
    assert chosen("encoder", exclude=("*.bias",)) == LAYERS[::2]
    assert chosen(exclude=("head",)) == [*LAYERS, "norm.weight", "norm.bias"]


@pytest.mark.parametrize(
    ("names", "exclude", "message"),
    [
        (
            ["encodr"],
            (),
            r"^updated_modules: 'encodr' matches no parameter. Did you mean 'encoder'\? Known: ",
        ),
        (["encoder.layer"], (), r"^updated_modules: 'encoder.layer' .* Did you mean 'encoder.layers'\? "),
        (["encoder", "x"], (), r"^updated_modules: 'x' matches no parameter. Known: "),
        (["module.encoder"], (), r"^updated_modules: 'module.encoder' .* Did you mean 'encoder"),
        (None, ("nrom",), r"^exclude: 'nrom' matches no parameter. Did you mean 'norm'\? Known: "),
        (
            ["norm"],
            ("norm",),
            r"^updated_modules=\['norm'\] has no trainable parameter: 0 selected, none with",
        ),
        (None, ("*",), r"^the model has no trainable parameter: 0 selected, none with requires_grad=True$"),
    ],
)
def test_R14_no_match_is_an_error_with_the_nearest_names(
    names: list[str] | None, exclude: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        select(Net(), names, exclude)


def test_R14_a_model_without_trainable_parameters_is_an_error() -> None:
    message = r"^the model has no trainable parameter: 10 selected, none with requires_grad=True$"
    with pytest.raises(ParameterError, match=message):
        own(Net().requires_grad_(False))
    with pytest.raises(ParameterError, match=r"^the model has no trainable parameter: 0 selected"):
        own(nn.ReLU())


def test_R14_frozen_parameters_may_be_among_the_chosen() -> None:
    model = Net()
    model.norm.weight.requires_grad_(False)
    assert chosen("norm", model=model) == ["norm.weight", "norm.bias"]


def test_R15_no_parameter_is_lost_where_a_users_own_module_is_called_module() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2, bias=False)
            self.weight = nn.Parameter(torch.ones(2))

    model = Scaled()
    owned = own(model)
    assert owned.by_name == {"weight": model.weight, "module.weight": model.module.weight}
    assert owned.whole_model


# ---- groups ----


def test_R16_no_decay_for_norms_and_biases_is_one_line() -> None:
    assert groups({"ndim": "<2", "weight_decay": 0}) == {
        "rest": ["embed.weight", *LAYERS[::2]],
        "ndim <2": [*LAYERS[1::2], "norm.weight", "norm.bias", "head.bias"],
    }


@pytest.mark.parametrize(
    ("ndim", "count"),
    [("<2", 6), ("< 2", 6), ("<=1", 6), (1, 6), ("==1", 6), (">1", 4), (">=2", 4), (2, 4), ("<3", 10)],
)
def test_R16_a_number_of_dimensions_is_compared(ndim: object, count: int) -> None:
    (matched,) = [
        names for label, names in groups({"ndim": ndim, "weight_decay": 0}).items() if label != "rest"
    ]
    assert len(matched) == count  # 4 matrices: embedding and three layers; 6 vectors


def test_R16_name_and_ndim_must_both_fit_and_a_list_of_names_is_any_of_them() -> None:
    assert groups({"name": ["encoder", "head"], "ndim": 1, "lr": 0.1}) == {
        "rest": ["embed.weight", *LAYERS[::2], "norm.weight", "norm.bias"],
        "encoder head ndim ==1": [*LAYERS[1::2], "head.bias"],
    }


def test_R16_the_first_match_wins() -> None:
    found = groups({"name": "encoder.layers.0", "lr": 0.1}, {"name": "encoder", "lr": 0.2}, {"ndim": 1})
    assert found == {
        "rest": ["embed.weight"],
        "encoder.layers.0": LAYERS[:2],
        "encoder": LAYERS[2:],
        "ndim ==1": ["norm.weight", "norm.bias", "head.bias"],
    }


def test_R16_without_a_rest_there_is_no_group_for_it() -> None:
    assert list(groups({"name": "encoder"}, {"name": "*"})) == ["encoder", "*"]


def test_R16_a_rule_without_a_match_is_an_error() -> None:
    with pytest.raises(ParameterError) as caught:
        groups({"name": "encoder"}, {"name": "encoder.layers.0.weight", "lr": 0.1})
    assert str(caught.value).startswith(
        "param_groups: the rule 'encoder.layers.0.weight' matches no parameter that an earlier rule left. "
    )
    with pytest.raises(ParameterError, match=r"the rule 'nrm' matches .* Did you mean 'norm"):
        groups({"name": "nrm"})


def settings(owned: OwnedParameters) -> dict[str, dict[str, Any]]:
    return {group.label: group.settings for group in owned.groups}


def test_R16_layer_wise_decay_is_one_line() -> None:
    rule = {"name": "encoder.layers.#", "layer_decay": 0.5, "weight_decay": 0.1}
    owned = own(Net(), rules=read_rules([rule], ALLOWED), base_lr=8.0)
    assert settings(owned) == {  # 8 x 0.5 ** (3 - 1 - i)
        "rest": {},
        "encoder.layers.0": {"weight_decay": 0.1, "lr": 2.0},
        "encoder.layers.1": {"weight_decay": 0.1, "lr": 4.0},
        "encoder.layers.2": {"weight_decay": 0.1, "lr": 8.0},
    }
    assert list(owned.groups[2].parameters) == LAYERS[2:4]


def test_R16_layer_wise_decay_starts_from_the_rules_own_rate() -> None:
    rules = read_rules([{"name": "encoder.layers.#", "layer_decay": 0.5, "lr": 4.0}], ALLOWED)
    assert [s.get("lr") for s in settings(own(Net(), rules=rules)).values()] == [None, 1.0, 2.0, 4.0]


def test_R16_the_highest_layer_counts_even_if_an_earlier_rule_took_it() -> None:
    rules = read_rules(
        [{"name": "encoder.layers.2"}, {"name": "encoder.layers.#", "layer_decay": 0.5}], ALLOWED
    )
    found = settings(own(Net(), rules=rules, base_lr=4.0))
    assert [s.get("lr") for s in found.values()] == [None, None, 1.0, 2.0]

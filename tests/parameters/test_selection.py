"""R14: parameters chosen by number of dimensions too, alone or together with names."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from optimscheduler import ConfigError, OptimScheduler, ParameterError, build_optim_sches
from optimscheduler.parameters.owned import select
from optimscheduler.parameters.selection import fits_ndim, read_selector


class Net(nn.Module):
    """An embedding, a convolution and a matrix in blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.blocks = nn.ModuleList([nn.Conv1d(3, 3, 1), nn.Linear(3, 3)])
        self.head = nn.Linear(3, 5)


def chosen(*updated: Any, exclude: Any = ()) -> list[str]:
    return list(select(Net(), updated or None, exclude))


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ({"ndim": 2}, ["embed.weight", "blocks.1.weight", "head.weight"]),
        ({"ndim": ">2"}, ["blocks.0.weight"]),
        ({"name": "blocks", "ndim": ">=2"}, ["blocks.0.weight", "blocks.1.weight"]),
        ({"name": "blocks"}, ["blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias"]),
        ({"name": ["blocks.1", "head"], "ndim": 1}, ["blocks.1.bias", "head.bias"]),
        ({"name": "*.bias"}, ["blocks.0.bias", "blocks.1.bias", "head.bias"]),
    ],
)
def test_R14_dimensions_choose_beside_names(written: Any, names: list[str]) -> None:
    assert chosen(written) == names
    left = chosen(exclude=[written])
    assert sorted(left + names) == sorted(chosen())


def test_R14_selectors_and_names_add_up() -> None:
    assert chosen({"name": "blocks", "ndim": 2}, "head") == ["blocks.1.weight", "head.weight", "head.bias"]
    assert chosen("blocks", "head", exclude=[{"ndim": "<2"}, "head"]) == [
        "blocks.0.weight",
        "blocks.1.weight",
    ]


def test_R14_one_selector_needs_no_list_and_stays_in_the_state_as_it_was_written() -> None:
    written = {"name": "blocks", "ndim": 2}
    conf = {"optim_type": "SGD", "optim_conf": {"lr": 0.1}, "use_amp": False}
    model = Net()
    optims = build_optim_sches(
        model,
        {
            "matrices": {"conf": {**conf, "updated_modules": written}},
            "rest": {"conf": {**conf, "exclude": written}},
        },
    )
    assert list(optims["matrices"].owned.by_name) == ["blocks.1.weight"]
    assert len(optims["rest"].owned.by_name) == 6
    state = optims.state_dict()
    assert state["matrices"]["config"]["updated_modules"] == [written]
    optims.load_state_dict(state)
    other = OptimScheduler(model=model, **conf, exclude=written)
    other.load_state_dict(state["matrices"], on_mismatch="checkpoint")
    assert list(other.owned.by_name) == ["blocks.1.weight"]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({}, "exclude must be a name or a list of names, or mappings like {name: blocks, ndim: 2}, got {}"),
        (3, "exclude must be a name or a list of names, or mappings like {name: blocks, ndim: 2}, got 3"),
        ({"ndims": 2}, "exclude: unknown key 'ndims'. Did you mean 'ndim'? Known: name, ndim."),
        ({"ndim": "two"}, "exclude: ndim must be like 1, '<2' or '>=2', got 'two'"),
        ({"ndim": None}, "exclude: ndim must be like 1, '<2' or '>=2', got 'None'"),
        ({"ndim": True}, "exclude: ndim must be like 1, '<2' or '>=2', got 'True'"),
        ({"name": 3}, "exclude: name must be a pattern or a list of patterns, got 3"),
        ({"name": []}, "exclude: name must be a pattern or a list of patterns, got []"),
    ],
)
def test_a_malformed_selector_says_what_is_allowed(written: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OptimScheduler("SGD", {"lr": 0.1}, Net(), exclude=[written])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"name": "blocks", "ndim": 4}, "Those of that name have 1, 2, 3 dimensions."),
        ({"ndim": 4}, "Those of that name have 1, 2, 3 dimensions."),
        ({"name": "block", "ndim": 2}, "Did you mean 'blocks'?"),
    ],
)
def test_a_selector_that_matches_nothing_says_what_there_is(written: Any, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        chosen(written)
    assert str(caught.value).startswith(f"updated_modules: {written!r} matches no parameter. {message}")


@pytest.mark.parametrize(
    ("ndim", "fitting"), [("==2", [2]), ("<2", [0, 1]), (">=2", [2, 3]), ("> 2", [3]), ("<=1", [0, 1])]
)
def test_comparisons(ndim: str, fitting: list[int]) -> None:
    assert [d for d in range(4) if fits_ndim(ndim, d)] == fitting


def test_any_name_of_a_tied_parameter_will_do() -> None:
    selector = read_selector("exclude", {"name": "head", "ndim": 2})
    assert selector.fits(["embed.weight", "head.weight"], 2)
    assert not selector.fits(["embed.weight", "head.weight"], 1)

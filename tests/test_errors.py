"""The tree of errors, caught by its root and by the builtin that users expect; and how messages end."""

from __future__ import annotations

import pickle

import pytest

from optimscheduler import errors
from optimscheduler.errors import LossNotFound, OptimSchedulerError, nearest

BUILTINS = {
    "CheckpointError": RuntimeError,
    "ConfigError": ValueError,
    "GraphError": RuntimeError,
    "LossNotFound": KeyError,
    "NonFiniteError": FloatingPointError,
    "ParameterError": ValueError,
    "RankError": RuntimeError,
}


def test_a_wrong_selection_of_parameters_is_a_wrong_setting() -> None:
    assert issubclass(errors.ParameterError, errors.ConfigError)


def test_the_tree_is_complete() -> None:
    assert {name for name in errors.__all__ if name[0].isupper()} == {*BUILTINS, "OptimSchedulerError"}


@pytest.mark.parametrize(("name", "builtin"), BUILTINS.items())
def test_every_error_is_caught_by_the_root_and_by_its_builtin(name: str, builtin: type[Exception]) -> None:
    for expected in (OptimSchedulerError, builtin):
        with pytest.raises(expected) as caught:
            raise getattr(errors, name)("what happened")
        assert str(caught.value) == "what happened"


def test_an_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(LossNotFound("no loss 'x'")))
    assert type(error) is LossNotFound
    assert str(error) == "no loss 'x'"  # KeyError alone would print the quotes around it


def test_nearest_asks_only_where_something_is_near() -> None:
    assert nearest("warmupsteps", ["warmup_steps", "lr"]) == (
        "Did you mean 'warmup_steps'? Known: lr, warmup_steps."
    )
    assert nearest("zzz", ["lr", "eps"]) == "Known: eps, lr."
    assert nearest("lr", []) == "There are none."
    assert nearest(3, ["lr", "lr"]) == "Known: lr."


def test_nearest_counts_what_it_does_not_list_and_always_lists_the_near_one() -> None:
    names = [f"layer{i:02d}" for i in range(20)] + ["zebra"]
    message = nearest("zebr", names)
    assert message.startswith("Did you mean 'zebra'? Known: zebra, layer00, layer01, ")
    assert message.endswith(", layer10, and 9 more.")  # 12 listed of 21

"""Settings changed on the command line."""

from __future__ import annotations

import pytest

from optimscheduler.errors import ConfigError
from optimscheduler.run.config.overrides import apply_overrides

GIVEN = {"seed": 1, "a": {"list": [{"lr": 1.0}, 2], "empty": None}}


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("seed=2", {"seed": 2, "a": {"list": [{"lr": 1.0}, 2], "empty": None}}),
        ("a.list.0.lr=3e-4", {"seed": 1, "a": {"list": [{"lr": 0.0003}, 2], "empty": None}}),
        ("a.list.1=[x, y]", {"seed": 1, "a": {"list": [{"lr": 1.0}, ["x", "y"]], "empty": None}}),
        ("a.empty.b=c=d", {"seed": 1, "a": {"list": [{"lr": 1.0}, 2], "empty": {"b": "c=d"}}}),
        ("new.deep={k: null}", {**GIVEN, "new": {"deep": {"k": None}}}),
        ("a=", {"seed": 1, "a": None}),
        ("seed=Warmup(steps=3, then=Constant())", {**GIVEN, "seed": "Warmup(steps=3, then=Constant())"}),
    ],
)
def test_a_dotted_path_gets_a_value_written_as_yaml(override: str, changed: object) -> None:
    assert apply_overrides(GIVEN, [override]) == changed
    assert GIVEN == {"seed": 1, "a": {"list": [{"lr": 1.0}, 2], "empty": None}}  # a copy was changed


def test_later_ones_win() -> None:
    assert apply_overrides({}, ["a.b=1", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed", "'seed' is no override; write path.to.key=value"),
        ("=3", "'=3' is no override"),
        ("seed = 3", "'seed = 3' is no override; write path.to.key=value, without spaces around the =, for"),
        ("=", "'=' is no override; write path.to.key=value, without spaces"),
        ("a..b=3", "'a..b=3' is no override"),
        ("seed.b=3", "seed is 1, there is nothing inside"),
        ("a.list.1.b=3", "a.list.1 is 2, there is nothing inside"),
        ("a.list.2=3", "'2' is no place in a list of 2; the first is 0"),
        ("a.list.x=3", "'x' is no place in a list of 2"),
        ("seed={a", "the override 'seed={a' line 1"),
    ],
)
def test_what_cannot_be_put_anywhere_is_told(override: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        apply_overrides(GIVEN, [override])
    assert says in str(error.value)

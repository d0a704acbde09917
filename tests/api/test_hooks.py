"""R38: what a subclass's `sche_init` takes, checked when the class is defined and when it is built."""

from __future__ import annotations

from typing import Any

import pytest

from optimscheduler import OptimScheduler
from optimscheduler.api.hooks import check_collisions, check_sche_conf
from optimscheduler.errors import ConfigError

TAKEN = ("accum_grad", "lr_clock")


def strict(self: object, steps: int, floor: float = 0.0) -> None: ...


def lenient(self: object, steps: int, *rest: Any, **others: Any) -> None: ...


def test_R38_what_the_hook_takes_is_fine() -> None:
    check_sche_conf("Half", strict, {"steps": 3}, TAKEN)
    check_sche_conf("Half", strict, {"steps": 3, "floor": 0.1}, TAKEN)
    check_sche_conf("Half", lenient, {"steps": 3, "anything": 1}, TAKEN)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        (
            {"stps": 3},
            "Half takes no 'stps'. Did you mean 'steps'? Known: accum_grad, floor, lr_clock, steps.",
        ),
        (
            {"steps": 3, "acum_grad": 2},
            "Half takes no 'acum_grad'. Did you mean 'accum_grad'? "
            "Known: accum_grad, floor, lr_clock, steps.",
        ),
        ({"steps": 3, "self": 2}, "Half takes no 'self'. Known: accum_grad, floor, lr_clock, steps."),
        ({}, "Half needs 'steps', which is missing"),
    ],
)
def test_R38_an_unknown_or_missing_key_names_class_and_nearest(conf: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_sche_conf("Half", strict, conf, TAKEN)
    assert str(caught.value) == message


def test_R38_stars_are_no_arguments_of_their_own() -> None:
    with pytest.raises(ConfigError, match=r"^Half needs 'steps', which is missing$"):
        check_sche_conf("Half", lenient, {"others": 1, "rest": 2}, TAKEN)


def test_R38_a_collision_is_found() -> None:
    check_collisions("Half", strict, TAKEN)
    with pytest.raises(ConfigError) as caught:
        check_collisions("Half", strict, (*TAKEN, "floor"))
    assert str(caught.value) == ("Half.sche_init: 'floor' is an argument of OptimScheduler; use another name")


@pytest.mark.parametrize("name", ["guard", "schedule", "max_skips", "accum_grad", "exclude", "model"])
def test_R38_a_collision_is_an_error_when_the_class_is_defined(name: str) -> None:
    body: dict[str, Any] = {}
    exec(f"def sche_init(self, {name}=None): pass", body)
    with pytest.raises(ConfigError) as caught:
        type("Mine", (OptimScheduler,), {"sche_init": body["sche_init"]})
    assert str(caught.value) == (
        f"Mine.sche_init: {name!r} is an argument of OptimScheduler; use another name"
    )


def test_R38_a_grandchild_is_checked_as_well() -> None:
    class Child(OptimScheduler):
        def sche_init(self, steps: int = 1) -> None:
            """Fine."""

    with pytest.raises(ConfigError, match=r"^Grandchild.sche_init: 'guard' is an argument"):

        class Grandchild(Child):
            def sche_init(self, guard: int = 1) -> None:
                """Not fine."""

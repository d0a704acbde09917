"""Dotted names and checked calls: everything is checked before anything is called."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimscheduler.errors import ConfigError
from optimscheduler.lookup import check_call, class_at, construct, function_at, object_at
from optimscheduler.schedules import SCHEDULES, Cosine, Schedule

WHERE = "train_cfg.model.type"


class Base:
    def __init__(self, lr: float, *, steps: int = 3, **_: object) -> None:
        self.lr, self.steps = lr, steps


class Strict:
    def __init__(self, lr: float, *, steps: int = 3) -> None:
        if steps < 0:
            raise ValueError("steps are counted from 0")
        if steps == 0:
            raise ConfigError("Strict: steps must not be 0")
        self.lr, self.steps = lr, steps


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


def test_object_at_imports_what_the_path_names() -> None:
    assert object_at("math.sqrt", WHERE) is math.sqrt
    assert object_at("optimscheduler.schedules.Cosine", WHERE) is Cosine


@pytest.mark.parametrize(
    "path", ["sqrt", "", ".", ".sqrt", "math.", "math..sqrt", "math sqrt", "os.1", "a-b.c"]
)
def test_object_at_refuses_what_is_no_dotted_path(path: str) -> None:
    said = message_of(lambda: object_at(path, WHERE))
    assert said == f"{WHERE}: {path!r} is not a dotted path like 'package.module.Name'"


@pytest.mark.parametrize(
    ("path", "missing"),
    [("no_such_module.X", "no_such_module"), ("math.no.X", "math.no"), ("xml.no_such.part.X", "xml.no_such")],
)
def test_object_at_names_the_module_that_is_missing(path: str, missing: str) -> None:
    said = message_of(lambda: object_at(path, WHERE))
    assert said.startswith(f"{WHERE}: there is no module {missing!r} (wanted for {path!r}). Is it installed")


def test_object_at_names_the_nearest_member() -> None:
    said = message_of(lambda: object_at("math.sqr", WHERE))
    assert said.startswith(f"{WHERE}: module 'math' has no 'sqr'. Did you mean 'sqrt'? Known: sqrt, ")


def test_object_at_does_not_hide_what_is_missing_inside_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more_than_there_is.py").write_text("import not_installed_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    said = message_of(lambda: object_at("needs_more_than_there_is.X", WHERE))
    assert said == (
        f"{WHERE}: 'needs_more_than_there_is.X' cannot be imported: "
        "ModuleNotFoundError: No module named 'not_installed_at_all'"
    )


def test_object_at_says_what_else_a_module_does_when_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "divides_by_zero.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    said = message_of(lambda: object_at("divides_by_zero.X", WHERE))
    assert said.endswith("cannot be imported: ZeroDivisionError: division by zero")
    endless = "a." * 3000 + "X"  # a module in a module in a module: Python's stack does not reach so far
    assert message_of(lambda: object_at(endless, WHERE)).startswith(f"{WHERE}: 'a.a.a.")


def test_class_at_knows_short_names_and_paths() -> None:
    assert class_at("Cosine", Schedule, WHERE, SCHEDULES) is Cosine
    assert class_at("optimscheduler.schedules.Cosine", Schedule, WHERE, SCHEDULES) is Cosine
    assert class_at("optimscheduler.schedules.Cosine", (int, Schedule), WHERE) is Cosine


def test_class_at_refuses_with_what_is_needed() -> None:
    assert message_of(lambda: class_at("Cosin", Schedule, WHERE, {"Cosine": Cosine})) == (
        f"{WHERE}: there is no Schedule 'Cosin'. Did you mean 'Cosine'? Known: Cosine."
    )
    assert message_of(lambda: class_at("builtins.dict", Schedule, WHERE)) == (
        f"{WHERE}: 'builtins.dict' is of type dict, but needed here: Schedule"
    )
    assert message_of(lambda: class_at("math.sqrt", (Schedule, int), WHERE)) == (
        f"{WHERE}: 'math.sqrt' is of type builtin_function_or_method, but needed here: Schedule or int"
    )
    assert message_of(lambda: class_at("Cosine", Schedule, WHERE)) == (
        f"{WHERE}: 'Cosine' is not a dotted path like 'package.module.Name'"
    )
    not_text: Any = 3  # what a configuration may hold
    assert message_of(lambda: class_at(not_text, Schedule, WHERE)) == (
        f"{WHERE} must be the name of a Schedule, got 3"
    )


def of_two(step: int, length: int) -> float:
    return step / length


def of_one(step: int, length: int = 4) -> float:
    return step / length


def test_function_at_takes_somebodys_function_and_those_of_math() -> None:
    assert function_at("math.sqrt", WHERE) is math.sqrt
    assert function_at("tests.test_lookup.of_one", WHERE)(2) == 0.5


@pytest.mark.parametrize(
    "path",
    [
        *(
            "os._exit",
            "os.close",
            "os.abort",
            "builtins.print",
            "builtins.exit",
            "time.sleep",
        ),  # not in Python
        *("shutil.rmtree", "os.removedirs", "subprocess.getoutput", "code.interact"),  # in Python, its own
        *(
            "test.support.os_helper.rmtree",
            "tests.test_lookup.removes",
        ),  # not in the list, under another name
        *("subprocess.Popen", "fractions.Fraction", "tests.test_lookup.Base", "math.pi"),  # no functions
        *("math.factorial", "math.perm"),  # without an end at a late step
    ],
)
def test_function_at_refuses_what_would_be_called_and_may_not_be(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_lookup.removes", shutil.rmtree, raising=False)
    assert message_of(lambda: function_at(path, WHERE)) == (
        f"{WHERE}: '{path}' may not be called from here. Name a function of math, or one of one number that "
        "is written with def in a module beside the configuration or in a package"
    )


def test_function_at_refuses_a_function_of_more_than_the_step() -> None:
    assert message_of(lambda: function_at("tests.test_lookup.of_two", WHERE)) == (
        f"{WHERE}: 'tests.test_lookup.of_two' must take one number, the step: "
        "missing a required argument: 'length'"
    )


def test_check_call_takes_what_the_signature_takes() -> None:
    check_call(Strict, {"lr": 1, "steps": 2}, WHERE)
    check_call(Strict, {"steps": 2}, WHERE, "lr")  # the caller supplies lr itself
    check_call(Base, {"lr": 1, "anything": 2}, WHERE)  # **kwargs take the rest
    check_call(lambda *args: args, {}, WHERE)


def test_check_call_refuses_unknown_missing_and_supplied_keys() -> None:
    assert message_of(lambda: check_call(Strict, {"lr": 1, "step": 2}, WHERE)) == (
        f"{WHERE}: Strict takes no 'step'. Did you mean 'steps'? Known: lr, steps."
    )
    assert message_of(lambda: check_call(Strict, {"steps": 2}, WHERE)) == (
        f"{WHERE}: Strict needs 'lr', which is missing"
    )
    assert message_of(lambda: check_call(Strict, {"lr": 1}, WHERE, "lr")) == (
        f"{WHERE}: Strict takes no 'lr'. Known: steps."
    )
    assert message_of(lambda: check_call(Base, {"steps": 2}, WHERE)) == (
        f"{WHERE}: Base needs 'lr', which is missing"
    )


def test_construct_builds() -> None:
    built = construct(Strict, {"lr": 0.1, "steps": 2}, WHERE)
    assert (built.lr, built.steps) == (0.1, 2)


def test_construct_says_where_the_refused_value_stands() -> None:
    assert message_of(lambda: construct(Strict, {"lr": 1, "steps": 0}, WHERE)) == (
        f"{WHERE}: Strict: steps must not be 0"
    )
    assert message_of(lambda: construct(Strict, {"lr": 1, "steps": -1}, WHERE)) == (
        f"{WHERE}: Strict refuses this: steps are counted from 0"
    )
    assert message_of(lambda: construct(Strict, {"lr": 1, "steps": "3"}, WHERE)).startswith(
        f"{WHERE}: Strict refuses this: '<' not supported"
    )


def test_a_misspelt_short_name_with_a_dot_is_answered_with_the_short_name() -> None:
    with pytest.raises(ConfigError, match=r"there is no 'noam\.Noamlrr'\. Did you mean 'noam\.Noamlr'\?"):
        class_at("noam.Noamlrr", Schedule, WHERE, {"noam.Noamlr": Schedule, "exp.Exp": Schedule})


@pytest.mark.parametrize(
    "error", [KeyError("a"), OSError("no such file"), MemoryError("too much"), IndexError()]
)
def test_construct_says_of_what_kind_an_error_is_that_is_no_word_on_the_arguments(error: Exception) -> None:
    def fails() -> None:
        raise error

    said = message_of(lambda: construct(fails, {}, WHERE))
    assert said.endswith(f"fails refuses this: {type(error).__name__}: {error}")

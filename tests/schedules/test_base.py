"""What holds for every schedule because it is one: value, text, table, and no torch."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
import pickle
import re
import subprocess
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler import schedules as package
from optimscheduler.schedules import (
    SCHEDULES,
    Constant,
    Custom,
    FeedbackSchedule,
    Linear,
    Run,
    Schedule,
    Warmup,
)
from tests.cases import (
    BAD,
    CASES,
    HEARD,
    Alternating,
    Case,
    HalvedWhenWorse,
    Heard,
    feedback_schedules,
    schedules,
)


@pytest.mark.parametrize("case", [*CASES, *HEARD], ids=lambda case: case.written)
def test_the_repr_is_what_a_configuration_says(case: Case | Heard) -> None:
    assert repr(case.schedule) == case.written


def test_every_public_schedule_is_in_the_table_and_in_the_cases() -> None:
    public = {
        name
        for name in package.__all__
        if isinstance(found := getattr(package, name), type)
        and issubclass(found, Schedule | FeedbackSchedule)
        and not inspect.isabstract(found)
    }
    assert list(SCHEDULES) == sorted(public)
    assert all(cls.__name__ == name for name, cls in SCHEDULES.items())
    assert {type(case.schedule).__name__ for case in [*CASES, *HEARD]} >= public


@pytest.mark.parametrize(
    ("cls", "argument"),
    [
        pytest.param(cls, argument.name, id=f"{name}.{argument.name}")
        for name, cls in SCHEDULES.items()
        for argument in dataclasses.fields(cls)  # type: ignore[arg-type]  # each is a dataclass: see below
        if argument.init
    ],
)
def test_every_argument_has_a_row_of_what_it_refuses(cls: type, argument: str) -> None:
    place = re.compile(rf"{cls.__name__}: {argument}\b")
    assert any(place.match(message) for _, message in BAD)


@pytest.mark.parametrize("cls", SCHEDULES.values(), ids=SCHEDULES)
def test_every_schedule_is_a_frozen_slotted_documented_value(cls: type) -> None:
    schedule = next(case.schedule for case in [*CASES, *HEARD] if type(case.schedule) is cls)
    assert not hasattr(schedule, "__dict__")
    for argument in dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(schedule, argument.name, getattr(schedule, argument.name))
    for section in (
        "Args:",
        "Raises:",
        ">>> ",
        *(f"    {f.name}: " for f in dataclasses.fields(cls) if f.init),
    ):
        assert section in (cls.__doc__ or ""), section
    assert re.search(r"\n\n        \S", cls.__doc__ or ""), "a formula, or a combination, set apart"


@given(schedules() | feedback_schedules())
def test_equal_schedules_are_one_key_and_survive_pickling_and_copying(schedule: object) -> None:
    for other in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule), copy.copy(schedule)):
        assert other == schedule
        assert hash(other) == hash(schedule)
        assert repr(other) == repr(schedule)


@given(schedules(), st.lists(st.integers(1, 10**6), min_size=2, max_size=8, unique=True), st.randoms())
def test_a_factor_depends_on_the_step_alone_in_whatever_order_it_is_asked(
    schedule: Schedule, steps: list[int], random: Random
) -> None:
    fresh: Schedule = pickle.loads(pickle.dumps(schedule))
    first = {step: schedule(step) for step in steps}
    random.shuffle(steps)
    assert {step: fresh(step) for step in steps} == first
    assert {step: schedule(step) for step in reversed(steps)} == first


def test_the_value_counts_and_not_how_it_was_written() -> None:
    assert Linear(steps=4.0, start=1, end=0) == Linear(steps=4)  # type: ignore[arg-type]
    assert repr(Linear(steps=4.0, start=1)) == "Linear(steps=4)"  # type: ignore[arg-type]
    assert {Constant(1), Constant(), Constant(1.0)} == {Constant()}
    different: Schedule = Linear(steps=4)
    assert Constant() != different


def test_an_argument_after_one_left_out_is_written_with_its_name() -> None:
    @dataclasses.dataclass(frozen=True, repr=False)
    class Two(Schedule):
        a: int = 1
        b: int = 2

        def __call__(self, step: int) -> float:
            return float(self.a * self.b * step)

    assert repr(Two(3, 4)).endswith("Two(3, 4)")
    assert repr(Two(b=4)).endswith("Two(b=4)")  # Two(4) would be another


def test_text_is_quoted_so_that_it_reads_back() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
    class Named(Schedule):
        name: str
        pairs: tuple[object, ...] = ()

        def __call__(self, step: int) -> float:
            return float(step)

    assert repr(Named(name="plain")).endswith('(name="plain")')
    assert repr(Named(name='with "quotes"')).endswith("""(name='with "quotes"')""")
    assert repr(Named(name="line\nbreak")).endswith(r"(name='line\nbreak')")
    assert repr(Named(name="x", pairs=((1,), ("a", None)))).endswith('(name="x", pairs=[(1,), ("a", None)])')


def test_a_schedule_that_is_no_dataclass_prints_as_python_prints_it() -> None:
    class Bare(Schedule):
        def __call__(self, step: int) -> float:
            return float(step)

    bare = Bare()
    assert repr(bare).startswith("<tests.schedules.test_base.")
    assert bare.known
    assert Warmup(steps=1, then=bare).resolved(Run(steps=1)).then is bare, "it has no lengths"


def test_a_function_without_a_path_prints_as_python_prints_it() -> None:
    assert repr(Custom(functools.partial(math.pow, 2))).startswith("Custom(functools.partial(")


def test_a_feedback_schedule_keeps_its_state_outside_and_prints_like_the_others() -> None:
    schedule = HalvedWhenWorse()
    start = schedule.start()
    worse = schedule.observe(schedule.observe(start, 1.0), 2.0)
    assert (schedule(5, start), schedule(5, worse)) == (1.0, 0.5)
    assert start == {"best": 1e9, "factor": 1.0}  # observing left it alone
    assert repr(HalvedWhenWorse(by=0.1)) == "tests.cases.HalvedWhenWorse(by=0.1)"


@pytest.mark.parametrize("base", [Schedule, FeedbackSchedule])
def test_the_base_classes_cannot_be_built(base: type) -> None:
    with pytest.raises(TypeError, match="abstract"):
        base()


def test_a_users_own_schedule_takes_part_in_everything() -> None:
    warmup = Warmup(steps=2, then=Alternating(low=0.25))
    assert [warmup(s) for s in (1, 2, 3, 4)] == [0.5, 1.0, 0.25, 1.0]
    assert pickle.loads(pickle.dumps(0.5 * warmup))(3) == 0.125


def test_importing_schedules_costs_little_more_than_dataclasses_do() -> None:
    program = (
        "from __future__ import annotations\nimport sys, bisect, dataclasses, difflib, math, typing\n"
        "before = set(sys.modules)\n"
        "import optimscheduler.schedules\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ours = ["", ".checks", ".errors", ".lookup", ".schedules"]
    files = (
        *("base", "combine", "curves", "custom", "cycles", "feedback", "interop"),
        *("lengths", "powers", "recipes", "steps", "written"),
    )
    assert result.stdout.split() == [
        *(f"optimscheduler{name}" for name in ours),
        *(f"optimscheduler.schedules.{name}" for name in files),
    ]


def test_importing_schedules_and_grammar_does_not_import_torch_or_numpy() -> None:
    program = (
        "import sys, optimscheduler.schedules, optimscheduler.schedules.grammar\n"
        "print(sorted({'torch', 'numpy', 'yaml'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

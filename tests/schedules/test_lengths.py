"""Lengths that depend on the run: what each unit comes to, what `rest` is where, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.checks import shown
from optimscheduler.errors import ConfigError
from optimscheduler.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    FeedbackSchedule,
    Linear,
    Run,
    Schedule,
    Sequence,
    to_lambda,
)
from optimscheduler.schedules.grammar import read_schedule
from optimscheduler.schedules.lengths import Length
from tests.cases import CASES, HEARD, Case, Heard, schedules

RUN = Run(steps=1000, steps_per_epoch=50, samples_per_step=256, tokens_per_step=1024)


def read(text: str) -> Schedule:
    schedule = read_schedule(text, "schedule")
    assert isinstance(schedule, Schedule)
    return schedule


# ---- what a length comes to ----

UNITS: list[tuple[str, int, str]] = [
    ("3ep", 150, "3 x 50"),
    ("0.5ep", 25, "half of 50"),
    ("10%", 100, "a tenth of 1000"),
    ("100%", 1000, "all of it"),
    ("0.35%", 4, "3.5, to the even neighbour"),
    ("0.25%", 2, "2.5, to the even neighbour"),
    ("0.16%", 2, "1.6, to the nearest"),
    ("0.01%", 1, "0.1; something is never nothing"),
    ("1e6samples", 3906, "10^6 / 256 = 3906.25"),
    ("1000samples", 4, "3.90625"),
    ("1e9tok", 976_562, "10^9 / 1024 = 976562.5, to the even neighbour"),
    ("2.5E+3tok", 2, "2500 / 1024 = 2.44"),
    (" 10 % ", 100, "blanks count for nothing"),
    ("rest", 1000, "all, where nothing else takes any"),
]


@pytest.mark.parametrize(("text", "steps", "why"), UNITS, ids=[row[0] for row in UNITS])
def test_every_unit_is_counted_in_real_steps(text: str, steps: int, why: str) -> None:
    assert read(f"Cosine(steps='{text}')").resolved(RUN) == Cosine(steps=steps), why


def test_an_epoch_need_not_be_a_whole_number_of_real_steps() -> None:
    run = Run(steps=200, steps_per_epoch=62.5)
    assert read('Cosine(steps="3ep")').resolved(run) == Cosine(steps=188), "187.5, to the even neighbour"


def test_nothing_is_allowed_where_nothing_is_a_length() -> None:
    curve = read('WarmupStableDecay(warmup="0%", stable="0ep", decay="rest")')
    assert repr(curve.resolved(RUN)) == "WarmupStableDecay(warmup=0, stable=0, decay=1000)"


# ---- where they may stand ----

RESOLVED: list[tuple[str, str]] = [
    ('Linear(steps="10%")', "Linear(steps=100)"),
    ('Noam(warmup_steps="1%")', "Noam(warmup_steps=10)"),
    ('Polynomial(steps="rest", power=2.0)', "Polynomial(steps=1000, power=2.0)"),
    ('CoolDown(steps="2ep")', "CoolDown(steps=100)"),
    ('Exponential(gamma=0.5, every="1ep")', "Exponential(gamma=0.5, every=50)"),
    ('Step(every="30%", gamma=0.5)', "Step(every=300, gamma=0.5)"),
    ('MultiStep(at=["50%", "15ep"], gamma=0.5)', "MultiStep(at=[500, 750], gamma=0.5)"),
    ('MultiStep(at=[100, "50%"], gamma=0.5)', "MultiStep(at=[100, 500], gamma=0.5)"),
    ('Piecewise([(1, 0.0), ("10%", 1.0)])', "Piecewise([(1, 0.0), (100, 1.0)])"),
    ('PowerDecay(hold="10%", exponent=0.5)', "PowerDecay(hold=100, exponent=0.5)"),
    ('CosineRestarts(first="25%")', "CosineRestarts(first=250.0)"),
    ('OneCycle(steps="rest")', "OneCycle(steps=1000)"),
    ('Cyclic(up="10%")', "Cyclic(up=100)"),
    ('Cyclic(up="10%", down="1ep")', "Cyclic(up=100, down=50)"),
    # rest is what the others leave
    ('Cyclic(up="rest", down=400)', "Cyclic(up=600, down=400)"),
    (
        'WarmupStableDecay(warmup="10%", stable="rest", decay="20%")',
        "WarmupStableDecay(warmup=100, stable=700, decay=200)",
    ),
    (
        'TriStage(warmup="rest", hold="40%", decay="10%")',
        "TriStage(warmup=500, hold=400, decay=100)",
    ),
    (
        'InfiniteCosine(warmup=10, cosine="20%", hold="rest", decay=90)',
        "InfiniteCosine(warmup=10, cosine=200, hold=700, decay=90)",
    ),
    # a warm-up leaves its curve the rest: the floor is reached at s = 100 + 900, the last of the run
    ('Warmup(steps="10%", then=Cosine(steps="rest"))', "Warmup(steps=100, then=Cosine(steps=900))"),
    (
        'Warmup(steps="1ep", then=Warmup(steps="10%", then=Cosine(steps="rest")))',
        "Warmup(steps=50, then=Warmup(steps=100, then=Cosine(steps=850)))",
    ),
    (
        'Warmup(steps=100, then=WarmupStableDecay(warmup=0, stable="rest", decay="10%"))',
        "Warmup(steps=100, then=WarmupStableDecay(warmup=0, stable=800, decay=100))",
    ),
    # a phase gives its curve its own length; the last has what all phases leave
    (
        'Sequence([(Linear(steps="rest"), "10%"), (Constant(), 200)], Cosine(steps="rest"))',
        "Sequence([(Linear(steps=100), 100), (Constant(), 200)], Cosine(steps=700))",
    ),
    (
        'Sequence([(Constant(), "rest"), (Linear(steps="rest"), "20%")], Constant(0.0))',
        "Sequence([(Constant(), 800), (Linear(steps=200), 200)], Constant(0.0))",
    ),
    # inside, real steps are epochs
    (
        'PerEpoch(inner=Cosine(steps="rest"), steps_per_epoch="1ep")',
        "PerEpoch(inner=Cosine(steps=20), steps_per_epoch=50)",
    ),
    (
        'PerEpoch(inner=Step(every="3ep", gamma=0.5), steps_per_epoch=300)',
        "PerEpoch(inner=Step(every=3, gamma=0.5), steps_per_epoch=300)",
    ),
    (
        'Warmup(steps=100, then=PerEpoch(inner=Cosine(steps="rest"), steps_per_epoch=400))',
        "Warmup(steps=100, then=PerEpoch(inner=Cosine(steps=3), steps_per_epoch=400))",
    ),
    # ahead of the curve it must be longer, behind it shorter, to end with the run
    ('Shift(Cosine(steps="rest"), 10)', "Shift(Cosine(steps=1010), 10)"),
    ('Shift(Cosine(steps="rest"), -10)', "Shift(Cosine(steps=990), -10)"),
    # side by side, each has all of it
    (
        'Product(Cosine(steps="rest"), Linear(steps="50%"))',
        "Product(Cosine(steps=1000), Linear(steps=500))",
    ),
    (
        'Clamp(inner=Cosine(steps="rest"), low=0.1, high=1.0)',
        "Clamp(inner=Cosine(steps=1000), low=0.1, high=1.0)",
    ),
    (
        'Warmup(steps="1%", then=ReduceOnPlateau(factor=0.5))',
        "Warmup(steps=10, then=ReduceOnPlateau(factor=0.5))",
    ),
]


@pytest.mark.parametrize(("written", "expected"), RESOLVED, ids=[row[0] for row in RESOLVED])
def test_each_length_becomes_real_steps_where_it_stands(written: str, expected: str) -> None:
    schedule = read(written)
    resolved = schedule.resolved(RUN)
    assert repr(resolved) == expected
    assert not schedule.known
    assert resolved.known
    assert resolved.resolved(Run(steps=7)) == resolved, "nothing is left to be resolved"


LENGTHS = [(name, argument) for name, cls in SCHEDULES.items() for argument in cls.LENGTHS]


@pytest.mark.parametrize(("name", "argument"), LENGTHS, ids=[".".join(row) for row in LENGTHS])
def test_every_argument_in_steps_takes_a_text(name: str, argument: str) -> None:
    case: Any = next(case.schedule for case in CASES if type(case.schedule) is SCHEDULES[name])
    schedule = dataclasses.replace(case, **{argument: "1e6samples"})
    assert not schedule.known
    assert getattr(schedule, argument) == "1e6samples"
    assert schedule.resolved(RUN) == dataclasses.replace(case, **{argument: 3906})


@pytest.mark.parametrize("written", [row[0] for row in RESOLVED])
def test_what_was_written_is_kept_in_text_mappings_copies_and_pickles(written: str) -> None:
    schedule = read(written)
    assert repr(schedule) == written
    for other in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule), read(repr(schedule))):
        assert other == schedule
        assert hash(other) == hash(schedule)
        assert repr(other) == written
        assert other.resolved(RUN) == schedule.resolved(RUN)
        assert not other.known


def test_mappings_hold_them_as_text() -> None:
    mapping = {
        "type": "Warmup",
        "conf": {"steps": "10%", "then": {"type": "Cosine", "conf": {"steps": "rest"}}},
    }
    assert read_schedule(mapping, "schedule") == read('Warmup(steps="10%", then=Cosine(steps="rest"))')


@given(schedules())
def test_a_schedule_of_real_steps_is_resolved_already(schedule: Schedule) -> None:
    assert schedule.known
    assert schedule.resolved(Run(steps=1)) == schedule


@pytest.mark.parametrize("case", [*CASES, *HEARD], ids=lambda case: case.written)
def test_resolving_changes_no_case(case: Case | Heard) -> None:
    assert isinstance(case.schedule, Schedule | FeedbackSchedule)
    assert case.schedule.resolved(RUN) == case.schedule


@given(st.integers(3, 10**6), st.floats(0, 49), st.floats(0, 49))
def test_with_a_rest_the_parts_make_up_the_run(steps: int, warmup: float, decay: float) -> None:
    lengths: list[Any] = [f"{warmup:f}%", "rest", f"{decay:f}%"]
    resolved = Sequence([(Constant(), length) for length in lengths], Constant()).resolved(Run(steps=steps))
    assert sum(length for _, length in resolved.phases) == steps


# ---- what is refused ----


@pytest.mark.parametrize("written", [row[0] for row in RESOLVED])
def test_calling_one_that_is_not_resolved_says_what_to_do(written: str) -> None:
    schedule = read(written)
    with pytest.raises(ConfigError) as caught:
        schedule(10**6)
    message = str(caught.value)
    assert message.startswith("the length '")
    assert message.endswith(
        "depends on the run: schedule.resolved(Run(steps=...)) puts real steps in its place"
    )


def test_a_function_for_torch_needs_real_steps_from_the_beginning() -> None:
    late = read('Sequence([(Constant(), 100)], Cosine(steps="rest"))')
    assert late(1) == 1.0, "that far it does not matter"
    with pytest.raises(ConfigError) as caught:
        to_lambda(late)
    assert str(caught.value) == (
        f"to_lambda: {late!r} has lengths that depend on the run: "
        "schedule.resolved(Run(steps=...)) puts real steps in their place"
    )


def test_a_length_is_equal_to_its_text_and_refuses_to_be_calculated_with() -> None:
    length: Any = Length("10%")
    assert length == "10%"
    assert hash(length) == hash("10%")
    sums: list[Callable[[], object]] = [
        lambda: length + 1,
        lambda: 1 + length,
        lambda: length - 1,
        lambda: 1 - length,
        lambda: length * 2,
        lambda: 2 * length,
        lambda: length / 2,
        lambda: 2 / length,
        lambda: length // 2,
        lambda: 2 // length,
        lambda: length % 2,
        lambda: 2 % length,
        lambda: length < 2,
        lambda: length <= 2,
        lambda: length > 2,
        lambda: length >= 2,
        lambda: max(1, length),
    ]
    for calculate in sums:
        with pytest.raises(ConfigError, match=r"^the length '10%' depends on the run"):
            calculate()


REFUSED: list[tuple[str, Run, str]] = [
    (
        'Cosine(steps="3ep")',
        Run(steps=10),
        "Cosine: steps is '3ep', and the run does not say its steps_per_epoch",
    ),
    (
        'Warmup(steps="1e6samples", then=Constant())',
        Run(steps=10),
        "Warmup: steps is '1e6samples', and the run does not say its samples_per_step",
    ),
    (
        'Sequence([(Constant(), "1e9tok")], Constant())',
        Run(steps=10),
        "Sequence: phases[0]: steps is '1e9tok', and the run does not say its tokens_per_step",
    ),
    (
        'MultiStep(at=["1ep"], gamma=0.5)',
        Run(steps=10),
        "MultiStep: at is '1ep', and the run does not say its steps_per_epoch",
    ),
    (
        'PerEpoch(inner=Cosine(steps="1e9tok"), steps_per_epoch=5)',
        RUN,
        "Cosine: steps is '1e9tok', and the run does not say its tokens_per_step",
    ),
    (
        'WarmupStableDecay(warmup="20%", stable="rest", decay="80%")',
        RUN,
        "WarmupStableDecay: stable is 'rest', but nothing is left: the other lengths take all 1000 real "
        "steps of the run",
    ),
    (
        'WarmupStableDecay(warmup="rest", stable="rest", decay=10)',
        RUN,
        "WarmupStableDecay: stable is 'rest', but nothing is left: the other lengths take all 1000 real "
        "steps of the run",
    ),
    (
        'Warmup(steps=2000, then=Cosine(steps="rest"))',
        RUN,
        "Cosine: steps is 'rest', but nothing is left: the other lengths take all 1000 real steps of the run",
    ),
    (
        'Sequence([(Constant(), "rest")], Cosine(steps="rest"))',
        RUN,
        "Cosine: steps is 'rest', but nothing is left: the other lengths take all 1000 real steps of the run",
    ),
    (
        'Shift(Cosine(steps="rest"), -1000)',
        RUN,
        "Cosine: steps is 'rest', but nothing is left: the other lengths take all 1000 real steps of the run",
    ),
    (
        'MultiStep(at=["15ep", "50%"], gamma=0.5)',
        RUN,
        "MultiStep: at: the real steps must rise, got [750, 500]",
    ),
    (
        'Piecewise([("50%", 1.0), ("50%", 0.0)])',
        RUN,
        "Piecewise: points: the real steps must rise, got [500, 500]",
    ),
    (
        'Warmup(steps="1%", then=Cosine(steps="1e300ep"))',
        RUN,
        "Cosine: steps is '1e300ep', which is more than 2^63 - 1 real steps",
    ),
    (
        'Warmup(steps=10, then=Shift(Linear(steps="1%", start=0.0, end=1.0), 0), start=0.1, '
        'shape="exponential")',
        RUN,
        "Warmup: shape 'exponential' needs start > 0 and then(1) > 0, got start=0.1 and then(1)=0.0",
    ),
]


@pytest.mark.parametrize(("written", "run", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_cannot_be_resolved_is_refused(written: str, run: Run, message: str) -> None:
    schedule = read(written)
    with pytest.raises(ConfigError) as caught:
        schedule.resolved(run)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    ["", "10", "-3ep", "3 epochs", "%", "10%%", "1e-3ep", ".5ep", "10percent", "Rest", "nanep", "1_0%"],
)
def test_what_is_no_length_is_refused_at_birth(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Linear(steps=text)  # type: ignore[arg-type]
    assert str(caught.value) == (
        'Linear: steps must be a whole number of real steps >= 1, or "3ep", "10%", "1e6samples", "1e9tok" '
        f'or "rest", got {shown(text)}'
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Run(steps=0), "Run: steps must be a whole number of real steps >= 1, got 0"),
        (lambda: Run(steps=1.5), "Run: steps must be a whole number of real steps >= 1, got 1.5"),
        (lambda: Run(steps=1, steps_per_epoch=0), "Run: steps_per_epoch must be a finite number > 0, got 0"),
        (
            lambda: Run(steps=1, samples_per_step=-1),
            "Run: samples_per_step must be a finite number > 0, got -1",
        ),
        (
            lambda: Run(steps=1, tokens_per_step=float("inf")),
            "Run: tokens_per_step must be a finite number > 0, got inf",
        ),
    ],
)
def test_a_run_says_numbers(build: Callable[[], Run], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert str(caught.value) == message

"""The tables behind the tests of schedules: what each gives, what each refuses, and how to draw any.

Every number is worked out by hand from the published formula; `why` has the working.
"""
# mypy: disable-error-code="arg-type,list-item"
# The rows of BAD have arguments of the wrong type on purpose.

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from optimscheduler.schedules import (
    Clamp,
    Constant,
    Cosine,
    Custom,
    Exponential,
    FeedbackSchedule,
    InverseSqrt,
    Linear,
    Noam,
    PerEpoch,
    Product,
    Schedule,
    Sequence,
    Warmup,
)

__all__ = ["BAD", "CASES", "Alternating", "Case", "HalvedWhenWorse", "schedules"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Alternating(Schedule):
    """A user's own schedule, named in a configuration as `tests.cases.Alternating`."""

    low: float = 0.5

    def __call__(self, step: int) -> float:
        return 1.0 if step % 2 else self.low


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HalvedWhenWorse(FeedbackSchedule[dict[str, float]]):
    """A user's own feedback schedule, the smallest that does something."""

    by: float = 0.5

    def start(self) -> dict[str, float]:
        return {"best": 1e9, "factor": 1.0}

    def observe(self, state: dict[str, float], metric: float) -> dict[str, float]:
        worse = metric > state["best"]
        return {"best": min(metric, state["best"]), "factor": state["factor"] * (self.by if worse else 1.0)}

    def __call__(self, step: int, state: dict[str, float]) -> float:
        return state["factor"]


def negative(step: int) -> float:
    """No factor."""
    return -float(step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One schedule and what it gives.

    Args:
        schedule: the schedule.
        written: its text in a configuration.
        factors: real step -> factor, worked out by hand.
        why: the working.
    """

    schedule: Schedule
    written: str
    factors: dict[int, float]
    why: str


ROOT_HALF = 0.7071067811865476  # sqrt(1/2) = cos 45 degrees

CASES: list[Case] = [
    Case(
        schedule=Constant(),
        written="Constant()",
        factors={1: 1.0, 1000: 1.0},
        why="the base value itself",
    ),
    Case(
        schedule=Constant(0.5),
        written="Constant(0.5)",
        factors={1: 0.5, 2: 0.5, 10**9: 0.5},
        why="half of it, for ever",
    ),
    Case(
        schedule=Linear(steps=4),
        written="Linear(steps=4)",
        factors={1: 1.0, 2: 0.75, 3: 0.5, 4: 0.25, 5: 0.0, 6: 0.0, 10**9: 0.0},
        why="4 falls of 1/4, the first after the first step",
    ),
    Case(
        schedule=Linear(steps=4, start=0.2, end=1.0),
        written="Linear(steps=4, start=0.2, end=1.0)",
        factors={1: 0.2, 3: 0.6, 5: 1.0, 6: 1.0},
        why="4 rises of 0.2",
    ),
    Case(
        schedule=Cosine(steps=4),
        written="Cosine(steps=4)",
        factors={1: 1.0, 2: (1 + ROOT_HALF) / 2, 3: 0.5, 4: (1 - ROOT_HALF) / 2, 5: 0.0, 6: 0.0},
        why="(1 + cos) / 2 at 0, 45, 90, 135, 180 degrees; Loshchilov and Hutter 2017",
    ),
    Case(
        schedule=Cosine(steps=4, floor=0.1),
        written="Cosine(steps=4, floor=0.1)",
        factors={1: 1.0, 3: 0.55, 5: 0.1, 99: 0.1},
        why="0.1 + 0.9 x (1, 1/2, 0)",
    ),
    Case(
        schedule=Exponential(gamma=0.5),
        written="Exponential(gamma=0.5)",
        factors={1: 1.0, 2: 0.5, 3: 0.25, 11: 1 / 1024},
        why="halved s - 1 times",
    ),
    Case(
        schedule=Exponential(gamma=0.25, every=2),
        written="Exponential(gamma=0.25, every=2)",
        factors={1: 1.0, 2: 0.5, 3: 0.25, 4: 0.125},
        why="the square root of 1/4 is 1/2, so halved in each step",
    ),
    Case(
        schedule=Exponential(gamma=0.25, every=2, staircase=True),
        written="Exponential(gamma=0.25, every=2, staircase=True)",
        factors={1: 1.0, 2: 1.0, 3: 0.25, 4: 0.25, 5: 0.0625},
        why="stairs of two steps",
    ),
    Case(
        schedule=InverseSqrt(shift=4),
        written="InverseSqrt(shift=4.0)",
        factors={1: 1.0, 5: ROOT_HALF, 13: 0.5, 397: 0.1},
        why="sqrt(4/4), sqrt(4/8), sqrt(4/16), sqrt(4/400); Vaswani et al. 2017, Raffel et al. 2020",
    ),
    Case(
        schedule=Noam(warmup_steps=4),
        written="Noam(warmup_steps=4)",
        factors={1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0, 16: 0.5, 400: 0.1},
        why="s / 4 up to the peak, sqrt(4 / s) after it; Vaswani et al. 2017, section 5.3",
    ),
    Case(
        schedule=Warmup(steps=4, then=Constant()),
        written="Warmup(steps=4, then=Constant())",
        factors={1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0, 5: 1.0},
        why="quarters; the first step already moves",
    ),
    Case(
        schedule=Warmup(steps=2, then=Linear(steps=4), start=0.5),
        written="Warmup(steps=2, then=Linear(steps=4), start=0.5)",
        factors={1: 0.75, 2: 1.0, 3: 0.75, 4: 0.5, 5: 0.25, 6: 0.0},
        why="half way from 0.5 to 1; then the linear curve from its own first step, which is step 2",
    ),
    Case(
        schedule=Warmup(steps=2, then=Constant(0.5), start=1),
        written="Warmup(steps=2, then=Constant(0.5), start=1.0)",
        factors={1: 0.75, 2: 0.5, 3: 0.5},
        why="from above is allowed: half way from 1 to 0.5",
    ),
    Case(
        schedule=Warmup(steps=0, then=Linear(steps=2)),
        written="Warmup(steps=0, then=Linear(steps=2))",
        factors={1: 1.0, 2: 0.5, 3: 0.0},
        why="no warm-up is the curve itself",
    ),
    Case(
        schedule=Warmup(steps=1, then=Linear(steps=2)),
        written="Warmup(steps=1, then=Linear(steps=2))",
        factors={1: 1.0, 2: 0.5, 3: 0.0},
        why="a warm-up of one step is over at step 1",
    ),
    Case(
        schedule=Warmup(steps=4, then=Constant(), shape="cosine"),
        written='Warmup(steps=4, then=Constant(), shape="cosine")',
        factors={1: (1 - ROOT_HALF) / 2, 2: 0.5, 3: (1 + ROOT_HALF) / 2, 4: 1.0, 5: 1.0},
        why="(1 - cos) / 2 at 45, 90, 135, 180 degrees",
    ),
    Case(
        schedule=Warmup(steps=4, then=Constant(), start=0.0625, shape="exponential"),
        written='Warmup(steps=4, then=Constant(), start=0.0625, shape="exponential")',
        factors={1: 0.125, 2: 0.25, 3: 0.5, 4: 1.0},
        why="from 1/16 doubled in each step",
    ),
    Case(
        schedule=Warmup(steps=4, then=Constant(), shape="power"),
        written='Warmup(steps=4, then=Constant(), shape="power")',
        factors={1: 1 / 16, 2: 1 / 4, 3: 9 / 16, 4: 1.0},
        why="squares of the quarters",
    ),
    Case(
        schedule=Warmup(steps=4, then=Constant(), shape="one_minus_sqrt"),
        written='Warmup(steps=4, then=Constant(), shape="one_minus_sqrt")',
        factors={1: 1 - math.sqrt(3) / 2, 2: 1 - ROOT_HALF, 3: 0.5, 4: 1.0},
        why="1 - sqrt of 3/4, 2/4, 1/4, 0",
    ),
    Case(
        schedule=Sequence([(Linear(steps=2, start=0.5, end=1), 2), (Constant(), 3)], Linear(steps=4)),
        written="Sequence([(Linear(steps=2, start=0.5, end=1.0), 2), (Constant(), 3)], Linear(steps=4))",
        factors={1: 0.5, 2: 0.75, 3: 1.0, 5: 1.0, 6: 1.0, 7: 0.75, 10: 0.0, 11: 0.0},
        why="steps 1-2, 3-5, and from 6 on the last from its own step 1",
    ),
    Case(
        schedule=Sequence([(Constant(0.5), 0)], Constant(0.25)),
        written="Sequence([(Constant(0.5), 0)], Constant(0.25))",
        factors={1: 0.25, 2: 0.25},
        why="a phase of no steps is left out",
    ),
    Case(
        schedule=Product(Constant(0.5), Linear(steps=4)),
        written="Product(Constant(0.5), Linear(steps=4))",
        factors={1: 0.5, 2: 0.375, 3: 0.25, 5: 0.0},
        why="halves of 1, 3/4, 1/2, 0",
    ),
    Case(
        schedule=Clamp(inner=Linear(steps=4), low=0.3, high=0.9),
        written="Clamp(inner=Linear(steps=4), low=0.3, high=0.9)",
        factors={1: 0.9, 2: 0.75, 3: 0.5, 4: 0.3, 5: 0.3},
        why="1 is cut to 0.9; 1/4 and 0 are lifted to 0.3",
    ),
    Case(
        schedule=PerEpoch(inner=Exponential(gamma=0.5), steps_per_epoch=3),
        written="PerEpoch(inner=Exponential(gamma=0.5), steps_per_epoch=3)",
        factors={1: 1.0, 3: 1.0, 4: 0.5, 6: 0.5, 7: 0.25},
        why="epochs of 3 real steps, halved after each",
    ),
    Case(
        schedule=Custom(math.sqrt),
        written='Custom("math.sqrt")',
        factors={1: 1.0, 4: 2.0, 9: 3.0},
        why="the function itself",
    ),
    Case(
        schedule=Alternating(low=0.25),
        written="tests.cases.Alternating(low=0.25)",
        factors={1: 1.0, 2: 0.25, 3: 1.0},
        why="a user's own class goes by its dotted path",
    ),
]

# What must be refused when it is built: (a constructor, its message).
BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: Constant(-1), "Constant: value must be a finite number >= 0, got -1"),
    (lambda: Constant(math.inf), "Constant: value must be a finite number >= 0, got inf"),
    (lambda: Constant("1"), "Constant: value must be a finite number >= 0, got '1'"),
    (lambda: Linear(steps=0), "Linear: steps must be a whole number of real steps >= 1, got 0"),
    (lambda: Linear(steps=4, start=-0.1), "Linear: start must be a finite number >= 0, got -0.1"),
    (lambda: Linear(steps=4, end=math.nan), "Linear: end must be a finite number >= 0, got nan"),
    (lambda: Cosine(steps=0), "Cosine: steps must be a whole number of real steps >= 1, got 0"),
    (lambda: Cosine(steps=2.5), "Cosine: steps must be a whole number of real steps >= 1, got 2.5"),
    (lambda: Cosine(steps=True), "Cosine: steps must be a whole number of real steps >= 1, got True"),
    (lambda: Cosine(steps=9, floor=2), "Cosine: floor must be a finite number >= 0 and <= 1, got 2"),
    (lambda: Exponential(gamma=0), "Exponential: gamma must be a finite number > 0, got 0"),
    (
        lambda: Exponential(gamma=0.5, every=0),
        "Exponential: every must be a whole number of real steps >= 1, got 0",
    ),
    (lambda: Exponential(gamma=0.5, staircase=1), "Exponential: staircase must be True or False, got 1"),
    (lambda: InverseSqrt(shift=0), "InverseSqrt: shift must be a finite number > 0, got 0"),
    (lambda: Noam(warmup_steps=0), "Noam: warmup_steps must be a whole number of real steps >= 1, got 0"),
    (
        lambda: Warmup(steps=-1, then=Constant()),
        "Warmup: steps must be a whole number of real steps >= 0, got -1",
    ),
    (lambda: Warmup(steps=4, then=0.5), "Warmup: then must be a schedule, got 0.5"),
    (
        lambda: Warmup(steps=4, then="Constant()"),
        "Warmup: then must be a schedule, got 'Constant()'; a schedule has brackets and no quotes: "
        "Cosine(steps=900)",
    ),
    (
        lambda: Warmup(steps=4, then=Constant),
        "Warmup: then must be a schedule, got the class Constant: write Constant()",
    ),
    (
        lambda: Warmup(steps=4, then=HalvedWhenWorse()),
        "Warmup: then cannot be HalvedWhenWorse, which listens to a metric: a feedback schedule stands alone",
    ),
    (
        lambda: Warmup(steps=4, then=Constant(), start=-1),
        "Warmup: start must be a finite number >= 0, got -1",
    ),
    (
        lambda: Warmup(steps=4, then=Constant(), shape="cosin"),
        "Warmup: shape: 'cosin' is not known. Did you mean 'cosine'? "
        "Known: cosine, exponential, linear, one_minus_sqrt, power.",
    ),
    (
        lambda: Warmup(steps=4, then=Constant(), shape="exponential"),
        "Warmup: shape 'exponential' needs start > 0 and then(1) > 0, got start=0.0 and then(1)=1.0",
    ),
    (
        lambda: Warmup(steps=4, then=Constant(0), start=0.1, shape="exponential"),
        "Warmup: shape 'exponential' needs start > 0 and then(1) > 0, got start=0.1 and then(1)=0.0",
    ),
    (
        lambda: Sequence(Constant(), Constant()),
        "Sequence: phases must be a list of (schedule, steps), got Constant()",
    ),
    (
        lambda: Sequence([Constant()], Constant()),
        "Sequence: phases[0] must be a pair (schedule, steps), got Constant()",
    ),
    (
        lambda: Sequence([(Constant(), 3), (4, 3)], Constant()),
        "Sequence: phases[1] must be a schedule, got 4",
    ),
    (
        lambda: Sequence([(Constant(), -1)], Constant()),
        "Sequence: phases[0]: steps must be a whole number of real steps >= 0, got -1",
    ),
    (lambda: Sequence([(Constant(), 3)], None), "Sequence: last must be a schedule, got None"),
    (lambda: Product(2, Constant()), "Product: a must be a schedule, got 2"),
    (
        lambda: Product(Constant(), HalvedWhenWorse()),
        "Product: b cannot be HalvedWhenWorse, which listens to a metric: a feedback schedule stands alone",
    ),
    (lambda: Clamp(inner=None, low=0, high=1), "Clamp: inner must be a schedule, got None"),
    (
        lambda: Clamp(inner=Constant(), low=-1, high=1),
        "Clamp: low must be a finite number >= 0, got -1",
    ),
    (
        lambda: Clamp(inner=Constant(), low=0.5, high=0.1),
        "Clamp: high (not below low) must be a finite number >= 0.5, got 0.1",
    ),
    (lambda: PerEpoch(inner=1, steps_per_epoch=3), "PerEpoch: inner must be a schedule, got 1"),
    (
        lambda: PerEpoch(inner=Constant(), steps_per_epoch=0),
        "PerEpoch: steps_per_epoch must be a whole number of real steps >= 1, got 0",
    ),
    (lambda: Custom(3), "Custom: fn must be a function of the step or its path, got 3"),
    (lambda: Custom("math.pi"), "Custom: fn must be a function of the step or its path, got 'math.pi'"),
    (lambda: Custom("sqrt"), "Custom: fn: 'sqrt' is not a dotted path like 'package.module.Name'"),
    (
        lambda: Custom(HalvedWhenWorse()),
        "Custom: fn must be a function of the step or its path, got tests.cases.HalvedWhenWorse()",
    ),
]

_STEPS = st.integers(1, 10_000)
_FACTORS = st.floats(0, 1e6)

_PLAIN = st.one_of(
    st.builds(Constant, _FACTORS),
    st.builds(Linear, steps=_STEPS, start=_FACTORS, end=_FACTORS),
    st.builds(Cosine, steps=_STEPS, floor=st.floats(0, 1)),
    st.builds(Exponential, gamma=st.floats(1e-3, 1), every=_STEPS, staircase=st.booleans()),
    st.builds(InverseSqrt, shift=st.floats(1e-3, 1e6)),
    st.builds(Noam, warmup_steps=_STEPS),
    st.just(Custom(math.sqrt)),
    st.builds(Alternating, low=st.floats(0, 1)),
)


def _combined(inner: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
    phases = st.lists(st.tuples(inner, st.integers(0, 1000)), max_size=3)
    return st.one_of(
        st.builds(
            Warmup,
            steps=st.integers(0, 1000),
            then=inner,
            start=_FACTORS,
            shape=st.sampled_from(["linear", "cosine", "power", "one_minus_sqrt"]),
        ),
        st.builds(Sequence, phases, inner),
        st.builds(Product, inner, inner),
        st.builds(Clamp, inner=inner, low=st.floats(0, 0.5), high=st.floats(0.5, 1)),
        st.builds(PerEpoch, inner=inner, steps_per_epoch=_STEPS),
    )


def schedules() -> st.SearchStrategy[Schedule]:
    """Any schedule, combinations of combinations included."""
    return st.recursive(_PLAIN, _combined, max_leaves=5)

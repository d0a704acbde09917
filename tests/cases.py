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
    CoolDown,
    Cosine,
    CosineRestarts,
    Custom,
    Cyclic,
    Exponential,
    FeedbackSchedule,
    InfiniteCosine,
    InverseSqrt,
    Linear,
    MultiStep,
    NewBob,
    Noam,
    OneCycle,
    PerEpoch,
    Piecewise,
    Polynomial,
    PowerDecay,
    Product,
    ReduceOnPlateau,
    Schedule,
    Sequence,
    Shift,
    Step,
    TriStage,
    Warmup,
    WarmupStableDecay,
)

__all__ = [
    "BAD",
    "CASES",
    "FORMS",
    "HEARD",
    "Alternating",
    "Case",
    "HalvedWhenWorse",
    "Heard",
    "feedback_schedules",
    "schedules",
]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One schedule that listens, and what becomes of it.

    Args:
        schedule: the schedule.
        written: its text in a configuration.
        told: (metric, the factor after it), in order, worked out by hand.
        why: the working.
        step: the real step that is asked for.
    """

    schedule: FeedbackSchedule[dict[str, float]] | Warmup
    written: str
    told: list[tuple[float, float]]
    why: str
    step: int = 1


ROOT_HALF = 0.7071067811865476  # sqrt(1/2) = cos 45 degrees
COS_36 = (math.sqrt(5) + 1) / 4  # of the regular pentagon
COS_72 = (math.sqrt(5) - 1) / 4

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
        schedule=Polynomial(steps=4, power=2),
        written="Polynomial(steps=4, power=2.0)",
        factors={1: 1.0, 2: 0.5625, 3: 0.25, 4: 0.0625, 5: 0.0, 6: 0.0},
        why="squares of 1, 3/4, 1/2, 1/4, 0",
    ),
    Case(
        schedule=Polynomial(steps=4, power=0.5, floor=0.2),
        written="Polynomial(steps=4, power=0.5, floor=0.2)",
        factors={1: 1.0, 3: 0.2 + 0.8 * ROOT_HALF, 4: 0.6, 5: 0.2, 10**9: 0.2},
        why="0.2 + 0.8 x sqrt of 1, 1/2, 1/4, 0",
    ),
    Case(
        schedule=CoolDown(steps=4, floor=0.2),
        written="CoolDown(steps=4, floor=0.2)",
        factors={1: 1.0, 2: 0.8, 3: 0.6, 4: 0.4, 5: 0.2, 6: 0.2},
        why="4 falls of 0.2",
    ),
    Case(
        schedule=CoolDown(steps=4, shape="cosine"),
        written='CoolDown(steps=4, shape="cosine")',
        factors={1: 1.0, 2: (1 + ROOT_HALF) / 2, 3: 0.5, 4: (1 - ROOT_HALF) / 2, 5: 0.0, 6: 0.0},
        why="(1 + cos) / 2 at 0, 45, 90, 135, 180 degrees",
    ),
    Case(
        schedule=CoolDown(steps=4, floor=0.2, shape="sqrt"),
        written='CoolDown(steps=4, floor=0.2, shape="sqrt")',
        factors={1: 1.0, 2: 0.6, 3: 0.2 + 0.8 * (1 - ROOT_HALF), 5: 0.2, 6: 0.2},
        why="0.2 + 0.8 x (1 - sqrt of 0, 1/4, 1/2, 1); Haegele et al. 2024",
    ),
    Case(
        schedule=CoolDown(steps=4, floor=0.0625, shape="exponential"),
        written='CoolDown(steps=4, floor=0.0625, shape="exponential")',
        factors={1: 1.0, 2: 0.5, 3: 0.25, 4: 0.125, 5: 0.0625, 6: 0.0625},
        why="to 1/16 in 4 steps, halved in each",
    ),
    Case(
        schedule=Step(every=2, gamma=0.5),
        written="Step(every=2, gamma=0.5)",
        factors={1: 1.0, 2: 1.0, 3: 0.5, 4: 0.5, 5: 0.25, 21: 1 / 1024},
        why="halved after 2, 4, ..., 20 steps",
    ),
    Case(
        schedule=MultiStep(at=[2, 3, 6], gamma=0.5),
        written="MultiStep(at=[2, 3, 6], gamma=0.5)",
        factors={1: 1.0, 2: 1.0, 3: 0.5, 4: 0.25, 6: 0.25, 7: 0.125, 10**9: 0.125},
        why="halved when 2, 3 and 6 steps are done",
    ),
    Case(
        schedule=Piecewise([(1, 0), (3, 1), (7, 0.2)]),
        written="Piecewise([(1, 0.0), (3, 1.0), (7, 0.2)])",
        factors={1: 0.0, 2: 0.5, 3: 1.0, 4: 0.8, 5: 0.6, 7: 0.2, 8: 0.2},
        why="up by 1/2 a step, down by 0.2 a step, then constant",
    ),
    Case(
        schedule=Piecewise([(5, 0.5)]),
        written="Piecewise([(5, 0.5)])",
        factors={1: 0.5, 5: 0.5, 9: 0.5},
        why="one point is a constant",
    ),
    Case(
        schedule=PowerDecay(hold=4, exponent=0.5),
        written="PowerDecay(hold=4, exponent=0.5)",
        factors={1: 1.0, 4: 1.0, 8: ROOT_HALF, 16: 0.5, 400: 0.1},
        why="1 over the square root of 1, 2, 4, 100; Shen et al. 2024",
    ),
    Case(
        schedule=CosineRestarts(first=4),
        written="CosineRestarts(first=4.0)",
        factors={1: 1.0, 2: (1 + ROOT_HALF) / 2, 3: 0.5, 4: (1 - ROOT_HALF) / 2, 5: 1.0, 7: 0.5, 4001: 1.0},
        why="half a cosine every 4 steps, whose 0 is where the next begins; Loshchilov and Hutter 2017",
    ),
    Case(
        schedule=CosineRestarts(first=2, mult=2),
        written="CosineRestarts(first=2.0, mult=2.0)",
        factors={1: 1.0, 2: 0.5, 3: 1.0, 5: 0.5, 7: 1.0, 11: 0.5, 15: 1.0, 23: 0.5, 31: 1.0},
        why="cycles of 2, 4, 8, 16 steps begin at t = 0, 2, 6, 14, 30; half way is a half",
    ),
    Case(
        schedule=CosineRestarts(first=2, cycles=2),
        written="CosineRestarts(first=2.0, cycles=2)",
        factors={1: 1.0, 2: 0.5, 3: 1.0, 4: 0.5, 5: 0.0, 6: 0.0, 10**9: 0.0},
        why="two cycles, then the end of the second for ever",
    ),
    Case(
        schedule=CosineRestarts(first=2, floor=0.1, decay=0.5),
        written="CosineRestarts(first=2.0, floor=0.1, decay=0.5)",
        factors={1: 1.0, 2: 0.55, 3: 0.5, 4: 0.3, 5: 0.25, 7: 0.125, 9: 0.1, 10: 0.1},
        why="peaks 1, 1/2, 1/4, 1/8, then not below 0.1; half way is the mean of peak and 0.1",
    ),
    Case(
        schedule=CosineRestarts(first=2.5),
        written="CosineRestarts(first=2.5)",
        factors={
            1: 1.0,
            2: (1 + COS_72) / 2,
            3: (1 - COS_36) / 2,
            4: (1 + COS_36) / 2,
            5: (1 - COS_72) / 2,
            6: 1.0,
        },
        why="72 degrees a step: 0, 72, 144, then 216 - 180, 288 - 180, 360 - 360",
    ),
    Case(
        schedule=OneCycle(steps=100),
        written="OneCycle(steps=100)",
        factors={1: 0.04, 30: 1.0, 100: 4e-6, 101: 4e-6},
        why="1/25; the peak at t = 0.3 x 100 - 1 = 29; 1/25 / 10000; Smith and Topin 2018",
    ),
    Case(
        schedule=OneCycle(steps=8, warm=0.5, div=4, final_div=8),
        written="OneCycle(steps=8, warm=0.5, div=4.0, final_div=8.0)",
        factors={1: 0.25, 2: 0.4375, 3: 0.8125, 4: 1.0, 6: 33 / 64, 8: 1 / 32, 9: 1 / 32},
        why="peak at t = 3; 1 - 3/4 (1 + cos) / 2 at 60, 120 degrees; half of 1 + 1/32 at t = 5; 1/4 / 8",
    ),
    Case(
        schedule=OneCycle(steps=8, warm=0.5, div=4, final_div=8, shape="linear"),
        written='OneCycle(steps=8, warm=0.5, div=4.0, final_div=8.0, shape="linear")',
        factors={1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0, 6: 33 / 64, 8: 1 / 32, 9: 1 / 32},
        why="up by 1/4 a step; the middle of 1 and 1/32 half way down",
    ),
    Case(
        schedule=OneCycle(steps=8, warm=0.375, div=4, final_div=8, three_phase=True),
        written="OneCycle(steps=8, warm=0.375, div=4.0, final_div=8.0, three_phase=True)",
        factors={1: 0.25, 2: 0.625, 3: 1.0, 4: 0.625, 5: 0.25, 6: 6.25 / 32, 8: 1 / 32, 9: 1 / 32},
        why="peak at t = 2, 1/4 again at t = 4; (1 + 7 (1 + cos 60) / 2) / 32 at a third of the rest",
    ),
    Case(
        schedule=OneCycle(steps=8, warm=0.375, div=4, final_div=8, shape="linear", three_phase=True),
        written='OneCycle(steps=8, warm=0.375, div=4.0, final_div=8.0, shape="linear", three_phase=True)',
        factors={1: 0.25, 2: 0.625, 3: 1.0, 4: 0.625, 5: 0.25, 6: 17 / 96, 8: 1 / 32, 9: 1 / 32},
        why="as before; 8/32 - 7/32 / 3 = 17/96 at a third of the rest",
    ),
    Case(
        schedule=OneCycle(steps=1),
        written="OneCycle(steps=1)",
        factors={1: 4e-6, 2: 4e-6},
        why="a run of one step is its own end, as in torch",
    ),
    Case(
        schedule=Cyclic(up=2, low=0.5),
        written="Cyclic(up=2, low=0.5)",
        factors={1: 0.5, 2: 0.75, 3: 1.0, 4: 0.75, 5: 0.5, 7: 1.0, 4003: 1.0},
        why="a quarter a step, up and down; Smith 2017",
    ),
    Case(
        schedule=Cyclic(up=2, down=4),
        written="Cyclic(up=2, down=4)",
        factors={1: 0.0, 2: 0.5, 3: 1.0, 4: 0.75, 5: 0.5, 6: 0.25, 7: 0.0, 8: 0.5},
        why="halves up, quarters down",
    ),
    Case(
        schedule=Cyclic(up=2, low=0.2, mode="triangular2"),
        written='Cyclic(up=2, low=0.2, mode="triangular2")',
        factors={1: 0.2, 2: 0.6, 3: 1.0, 5: 0.2, 6: 0.4, 7: 0.6, 11: 0.4, 4403: 0.2},
        why="peaks 0.2 + 0.8 x (1, 1/2, 1/4); 2^-1100 is less than any float",
    ),
    Case(
        schedule=Cyclic(up=2, mode="exp_range", gamma=0.5),
        written='Cyclic(up=2, mode="exp_range", gamma=0.5)',
        factors={1: 0.0, 2: 0.25, 3: 0.25, 4: 0.0625, 5: 0.0, 7: 1 / 64, 4003: 0.0},
        why="1/2 x 1/2, 1 x 1/4, 1/2 x 1/8, 0, 1 x 2^-6; 2^-4002 is less than any float",
    ),
    Case(
        schedule=WarmupStableDecay(warmup=2, stable=3, decay=4),
        written="WarmupStableDecay(warmup=2, stable=3, decay=4)",
        factors={1: 0.5, 2: 1.0, 4: 1.0, 5: 1.0, 6: 0.75, 7: 0.5, 8: 0.25, 9: 0.0, 10: 0.0},
        why="halves up, 3 further steps at the peak, quarters down to 0 at s = 2 + 3 + 4; Hu et al. 2024",
    ),
    Case(
        schedule=WarmupStableDecay(warmup=2, stable=3, decay=4, floor=0.2),
        written="WarmupStableDecay(warmup=2, stable=3, decay=4, floor=0.2)",
        factors={1: 0.6, 2: 1.0, 5: 1.0, 6: 0.8, 7: 0.6, 8: 0.4, 9: 0.2, 10: 0.2},
        why="half way from 0.2 to 1; down by 0.2",
    ),
    Case(
        schedule=WarmupStableDecay(warmup=0, stable=0, decay=4, shape="cosine"),
        written='WarmupStableDecay(warmup=0, stable=0, decay=4, shape="cosine")',
        factors={1: 1.0, 2: (1 + ROOT_HALF) / 2, 3: 0.5, 4: (1 - ROOT_HALF) / 2, 5: 0.0},
        why="the cool-down alone: (1 + cos) / 2 at 0, 45, 90, 135, 180 degrees",
    ),
    Case(
        schedule=WarmupStableDecay(warmup=1, stable=2, decay=4, shape="sqrt"),
        written='WarmupStableDecay(warmup=1, stable=2, decay=4, shape="sqrt")',
        factors={1: 1.0, 3: 1.0, 4: 0.5, 5: 1 - ROOT_HALF, 7: 0.0},
        why="1 - sqrt of 1/4, 2/4, 1 from s = 3 on; Haegele et al. 2024",
    ),
    Case(
        schedule=WarmupStableDecay(warmup=2, stable=0, decay=4, floor=0.0625, shape="exponential"),
        written='WarmupStableDecay(warmup=2, stable=0, decay=4, floor=0.0625, shape="exponential")',
        factors={1: 17 / 32, 2: 1.0, 3: 0.5, 4: 0.25, 5: 0.125, 6: 0.0625, 7: 0.0625},
        why="half way from 1/16 to 1; halved down to 1/16",
    ),
    Case(
        schedule=TriStage(warmup=2, hold=1, decay=2),
        written="TriStage(warmup=2, hold=1, decay=2)",
        factors={1: 0.01, 2: 0.505, 3: 1.0, 4: 1.0, 5: 0.1, 6: 0.01, 7: 0.01},
        why="half way from 0.01; a tenth in each of two steps down; SpecAugment, wav2vec 2.0",
    ),
    Case(
        schedule=TriStage(warmup=4, hold=2, decay=2, start=0.2, end=0.25),
        written="TriStage(warmup=4, hold=2, decay=2, start=0.2, end=0.25)",
        factors={1: 0.2, 2: 0.4, 3: 0.6, 4: 0.8, 5: 1.0, 6: 1.0, 7: 1.0, 8: 0.5, 9: 0.25, 10: 0.25},
        why="up by 0.2; steps 5 and 6 held; from step 7 halved twice",
    ),
    Case(
        schedule=TriStage(warmup=0, hold=0, decay=2, end=0.25),
        written="TriStage(warmup=0, hold=0, decay=2, end=0.25)",
        factors={1: 1.0, 2: 0.5, 3: 0.25, 4: 0.25},
        why="the fall alone",
    ),
    Case(
        schedule=InfiniteCosine(warmup=2, cosine=2, hold=3, decay=2, level=0.5, floor=0.125),
        written="InfiniteCosine(warmup=2, cosine=2, hold=3, decay=2, floor=0.125)",
        factors={1: 0.5, 2: 1.0, 3: 0.75, 4: 0.5, 6: 0.5, 7: 0.5, 8: 0.25, 9: 0.125, 10: 0.125},
        why="half a cosine from 1 to 1/2, 3 steps held, halved twice; Ibrahim et al. 2024",
    ),
    Case(
        schedule=Shift(Linear(steps=4), 2),
        written="Shift(Linear(steps=4), 2)",
        factors={1: 0.5, 2: 0.25, 3: 0.0, 4: 0.0},
        why="the curve from its third step on",
    ),
    Case(
        schedule=Shift(Linear(steps=4), -2),
        written="Shift(Linear(steps=4), -2)",
        factors={1: 1.0, 2: 1.0, 3: 1.0, 4: 0.75, 7: 0.0},
        why="two steps later; before its beginning the curve has its first value",
    ),
    Case(
        schedule=Alternating(low=0.25),
        written="tests.cases.Alternating(low=0.25)",
        factors={1: 1.0, 2: 0.25, 3: 1.0},
        why="a user's own class goes by its dotted path",
    ),
]

# Curves that listen: after every metric, the factor.
HEARD: list[Heard] = [
    Heard(
        schedule=ReduceOnPlateau(),
        written="ReduceOnPlateau()",
        told=[(1.0, 1.0)] + [(1.0, 1.0)] * 10 + [(1.0, 0.1)] + [(1.0, 0.1)] * 10 + [(1.0, 0.01)],
        why="10 metrics that are no better are put up with, the 11th is not",
    ),
    Heard(
        schedule=ReduceOnPlateau(factor=0.5, patience=1),
        written="ReduceOnPlateau(factor=0.5, patience=1)",
        told=[(2, 1), (1, 1), (1.5, 1), (1.2, 0.5), (1.1, 0.5), (0.9, 0.5), (0.95, 0.5), (0.9, 0.25)],
        why="two in a row not below 1, counted anew after the reduction and after the better 0.9",
    ),
    Heard(
        schedule=ReduceOnPlateau(factor=0.5, patience=0, threshold=0.1),
        written="ReduceOnPlateau(factor=0.5, patience=0, threshold=0.1)",
        told=[(10, 1), (9.5, 0.5), (8.9, 0.5), (8.1, 0.25)],
        why="better is below 9, then, with 8.9 the best, below 8.01",
    ),
    Heard(
        schedule=ReduceOnPlateau(factor=0.5, patience=0, threshold=0.5, threshold_mode="abs"),
        written='ReduceOnPlateau(factor=0.5, patience=0, threshold=0.5, threshold_mode="abs")',
        told=[(10, 1), (9.5, 0.5), (9.25, 0.5), (8.875, 0.25)],
        why="better is below 9.5, then below 8.75",
    ),
    Heard(
        schedule=ReduceOnPlateau(factor=0.5, patience=0, threshold=0.25, mode="max"),
        written='ReduceOnPlateau(factor=0.5, patience=0, threshold=0.25, mode="max")',
        told=[(8, 1), (10, 0.5), (10.5, 0.5), (13, 0.25), (13.25, 0.25)],
        why="better is above 10, then above 13.125",
    ),
    Heard(
        schedule=ReduceOnPlateau(factor=0.5, patience=0, threshold=0.5, threshold_mode="abs", mode="max"),
        written='ReduceOnPlateau(factor=0.5, patience=0, threshold=0.5, threshold_mode="abs", mode="max")',
        told=[(-8, 1), (-7.5, 0.5), (-7.25, 0.5)],
        why="better is above -7.5",
    ),
    Heard(
        schedule=ReduceOnPlateau(factor=0.5, patience=0, cooldown=2),
        written="ReduceOnPlateau(factor=0.5, patience=0, cooldown=2)",
        told=[(1, 1), (1, 0.5), (1, 0.5), (1, 0.5), (1, 0.25)],
        why="two metrics after a reduction are not counted",
    ),
    Heard(
        schedule=ReduceOnPlateau(factor=0.5, patience=0, floor=0.3),
        written="ReduceOnPlateau(factor=0.5, patience=0, floor=0.3)",
        told=[(1, 1), (1, 0.5), (1, 0.3), (1, 0.3)],
        why="not 0.25",
    ),
    Heard(
        schedule=ReduceOnPlateau(factor=0.5, patience=0, eps=0.3),
        written="ReduceOnPlateau(factor=0.5, patience=0, eps=0.3)",
        told=[(1, 1), (1, 0.5), (1, 0.5), (1, 0.5)],
        why="from 0.5 it would fall by 0.25, which is not above 0.3",
    ),
    Heard(
        schedule=ReduceOnPlateau(factor=0.5, patience=0),
        written="ReduceOnPlateau(factor=0.5, patience=0)",
        told=[(math.nan, 0.5), (1, 0.5), (math.nan, 0.25), (math.inf, 0.125), (0.5, 0.125)],
        why="neither NaN nor infinity is better than anything",
    ),
    Heard(
        schedule=NewBob(),
        written="NewBob()",
        told=[(2, 1), (1, 1), (0.9999, 0.5), (0.5, 0.5), (0.6, 0.25), (0.3, 0.25)],
        why="improvements 1/2, 0.0001, 1/2, -1/5, 1/2; those below 0.0025 halve",
    ),
    Heard(
        schedule=NewBob(factor=0.25, threshold=0.125, patience=1),
        written="NewBob(factor=0.25, threshold=0.125, patience=1)",
        told=[(8, 1), (7.5, 1), (7, 0.25), (3.5, 0.25), (3.5, 0.25), (3.5, 0.0625)],
        why="1/16 put up with, 1/15 not; 1/2; 0 put up with, 0 not",
    ),
    Heard(
        schedule=NewBob(threshold=-0.5),
        written="NewBob(threshold=-0.5)",
        told=[(0, 1), (0, 1), (2, 1), (2.75, 1), (5.5, 0.5)],
        why="after a 0 the improvement is 0; then -3/8 and -1, of which only the last is below -1/2",
    ),
    Heard(
        schedule=Warmup(steps=4, then=ReduceOnPlateau(factor=0.5, patience=0), start=0.25),
        written="Warmup(steps=4, then=ReduceOnPlateau(factor=0.5, patience=0), start=0.25)",
        told=[(1, 0.625), (1, 0.375)],
        why="at step 2 of 4, half way from 1/4 to 1, and to 1/2",
        step=2,
    ),
    Heard(
        schedule=Warmup(steps=4, then=NewBob()),
        written="Warmup(steps=4, then=NewBob())",
        told=[(1, 1), (1, 0.5), (1, 0.25)],
        why="after the ramp it is what was heard",
        step=7,
    ),
]

FORMS = 'or "3ep", "10%", "1e6samples", "1e9tok" or "rest"'
LISTENS = "which listens to a metric: a feedback schedule stands alone, or as `then` of a Warmup"

# What must be refused when it is built: (a constructor, its message).
BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: Constant(-1), "Constant: value must be a finite number >= 0, got -1"),
    (lambda: Constant(math.inf), "Constant: value must be a finite number >= 0, got inf"),
    (lambda: Constant("1"), "Constant: value must be a finite number >= 0, got '1'; write it without quotes"),
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
    (
        lambda: Custom("math.pi"),
        "Custom: fn: 'math.pi' may not be called from here. Name a function of math, or one of one number "
        "that is written with def in a module beside the configuration or in a package",
    ),
    (lambda: Custom("sqrt"), "Custom: fn: 'sqrt' is not a dotted path like 'package.module.Name'"),
    (
        lambda: Linear(steps="9"),
        f"Linear: steps must be a whole number of real steps >= 1, {FORMS}, got '9'; write it without quotes",
    ),
    (lambda: Linear(steps="110%"), "Linear: steps is '110%' of the run; at most 100%"),
    (
        lambda: Cosine(steps="0ep"),
        f"Cosine: steps must be a whole number of real steps >= 1, {FORMS}, got '0ep'",
    ),
    (
        lambda: Cosine(steps="1e999ep"),
        f"Cosine: steps must be a whole number of real steps >= 1, {FORMS}, got '1e999ep'",
    ),
    (lambda: InverseSqrt(shift="10%"), "InverseSqrt: shift must be a finite number > 0, got '10%'"),
    (lambda: Constant("10%"), "Constant: value must be a finite number >= 0, got '10%'"),
    (
        lambda: Polynomial(steps=0, power=1),
        "Polynomial: steps must be a whole number of real steps >= 1, got 0",
    ),
    (lambda: Polynomial(steps=4, power=0), "Polynomial: power must be a finite number > 0, got 0"),
    (
        lambda: Polynomial(steps=4, power=1, floor=1.5),
        "Polynomial: floor must be a finite number >= 0 and <= 1, got 1.5",
    ),
    (lambda: CoolDown(steps=0), "CoolDown: steps must be a whole number of real steps >= 1, got 0"),
    (
        lambda: CoolDown(steps=4, floor=-0.5),
        "CoolDown: floor must be a finite number >= 0 and <= 1, got -0.5",
    ),
    (
        lambda: CoolDown(steps=4, shape="sqr"),
        "CoolDown: shape: 'sqr' is not known. Did you mean 'sqrt'? Known: cosine, exponential, linear, sqrt.",
    ),
    (
        lambda: CoolDown(steps=4, shape="exponential"),
        "CoolDown: shape 'exponential' needs floor > 0, got 0.0",
    ),
    (lambda: Step(every=0, gamma=0.5), "Step: every must be a whole number of real steps >= 1, got 0"),
    (lambda: Step(every=2, gamma=0), "Step: gamma must be a finite number > 0, got 0"),
    (lambda: MultiStep(at=3, gamma=0.5), "MultiStep: at must be a list of real steps, got 3"),
    (
        lambda: MultiStep(at=[3, 0], gamma=0.5),
        "MultiStep: at[1] must be a whole number of real steps >= 1, got 0",
    ),
    (lambda: MultiStep(at=[3, 3], gamma=0.5), "MultiStep: at: the real steps must rise, got [3, 3]"),
    (lambda: MultiStep(at=[3], gamma=-1), "MultiStep: gamma must be a finite number > 0, got -1"),
    (lambda: Piecewise([]), "Piecewise: points must be a list of (real step, factor), got []"),
    (lambda: Piecewise([3]), "Piecewise: points[0] must be a pair (real step, factor), got 3"),
    (
        lambda: Piecewise([(0, 1)]),
        "Piecewise: points[0]: real step must be a whole number of real steps >= 1, got 0",
    ),
    (
        lambda: Piecewise([(1, 1), (2, -1)]),
        "Piecewise: points[1]: factor must be a finite number >= 0, got -1",
    ),
    (lambda: Piecewise([(2, 1), (1, 1)]), "Piecewise: points: the real steps must rise, got [2, 1]"),
    (
        lambda: PowerDecay(hold=0, exponent=1),
        "PowerDecay: hold must be a whole number of real steps >= 1, got 0",
    ),
    (lambda: PowerDecay(hold=4, exponent=0), "PowerDecay: exponent must be a finite number > 0, got 0"),
    (lambda: CosineRestarts(first=0), "CosineRestarts: first must be a finite number >= 1e-06, got 0"),
    (
        lambda: CosineRestarts(first="soon"),
        f"CosineRestarts: first must be a whole number of real steps >= 1, {FORMS}, got 'soon'",
    ),
    (
        lambda: CosineRestarts(first=4, mult=0.5),
        "CosineRestarts: mult must be a finite number >= 1 and <= 1e+06, got 0.5",
    ),
    (
        lambda: CosineRestarts(first=4, mult=1e300),
        "CosineRestarts: mult must be a finite number >= 1 and <= 1e+06, got 1e+300",
    ),
    (lambda: CosineRestarts(first=4, cycles=0), "CosineRestarts: cycles must be a whole number >= 1, got 0"),
    (
        lambda: CosineRestarts(first=4, floor=2),
        "CosineRestarts: floor must be a finite number >= 0 and <= 1, got 2",
    ),
    (
        lambda: CosineRestarts(first=4, decay=0),
        "CosineRestarts: decay must be a finite number <= 1 and > 0, got 0",
    ),
    (lambda: OneCycle(steps=0), "OneCycle: steps must be a whole number of real steps >= 1, got 0"),
    (lambda: OneCycle(steps=9, warm=0), "OneCycle: warm must be a finite number <= 1 and > 0, got 0"),
    (
        lambda: OneCycle(steps=9, warm=0.6, three_phase=True),
        "OneCycle: warm must be a finite number <= 0.5 and > 0, got 0.6",
    ),
    (lambda: OneCycle(steps=9, div=0.5), "OneCycle: div must be a finite number >= 1, got 0.5"),
    (lambda: OneCycle(steps=9, final_div=0.5), "OneCycle: final_div must be a finite number >= 1, got 0.5"),
    (
        lambda: OneCycle(steps=9, shape="cos"),
        "OneCycle: shape: 'cos' is not known. Did you mean 'cosine'? Known: cosine, linear.",
    ),
    (lambda: OneCycle(steps=9, three_phase=1), "OneCycle: three_phase must be True or False, got 1"),
    (lambda: Cyclic(up=0), "Cyclic: up must be a whole number of real steps >= 1, got 0"),
    (lambda: Cyclic(up=4, down=0), "Cyclic: down must be a whole number of real steps >= 1, got 0"),
    (lambda: Cyclic(up=4, low=2), "Cyclic: low must be a finite number >= 0 and <= 1, got 2"),
    (
        lambda: Cyclic(up=4, mode="triangle"),
        "Cyclic: mode: 'triangle' is not known. Did you mean 'triangular'? "
        "Known: exp_range, triangular, triangular2.",
    ),
    (lambda: Cyclic(up=4, mode="exp_range", gamma=0), "Cyclic: gamma must be a finite number > 0, got 0"),
    (lambda: Cyclic(up=4, gamma=0.9), "Cyclic: gamma is for mode 'exp_range', got mode 'triangular'"),
    (
        lambda: WarmupStableDecay(warmup=-1, stable=4, decay=4),
        "WarmupStableDecay: warmup must be a whole number of real steps >= 0, got -1",
    ),
    (
        lambda: WarmupStableDecay(warmup=4, stable=-1, decay=4),
        "WarmupStableDecay: stable must be a whole number of real steps >= 0, got -1",
    ),
    (
        lambda: WarmupStableDecay(warmup=4, stable=4, decay=0),
        "WarmupStableDecay: decay must be a whole number of real steps >= 1, got 0",
    ),
    (
        lambda: WarmupStableDecay(warmup=4, stable=4, decay=4, floor=2),
        "WarmupStableDecay: floor must be a finite number >= 0 and <= 1, got 2",
    ),
    (
        lambda: WarmupStableDecay(warmup=4, stable=4, decay=4, shape="squart"),
        "WarmupStableDecay: shape: 'squart' is not known. Did you mean 'sqrt'? "
        "Known: cosine, exponential, linear, sqrt.",
    ),
    (
        lambda: WarmupStableDecay(warmup=4, stable=4, decay=4, shape="exponential"),
        "WarmupStableDecay: shape 'exponential' needs floor > 0, got 0.0",
    ),
    (
        lambda: TriStage(warmup=-1, hold=4, decay=4),
        "TriStage: warmup must be a whole number of real steps >= 0, got -1",
    ),
    (
        lambda: TriStage(warmup=4, hold=-1, decay=4),
        "TriStage: hold must be a whole number of real steps >= 0, got -1",
    ),
    (
        lambda: TriStage(warmup=4, hold=4, decay=0),
        "TriStage: decay must be a whole number of real steps >= 1, got 0",
    ),
    (
        lambda: TriStage(warmup=4, hold=4, decay=4, start=-1),
        "TriStage: start must be a finite number >= 0, got -1",
    ),
    (
        lambda: TriStage(warmup=4, hold=4, decay=4, end=0),
        "TriStage: end must be a finite number <= 1 and > 0, got 0",
    ),
    (
        lambda: InfiniteCosine(warmup=-1, cosine=4, hold=4, decay=4),
        "InfiniteCosine: warmup must be a whole number of real steps >= 0, got -1",
    ),
    (
        lambda: InfiniteCosine(warmup=4, cosine=0, hold=4, decay=4),
        "InfiniteCosine: cosine must be a whole number of real steps >= 1, got 0",
    ),
    (
        lambda: InfiniteCosine(warmup=4, cosine=4, hold=-1, decay=4),
        "InfiniteCosine: hold must be a whole number of real steps >= 0, got -1",
    ),
    (
        lambda: InfiniteCosine(warmup=4, cosine=4, hold=4, decay=0),
        "InfiniteCosine: decay must be a whole number of real steps >= 1, got 0",
    ),
    (
        lambda: InfiniteCosine(warmup=4, cosine=4, hold=4, decay=4, level=0),
        "InfiniteCosine: level must be a finite number <= 1 and > 0, got 0",
    ),
    (
        lambda: InfiniteCosine(warmup=4, cosine=4, hold=4, decay=4, level=0.25, floor=0.5),
        "InfiniteCosine: floor (not above level) must be a finite number <= 0.25 and > 0, got 0.5",
    ),
    (lambda: Shift(4, 2), "Shift: inner must be a schedule, got 4"),
    (lambda: Shift(Constant(), 0.5), "Shift: by must be a whole number of real steps, got 0.5"),
    (lambda: Shift(ReduceOnPlateau(), 1), f"Shift: inner cannot be ReduceOnPlateau, {LISTENS}"),
    (
        lambda: Warmup(steps=4, then=Warmup(steps=4, then=NewBob())),
        f"Warmup: then cannot be Warmup, {LISTENS}",
    ),
    (lambda: Sequence([(NewBob(), 3)], Constant()), f"Sequence: phases[0] cannot be NewBob, {LISTENS}"),
    (lambda: Sequence([], Warmup(steps=4, then=NewBob())), f"Sequence: last cannot be Warmup, {LISTENS}"),
    (lambda: Product(HalvedWhenWorse(), Constant()), f"Product: a cannot be HalvedWhenWorse, {LISTENS}"),
    (lambda: Clamp(inner=NewBob(), low=0, high=1), f"Clamp: inner cannot be NewBob, {LISTENS}"),
    (lambda: PerEpoch(inner=NewBob(), steps_per_epoch=3), f"PerEpoch: inner cannot be NewBob, {LISTENS}"),
    (lambda: Custom(Warmup(steps=4, then=NewBob())), f"Custom: fn cannot be Warmup, {LISTENS}"),
    (lambda: ReduceOnPlateau(factor=1), "ReduceOnPlateau: factor must be a finite number > 0 and < 1, got 1"),
    (
        lambda: ReduceOnPlateau(patience=-1),
        "ReduceOnPlateau: patience must be a whole number of metrics >= 0, got -1",
    ),
    (
        lambda: ReduceOnPlateau(patience="3ep"),
        "ReduceOnPlateau: patience must be a whole number of metrics >= 0, got '3ep'",
    ),
    (
        lambda: ReduceOnPlateau(threshold=-1),
        "ReduceOnPlateau: threshold must be a finite number >= 0, got -1",
    ),
    (
        lambda: ReduceOnPlateau(threshold_mode="relative"),
        "ReduceOnPlateau: threshold_mode: 'relative' is not known. Did you mean 'rel'? Known: abs, rel.",
    ),
    (
        lambda: ReduceOnPlateau(cooldown=-1),
        "ReduceOnPlateau: cooldown must be a whole number of metrics >= 0, got -1",
    ),
    (lambda: ReduceOnPlateau(mode="least"), "ReduceOnPlateau: mode: 'least' is not known. Known: max, min."),
    (lambda: ReduceOnPlateau(floor=2), "ReduceOnPlateau: floor must be a finite number >= 0 and <= 1, got 2"),
    (lambda: ReduceOnPlateau(eps=-1), "ReduceOnPlateau: eps must be a finite number >= 0, got -1"),
    (lambda: NewBob(factor=0), "NewBob: factor must be a finite number > 0 and < 1, got 0"),
    (lambda: NewBob(threshold=math.nan), "NewBob: threshold must be a finite number, got nan"),
    (lambda: NewBob(patience=0.5), "NewBob: patience must be a whole number of metrics >= 0, got 0.5"),
    (lambda: Product(Constant(), HalvedWhenWorse()), f"Product: b cannot be HalvedWhenWorse, {LISTENS}"),
    (lambda: Custom(HalvedWhenWorse()), f"Custom: fn cannot be HalvedWhenWorse, {LISTENS}"),
    (lambda: Product(Constant(), 2), "Product: b must be a schedule, got 2"),
    (
        lambda: PerEpoch(inner=Constant(), steps_per_epoch="0ep"),
        f"PerEpoch: steps_per_epoch must be a whole number of real steps >= 1, {FORMS}, got '0ep'",
    ),
]

_STEPS = st.integers(1, 10_000)
_SHORT = st.integers(0, 1000)
_FACTORS = st.floats(0, 1e6)
_SHARE = st.floats(0, 1)
_GAMMAS = st.floats(1e-3, 1)
_COOL_DOWNS = st.sampled_from(["linear", "cosine", "sqrt", "exponential"])


def _as_points(factors: dict[int, float]) -> list[tuple[int, float]]:
    return sorted(factors.items())


_PLAIN = st.one_of(
    st.builds(Constant, _FACTORS),
    st.builds(Linear, steps=_STEPS, start=_FACTORS, end=_FACTORS),
    st.builds(Cosine, steps=_STEPS, floor=st.floats(0, 1)),
    st.builds(Exponential, gamma=st.floats(1e-3, 1), every=_STEPS, staircase=st.booleans()),
    st.builds(InverseSqrt, shift=st.floats(1e-3, 1e6)),
    st.builds(Noam, warmup_steps=_STEPS),
    st.builds(Polynomial, steps=_STEPS, power=st.floats(1e-3, 1e3), floor=_SHARE),
    st.builds(CoolDown, steps=_STEPS, floor=st.floats(1e-6, 1), shape=_COOL_DOWNS),
    st.builds(Step, every=_STEPS, gamma=_GAMMAS),
    st.builds(MultiStep, at=st.lists(_STEPS, max_size=5, unique=True).map(sorted), gamma=_GAMMAS),
    st.builds(Piecewise, st.dictionaries(_STEPS, _FACTORS, min_size=1, max_size=5).map(_as_points)),
    st.builds(PowerDecay, hold=_STEPS, exponent=st.floats(1e-3, 1e3)),
    st.builds(
        CosineRestarts,
        first=st.floats(0.1, 1e4),
        mult=st.floats(1, 10),
        cycles=st.none() | st.integers(1, 10),
        floor=_SHARE,
        decay=_GAMMAS,
    ),
    st.builds(
        OneCycle,
        steps=_STEPS,
        warm=st.floats(0.01, 0.5),
        div=st.floats(1, 1e6),
        final_div=st.floats(1, 1e6),
        shape=st.sampled_from(["cosine", "linear"]),
        three_phase=st.booleans(),
    ),
    st.builds(
        Cyclic,
        up=_STEPS,
        down=st.none() | _STEPS,
        low=_SHARE,
        mode=st.sampled_from(["triangular", "triangular2"]),
    ),
    st.builds(Cyclic, up=_STEPS, down=_STEPS, low=_SHARE, mode=st.just("exp_range"), gamma=_GAMMAS),
    st.builds(
        WarmupStableDecay,
        warmup=_SHORT,
        stable=_SHORT,
        decay=_STEPS,
        floor=st.floats(1e-6, 1),
        shape=_COOL_DOWNS,
    ),
    st.builds(TriStage, warmup=_SHORT, hold=_SHORT, decay=_STEPS, start=_FACTORS, end=st.floats(1e-6, 1)),
    st.builds(
        InfiniteCosine,
        warmup=_SHORT,
        cosine=_STEPS,
        hold=_SHORT,
        decay=_STEPS,
        level=st.floats(0.5, 1),
        floor=st.floats(1e-6, 0.5),
    ),
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
        st.builds(Shift, inner, st.integers(-1000, 1000)),
    )


def schedules() -> st.SearchStrategy[Schedule]:
    """Any schedule, combinations of combinations included."""
    return st.recursive(_PLAIN, _combined, max_leaves=5)


def feedback_schedules() -> st.SearchStrategy[FeedbackSchedule[dict[str, float]]]:
    """Any schedule that listens to a metric, without a warm-up."""
    patience = st.integers(0, 3)
    return st.one_of(
        st.builds(
            ReduceOnPlateau,
            factor=st.floats(0.01, 0.99),
            patience=patience,
            threshold=st.floats(0, 0.5),
            threshold_mode=st.sampled_from(["rel", "abs"]),
            cooldown=patience,
            mode=st.sampled_from(["min", "max"]),
            floor=_SHARE,
            eps=st.floats(0, 0.1),
        ),
        st.builds(NewBob, factor=st.floats(0.01, 0.99), threshold=st.floats(-1, 1), patience=patience),
        st.builds(HalvedWhenWorse, by=st.floats(0.01, 1)),
    )

"""What the gallery shows: for every schedule examples, how long they are drawn, and its names elsewhere.

A schedule of `SCHEDULES` without an entry here fails the build of the documentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from optimscheduler.schedules import (
    Clamp,
    Constant,
    CoolDown,
    Cosine,
    CosineRestarts,
    Custom,
    Cyclic,
    Exponential,
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
    Sequence,
    Shift,
    Step,
    TriStage,
    Warmup,
    WarmupStableDecay,
)
from optimscheduler.schedules.grammar import AnySchedule

__all__ = ["SECTIONS", "Entry", "swing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One schedule of the gallery.

    Args:
        curves: label -> schedule, drawn over one another; the first is the example that is written out.
        elsewhere: library -> what it calls this, in Markdown.
        steps: how many real steps are drawn, >= 1.
        metrics: what a feedback schedule hears, one after each of as many equal parts of `steps`.
    """

    curves: Mapping[str, AnySchedule]
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    steps: int = 10_000
    metrics: tuple[float, ...] = ()

    @property
    def example(self) -> AnySchedule:
        """The schedule that is written out."""
        return next(iter(self.curves.values()))

    @property
    def name(self) -> str:
        """The schedule's name in a configuration."""
        return type(self.example).__name__


def swing(step: int) -> float:
    """A function for `Custom`: between 0.2 and 1, four times in 10,000 real steps."""
    return 0.6 + 0.4 * math.cos(2 * math.pi * (step - 1) / 2500)


_LOSSES: Final = (
    *(1.0, 0.8, 0.66, 0.57, 0.51, 0.48, 0.47, 0.47, 0.47, 0.46),
    *(0.42, 0.4, 0.39, 0.39, 0.39, 0.38, 0.36, 0.35, 0.35, 0.35),
)
"""A validation loss that falls, flattens, and falls again when the learning rate does."""

_CURVES: Final = (
    Entry(
        curves={"Constant()": Constant(), "Constant(0.5)": Constant(0.5)},
        elsewhere={
            "transformers": "`constant`",
            "fairseq": "`fixed`",
            "optax": "`constant_schedule`",
            "Composer": "`ConstantScheduler`",
        },
    ),
    Entry(
        curves={
            "steps=8000": Linear(steps=8000),
            "end=0.2": Linear(steps=8000, end=0.2),
            "start=0.1, end=1": Linear(steps=8000, start=0.1, end=1),
        },
        elsewhere={
            "torch": "`LinearLR`",
            "transformers": "`linear`",
            "fairseq": "`polynomial_decay`, power 1",
            "SpeechBrain": "`LinearScheduler`",
            "optax": "`linear_schedule`",
            "Composer": "`LinearScheduler`",
        },
    ),
    Entry(
        curves={
            "power=0.9": Polynomial(steps=8000, power=0.9),
            "power=2": Polynomial(steps=8000, power=2),
            "power=0.5": Polynomial(steps=8000, power=0.5),
            "power=2, floor=0.2": Polynomial(steps=8000, power=2, floor=0.2),
        },
        elsewhere={
            "torch": "`PolynomialLR`",
            "transformers": "`polynomial`",
            "timm": "`PolyLRScheduler`",
            "fairseq": "`polynomial_decay`",
            "optax": "`polynomial_schedule`",
            "Composer": "`PolynomialScheduler`",
        },
    ),
    Entry(
        curves={"steps=8000": Cosine(steps=8000), "floor=0.1": Cosine(steps=8000, floor=0.1)},
        elsewhere={
            "torch": "`CosineAnnealingLR`, until `T_max`",
            "transformers": "`cosine`, `cosine_with_min_lr`",
            "timm": "`CosineLRScheduler`, one cycle",
            "fairseq": "`cosine`, one period",
            "optax": "`cosine_decay_schedule`",
            "Composer": "`CosineAnnealingScheduler`",
        },
    ),
    Entry(
        curves={
            "every=2000": Exponential(gamma=0.5, every=2000),
            "staircase=True": Exponential(gamma=0.5, every=2000, staircase=True),
        },
        elsewhere={
            "torch": "`ExponentialLR`, `every` = 1",
            "optax": "`exponential_decay`",
            "Composer": "`ExponentialScheduler`",
        },
    ),
    Entry(
        curves={
            "shift=1000": InverseSqrt(shift=1000),
            "shift=4000": InverseSqrt(shift=4000),
            "Warmup(1000) before it": Warmup(steps=1000, then=InverseSqrt(shift=1000)),
        },
        elsewhere={
            "transformers": "`inverse_sqrt`",
            "timm": '`WSDLRScheduler`, `stable_fn="rsqrt"`',
            "fairseq": "`inverse_sqrt`",
        },
    ),
    Entry(
        curves={
            "warmup_steps=1000": Noam(warmup_steps=1000),
            "warmup_steps=4000": Noam(warmup_steps=4000),
        },
        elsewhere={
            "fairseq": "`inverse_sqrt`, from a warm-up at 0",
            "SpeechBrain": "`NoamScheduler`",
            "ESPnet": "`WarmupLR`; with a model width `NoamLR`",
        },
    ),
    Entry(
        curves={
            "exponent=0.51": PowerDecay(hold=1000, exponent=0.51),
            "exponent=1": PowerDecay(hold=1000, exponent=1),
            "hold=4000": PowerDecay(hold=4000, exponent=0.51),
        },
        elsewhere={"timm": '`WSDLRScheduler`, `stable_fn="power"`, which begins to fall at once'},
    ),
    Entry(
        curves={
            "gamma=0.5": Step(every=2500, gamma=0.5),
            "gamma=0.1": Step(every=2500, gamma=0.1),
        },
        elsewhere={
            "torch": "`StepLR`",
            "timm": "`StepLRScheduler`",
            "fairseq": "`step`",
            "SpeechBrain": "`StepScheduler`",
            "optax": "`exponential_decay`, `staircase=True`",
            "Composer": "`StepScheduler`",
        },
    ),
    Entry(
        curves={
            "gamma=0.1": MultiStep(at=[3000, 6000, 9000], gamma=0.1),
            "gamma=0.5": MultiStep(at=[3000, 6000, 9000], gamma=0.5),
        },
        elsewhere={
            "torch": "`MultiStepLR`",
            "timm": "`MultiStepLRScheduler`",
            "optax": "`piecewise_constant_schedule`",
            "Composer": "`MultiStepScheduler`",
        },
    ),
    Entry(
        curves={"four points": Piecewise([(1, 0.1), (2000, 1), (5000, 0.4), (9000, 0)])},
        elsewhere={
            "fairseq": "`manual`, constant between the points",
            "ESPnet": "`PiecewiseLinearWarmupLR`, for the warm-up",
            "optax": '`piecewise_interpolate_schedule("linear", ...)`',
        },
    ),
    Entry(
        curves={
            'shape="linear"': CoolDown(steps=8000, floor=0.01),
            'shape="cosine"': CoolDown(steps=8000, floor=0.01, shape="cosine"),
            'shape="sqrt"': CoolDown(steps=8000, floor=0.01, shape="sqrt"),
            'shape="exponential"': CoolDown(steps=8000, floor=0.01, shape="exponential"),
        },
        elsewhere={
            "transformers": "`decay_type` of `warmup_stable_decay`",
            "timm": "`decay_fn` of `WSDLRScheduler`",
            "optax": "`linear_schedule`, `cosine_decay_schedule`, `exponential_decay`",
        },
    ),
)

_CYCLES: Final = (
    Entry(
        curves={
            "steps=10000": OneCycle(steps=10_000),
            'shape="linear"': OneCycle(steps=10_000, shape="linear"),
            "three_phase=True": OneCycle(steps=10_000, three_phase=True),
        },
        elsewhere={
            "torch": "`OneCycleLR`",
            "optax": "`cosine_onecycle_schedule`, `linear_onecycle_schedule`",
        },
    ),
    Entry(
        curves={
            "first=2500": CosineRestarts(first=2500),
            "first=1430, mult=2": CosineRestarts(first=1430, mult=2),
            "decay=0.6, floor=0.1": CosineRestarts(first=2500, floor=0.1, decay=0.6),
        },
        elsewhere={
            "torch": "`CosineAnnealingWarmRestarts`",
            "transformers": "`cosine_with_restarts`",
            "timm": "`CosineLRScheduler`: `cycle_mul`, `cycle_decay`, `cycle_limit`",
            "fairseq": "`cosine`: `t_mult`, `lr_shrink`",
            "ESPnet": "`CosineAnnealingWarmupRestarts`",
            "optax": "`sgdr_schedule`",
            "Composer": "`CosineAnnealingWarmRestartsScheduler`",
        },
    ),
    Entry(
        curves={
            'mode="triangular"': Cyclic(up=1250, low=0.1),
            'mode="triangular2"': Cyclic(up=1250, low=0.1, mode="triangular2"),
            "exp_range,\ngamma=0.9999": Cyclic(up=1250, low=0.1, mode="exp_range", gamma=0.9999),
        },
        elsewhere={
            "torch": "`CyclicLR`",
            "fairseq": "`triangular`",
            "SpeechBrain": "`CyclicLRScheduler`",
        },
    ),
)

_RECIPES: Final = (
    Entry(
        curves={
            'shape="linear"': WarmupStableDecay(warmup=1000, stable=7000, decay=2000),
            'shape="sqrt"': WarmupStableDecay(warmup=1000, stable=7000, decay=2000, shape="sqrt"),
            "stable=4000": WarmupStableDecay(warmup=1000, stable=4000, decay=2000),
        },
        elsewhere={"transformers": "`warmup_stable_decay`", "timm": "`WSDLRScheduler`"},
    ),
    Entry(
        curves={
            "end=0.01": TriStage(warmup=1000, hold=4000, decay=5000),
            "start=0.2, end=0.05": TriStage(warmup=1000, hold=4000, decay=5000, start=0.2, end=0.05),
        },
        elsewhere={"fairseq": "`tri_stage`", "SpeechBrain": "`TriStageLRSchedule`", "ESPnet": "`TristageLR`"},
    ),
    Entry(
        curves={
            "level=0.5": InfiniteCosine(warmup=500, cosine=3500, hold=4500, decay=1500),
            "level=0.25": InfiniteCosine(warmup=500, cosine=3500, hold=4500, decay=1500, level=0.25),
        },
    ),
)

_COMBINATORS: Final = (
    Entry(
        curves={
            'shape="linear"': Warmup(steps=4000, then=Cosine(steps=6000)),
            'shape="cosine"': Warmup(steps=4000, then=Cosine(steps=6000), shape="cosine"),
            'shape="power"': Warmup(steps=4000, then=Cosine(steps=6000), shape="power"),
            'shape="one_minus_sqrt"': Warmup(steps=4000, then=Cosine(steps=6000), shape="one_minus_sqrt"),
            "exponential,\nstart=0.01": Warmup(
                steps=4000, then=Cosine(steps=6000), start=0.01, shape="exponential"
            ),
        },
        elsewhere={
            "torch": "`LinearLR` in a `SequentialLR`",
            "transformers": "`num_warmup_steps`",
            "timm": "`warmup_t`, `warmup_lr_init`",
            "fairseq": "`warmup_updates`, `warmup_init_lr`",
            "SpeechBrain": "`LinearWarmupScheduler`, which goes on with `Linear`",
            "optax": "`warmup_constant_schedule`, `warmup_cosine_decay_schedule`",
            "Composer": "`...WithWarmupScheduler`",
        },
    ),
    Entry(
        curves={
            "a jump at each joint": Sequence(
                [(Linear(steps=4000, end=0.5), 4000), (Constant(0.8), 2000)], Cosine(steps=4000)
            )
        },
        elsewhere={"torch": "`SequentialLR`", "optax": "`join_schedules`"},
    ),
    Entry(
        curves={
            "by=3000": Shift(Cosine(steps=8000), 3000),
            "by=0": Cosine(steps=8000),
            "by=-2000": Shift(Cosine(steps=8000), -2000),
        },
        elsewhere={"torch": "`last_epoch`, to begin later"},
    ),
    Entry(
        curves={
            "both": Product(Linear(steps=10_000), Cyclic(up=1000, low=0.5)),
            "Linear": Linear(steps=10_000),
            "Cyclic": Cyclic(up=1000, low=0.5),
        },
        elsewhere={"torch": "`ChainedScheduler`"},
    ),
    Entry(
        curves={
            "low=0.2, high=0.8": Clamp(inner=Cosine(steps=8000), low=0.2, high=0.8),
            "inner": Cosine(steps=8000),
        },
    ),
    Entry(
        curves={
            "steps_per_epoch=1000": PerEpoch(inner=Cosine(steps=9), steps_per_epoch=1000),
        },
        elsewhere={
            "torch": "`scheduler.step()` once per epoch",
            "timm": "`t_in_epochs=True`, its default",
            "SpeechBrain": "its schedulers that take `current_epoch`",
        },
    ),
    Entry(
        curves={"swing": Custom(swing)},
        elsewhere={
            "torch": "`LambdaLR`",
            "optax": "any function of the count",
            "Composer": "any function of state and ratio",
        },
    ),
)

_FEEDBACK: Final = (
    Entry(
        curves={
            "factor=0.5, patience=1": ReduceOnPlateau(factor=0.5, patience=1),
            "patience=0, cooldown=2": ReduceOnPlateau(factor=0.5, patience=0, cooldown=2),
        },
        elsewhere={
            "torch": "`ReduceLROnPlateau`",
            "transformers": "`reduce_lr_on_plateau`",
            "timm": "`PlateauLRScheduler`",
            "fairseq": "`reduce_lr_on_plateau`",
            "SpeechBrain": "`ReduceLROnPlateau`",
            "ESPnet": "`WarmupReduceLROnPlateau`, with a warm-up",
            "optax": "`contrib.reduce_on_plateau`",
        },
        metrics=_LOSSES,
    ),
    Entry(
        curves={
            "threshold=0.0025": NewBob(),
            "threshold=0.03": NewBob(threshold=0.03),
        },
        elsewhere={"SpeechBrain": "`NewBobScheduler`"},
        metrics=_LOSSES,
    ),
)

SECTIONS: Final[Mapping[str, tuple[Entry, ...]]] = {
    "Curves": _CURVES,
    "Cycles": _CYCLES,
    "Recipes": _RECIPES,
    "Combinations": _COMBINATORS,
    "Curves that listen to a metric": _FEEDBACK,
}
"""Heading -> entries, in the order of the page."""

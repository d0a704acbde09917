"""Schedules: from the number of a real step to a factor of the base value. Pure Python, no torch.

>>> schedule = Warmup(steps=100, then=Cosine(steps=900, floor=0.1))
>>> [round(schedule(s), 3) for s in (1, 50, 100, 550, 1000)]
[0.01, 0.5, 1.0, 0.55, 0.1]
>>> schedule
Warmup(steps=100, then=Cosine(steps=900, floor=0.1))

A new schedule is a class in one of the files beside this one, and a name in `SCHEDULES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from optimscheduler.schedules.base import Constant, FeedbackSchedule, Product, Schedule
from optimscheduler.schedules.combine import Clamp, PerEpoch, Sequence, Shift, Warmup
from optimscheduler.schedules.curves import CoolDown, Cosine, Exponential, Linear, Polynomial
from optimscheduler.schedules.custom import Custom
from optimscheduler.schedules.cycles import CosineRestarts, Cyclic, OneCycle
from optimscheduler.schedules.feedback import NewBob, ReduceOnPlateau
from optimscheduler.schedules.interop import from_transformers, to_lambda
from optimscheduler.schedules.lengths import Run
from optimscheduler.schedules.powers import InverseSqrt, Noam, PowerDecay
from optimscheduler.schedules.recipes import InfiniteCosine, TriStage, WarmupStableDecay
from optimscheduler.schedules.steps import MultiStep, Piecewise, Step

__all__ = [
    "SCHEDULES",
    "Clamp",
    "Constant",
    "CoolDown",
    "Cosine",
    "CosineRestarts",
    "Custom",
    "Cyclic",
    "Exponential",
    "FeedbackSchedule",
    "InfiniteCosine",
    "InverseSqrt",
    "Linear",
    "MultiStep",
    "NewBob",
    "Noam",
    "OneCycle",
    "PerEpoch",
    "Piecewise",
    "Polynomial",
    "PowerDecay",
    "Product",
    "ReduceOnPlateau",
    "Run",
    "Schedule",
    "Sequence",
    "Shift",
    "Step",
    "TriStage",
    "Warmup",
    "WarmupStableDecay",
    "from_transformers",
    "to_lambda",
]

SCHEDULES: Final[Mapping[str, type[Schedule | FeedbackSchedule[Any]]]] = MappingProxyType(
    {
        cls.__name__: cls
        for cls in (
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
    }
)
"""The names that a configuration can use without a dotted path."""

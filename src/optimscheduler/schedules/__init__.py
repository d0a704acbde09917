"""Schedules: from the number of a real step to a factor of the base value. Pure Python, no torch.

>>> schedule = Warmup(steps=100, then=Cosine(steps=900, floor=0.1))
>>> [round(schedule(s), 3) for s in (1, 50, 100, 550, 1000)]
[0.01, 0.5, 1.0, 0.55, 0.1]
>>> schedule
Warmup(steps=100, then=Cosine(steps=900, floor=0.1))

A new schedule is a class in `curves.py` or `combine.py` and a row in this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from optimscheduler.schedules.base import FeedbackSchedule, Schedule
from optimscheduler.schedules.combine import Clamp, Custom, PerEpoch, Product, Sequence, Warmup
from optimscheduler.schedules.curves import Constant, Cosine, Exponential, InverseSqrt, Linear, Noam

__all__ = [
    "SCHEDULES",
    "Clamp",
    "Constant",
    "Cosine",
    "Custom",
    "Exponential",
    "FeedbackSchedule",
    "InverseSqrt",
    "Linear",
    "Noam",
    "PerEpoch",
    "Product",
    "Schedule",
    "Sequence",
    "Warmup",
]

SCHEDULES: Final[Mapping[str, type]] = MappingProxyType(
    {
        "Clamp": Clamp,
        "Constant": Constant,
        "Cosine": Cosine,
        "Custom": Custom,
        "Exponential": Exponential,
        "InverseSqrt": InverseSqrt,
        "Linear": Linear,
        "Noam": Noam,
        "PerEpoch": PerEpoch,
        "Product": Product,
        "Sequence": Sequence,
        "Warmup": Warmup,
    }
)
"""The names that a configuration can use without a dotted path."""

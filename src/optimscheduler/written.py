"""The types of what a user writes, for editors and type checkers; at run time it is checked anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from torch.optim import Optimizer

from optimscheduler.schedules import Schedule
from optimscheduler.schedules.grammar import AnySchedule
from optimscheduler.window.clock import AccumGrad

__all__ = [
    "AccumGrad",
    "ClipTogether",
    "GradNormType",
    "Layout",
    "LrClock",
    "Names",
    "OnMismatch",
    "OptimType",
    "ParamGroups",
    "Unowned",
    "UseAmp",
    "WrittenClip",
    "WrittenGuard",
    "WrittenSchedule",
    "WrittenSchedules",
]

OptimType: TypeAlias = str | type[Optimizer] | Optimizer
"""A name or a dotted path, a class, or an optimizer that is there already."""

Names: TypeAlias = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]
"""A name or pattern, or `{"name": ..., "ndim": ...}`; or several. Any: a list of names, a number or text."""

UseAmp: TypeAlias = bool | Literal["fp16", "bf16"]
GradNormType: TypeAlias = float | Literal["inf"]
LrClock: TypeAlias = Literal["window", "applied"]
Layout: TypeAlias = Literal["auto", "flat", "loose"]
Unowned: TypeAlias = Literal["warn", "error"]

OnMismatch: TypeAlias = Literal["error", "config", "checkpoint"]
"""Which side wins where a checkpoint's configuration is another: neither, the object's, the checkpoint's."""

WrittenSchedule: TypeAlias = AnySchedule | str | Mapping[str, Any]
"""A schedule, its `repr`, or `{"type": ..., "conf": ...}`. Any: arguments of one's own schedules."""

WrittenSchedules: TypeAlias = Mapping[str, Schedule | str | Mapping[str, Any]]
"""Number of the optimizer's groups -> its schedule, which listens to no metric."""

ParamGroups: TypeAlias = Sequence[Mapping[str, Any]]
"""Rules, each with a `name` or `ndim` and settings of the optimizer. Any: theirs."""

WrittenGuard: TypeAlias = float | Mapping[str, float]
"""The z of `SpikeGuard`, or its arguments."""

WrittenClip: TypeAlias = float | Mapping[str, float]
"""The largest norm, or `{"norm", "value"}` or `{"norm", "agc", "eps"}`, of which each may be left out."""

ClipTogether: TypeAlias = bool | Sequence[str] | Sequence[Sequence[str]] | None
"""All members, some by name, or several sets of names."""

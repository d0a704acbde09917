"""The curves that `optimscheduler plot` draws: of configurations, and of schedules written in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from optimscheduler.errors import ConfigError
from optimscheduler.run.plan.plan import Plan
from optimscheduler.schedules import (
    Clamp,
    CoolDown,
    Cosine,
    CosineRestarts,
    Cyclic,
    Linear,
    MultiStep,
    Noam,
    OneCycle,
    PerEpoch,
    Piecewise,
    Polynomial,
    Product,
    Run,
    Shift,
    Step,
    Warmup,
)
from optimscheduler.schedules import (
    Sequence as Phases,
)
from optimscheduler.schedules.base import Recipe
from optimscheduler.schedules.grammar import AnySchedule, read_schedule

__all__ = ["Curve", "curve_of_text", "curves_of_plan", "sorted_out", "span"]

_POINTS: Final = 2000
_DEFAULT: Final = 1000  # real steps of a schedule that says nothing of a length
_SCHEDULE: Final = re.compile(r"\s*[\w.]+\s*\(.*\)\s*", re.DOTALL)
_OVERRIDE: Final = re.compile(r"[\w.]+=.*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line of a picture.

    Attributes:
        label: what it is called.
        points: (real step, value), in order.
        value: at any real step.
    """

    label: str
    points: tuple[tuple[int, float], ...]
    value: Callable[[int], float]


def sorted_out(what: Sequence[str]) -> tuple[list[Path], list[str], list[str]]:
    """Configuration files, schedules in one line, and settings to change, as they were typed.

    Raises:
        ConfigError: something is none of them.
    """
    files, texts, overrides = [], [], []
    for text in what:
        if _SCHEDULE.fullmatch(text):
            texts.append(text)
        elif Path(text).exists() or text.endswith((".yaml", ".yml")):
            files.append(Path(text))
        elif _OVERRIDE.fullmatch(text):
            overrides.append(text)
        else:
            raise ConfigError(
                f"{text!r:.80} is neither a YAML file nor a schedule like 'Warmup(steps=500, "
                "then=Cosine(steps=9500))', nor a setting like num_epochs=3"
            )
    if overrides and len(files) != 1:
        raise ConfigError(f"{overrides[0]!r}: settings can be changed where there is one configuration alone")
    return files, texts, overrides


def curves_of_plan(name: str, plan: Plan) -> list[Curve]:
    """Of every OptimScheduler of a run.

    Raises:
        ConfigError: no optimizer has a learning rate.
    """
    if all(m.own_step_size for m in plan.members.values()):
        raise ConfigError(f"{name}: there is no learning rate to draw, the optimizer sets its own step size")
    return [
        Curve(label=name if len(plan.members) == 1 else f"{name}: {member}", points=m.curve, value=m.rate)
        for member, m in plan.members.items()
        if not m.own_step_size
    ]


def curve_of_text(text: str, steps: int | None, lr: float) -> Curve:
    """Of a schedule in one line.

    Args:
        text: its repr.
        steps: real steps to draw; None is what its lengths come to.
        lr: what the factor is multiplied by.

    Raises:
        ConfigError: there is no such schedule.
    """
    schedule: AnySchedule = read_schedule(text, "schedule")
    if not schedule.known:
        schedule = schedule.resolved(Run(steps=steps or _DEFAULT))
    listener = schedule.listener
    state = listener.start() if listener else None

    def value(step: int) -> float:
        return lr * schedule.value_at(step, state)

    end = steps or span(schedule) or _DEFAULT
    at = {*range(1, end + 1, max(1, end // _POINTS)), end}
    return Curve(label=text.strip(), points=tuple((s, value(s)) for s in sorted(at)), value=value)


def span(schedule: object) -> int | None:
    """Real steps until nothing changes any more, or what is worth looking at; None where nothing says it.

    >>> span(read_schedule("Warmup(steps=500, then=Cosine(steps=9500))", "schedule"))
    10000
    """
    found = _SPANS.get(type(schedule))
    if isinstance(schedule, Recipe):
        return span(schedule.combination)
    return found(schedule) if found else None


def _more(length: int, then: object) -> int:
    return length + (span(then) or length)


def _longest(*schedules: object) -> int | None:
    return max((n for n in map(span, schedules) if n), default=None)


_SPANS: Final[Mapping[type, Callable[[Any], int | None]]] = {  # Any: each of its own type
    Clamp: lambda s: span(s.inner),
    CoolDown: lambda s: s.steps + 1,
    Cosine: lambda s: s.steps + 1,
    CosineRestarts: lambda s: round(s.first * sum(s.mult**i for i in range(s.cycles or 3))) + 1,
    Cyclic: lambda s: 3 * (s.up + (s.down or s.up)) + 1,
    Linear: lambda s: s.steps + 1,
    MultiStep: lambda s: round(1.25 * max(s.at)) + 1 if s.at else None,
    Noam: lambda s: 10 * s.warmup_steps,
    OneCycle: lambda s: s.steps,
    PerEpoch: lambda s: (n := span(s.inner)) and (n - 1) * s.steps_per_epoch,
    Phases: lambda s: _more(sum(n for _, n in s.phases), s.last),
    Piecewise: lambda s: round(1.1 * s.points[-1][0]),
    Polynomial: lambda s: s.steps + 1,
    Product: lambda s: _longest(s.a, s.b),
    Shift: lambda s: (n := span(s.inner)) and max(n - s.by, 1),
    Step: lambda s: 5 * s.every,
    Warmup: lambda s: _more(max(s.steps, 1), s.then) - 1,
}

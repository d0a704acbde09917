"""Measure a case: see that its loops train alike, then time them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from benchmarks import loops
from benchmarks.models import Workload
from benchmarks.rows import Case, Row
from benchmarks.timing import Measured, Steps, interleave, ratio

CHECKED: Final = 5  # steps
TOLERANCE: Final = 1e-5  # of the weights' norm: rounding in another order makes about 1e-7
MOVED: Final = 1e-3  # of the weights' norm: had they moved less, the tolerance would mean nothing

Result = Measured | str
"""What was measured, or why nothing was."""


class DifferentError(Exception):
    """A contestant does not train as the loop by hand does."""


def measure(
    case: Case, *, quick: bool, wrap: Callable[[loops.Loop], Steps] = lambda loop: loop
) -> dict[Row, Result]:
    """Every row of a case.

    Args:
        case: what is timed together.
        quick: a few rounds only.
        wrap: what is done to every loop before it is timed.

    Raises:
        DifferentError: a contestant does not train as the loop by hand does.
    """
    built = {builder: builder() for _, builder in case.contestants.values()}
    contestants: dict[str, Steps] = {}
    missing: dict[str, str] = {}
    for name, (loop, builder) in case.contestants.items():
        try:
            check(name, loop, built[builder])
            contestants[name] = wrap(loop(built[builder]))
        except ImportError as error:
            missing[name] = f"{error.name} is not installed"
    times = interleave(contestants, quick=quick)
    return {row: missing.get(row.against) or _ratio(row, times) for row in case.rows}


def check(name: str, loop: type[loops.Loop], workload: Workload) -> None:
    """See that a few steps lead to the weights that the loop by hand leads to.

    Raises:
        DifferentError: they do not, or hardly anything has moved.
    """
    if not loop.trains:
        return
    start, hand, mine = _flat(workload.model), _trained(loops.ByHand, workload), _trained(loop, workload)
    norm = torch.linalg.vector_norm(hand)
    moved, apart = [float(torch.linalg.vector_norm(w - hand) / norm) for w in (start, mine)]
    if not (moved > MOVED and apart < TOLERANCE):
        raise DifferentError(
            f"{name}: after {CHECKED} steps the weights are {apart:.1e} of their norm away from those of the "
            f"loop by hand, which has moved by {moved:.1e}; needed are less than {TOLERANCE:.0e} and more "
            f"than {MOVED:.0e}"
        )


def _trained(loop: type[loops.Loop], workload: Workload) -> torch.Tensor:
    one = loop(workload)
    for _ in range(CHECKED):
        one.before()
        one.step()
    return _flat(one.model)


def _flat(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _ratio(row: Row, times: dict[str, list[float]]) -> Measured:
    return ratio(times, row.top, row.bottom, factor=row.factor, at_least=row.at_least)

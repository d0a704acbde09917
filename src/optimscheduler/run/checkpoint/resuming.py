"""Whether a run can go on from a checkpoint of another model or of another number of ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from optimscheduler.api.optim_scheduler import OptimScheduler
from optimscheduler.errors import CheckpointError
from optimscheduler.plain_config import differences
from optimscheduler.window.clock import HOST, AccumGrad

__all__ = ["check_model", "for_ranks"]

_LISTED = 12  # differences told one by one

State = dict[str, Any]  # Any: a tree of plain values and tensors


def for_ranks(
    saved: Mapping[str, State], now: Mapping[str, OptimScheduler], batch_size: int, before: int, ranks: int
) -> dict[str, State]:
    """Saved OptimSchedulers, with `accum_grad` as it is for another number of ranks.

    Args:
        saved: name -> state.
        now: name -> what is to go on from it.
        batch_size: items per batch and rank.
        before: ranks that the run had.
        ranks: that it has now.

    Raises:
        CheckpointError: an update would be made of another number of samples.
    """
    changed = {}
    for name, state in saved.items():
        was = state["config"]["accum_grad"]
        accum_grad = now[name].accum_grad if name in now else was
        samples = was * batch_size * before
        if was * before != accum_grad * ranks:
            raise CheckpointError(
                f"the updates of {name} were made of {samples} samples (batch_size {batch_size} x accum_grad "
                f"{was} x ranks {before}), and {ranks} ranks now make {accum_grad * batch_size * ranks}. "
                f"Write samples_per_update: {samples} in place of accum_grad, or type --on-mismatch config "
                "to go on with what it is now"
            )
        config = {**state["config"], "accum_grad": accum_grad}
        changed[name] = {**state, "config": config, "clock": _inside(state["clock"], accum_grad)}
    return changed


def _inside(clock: State, accum_grad: AccumGrad) -> State:
    """A clock whose place in the open window is one of a window of that many batches."""
    inside = clock.get("inside")
    if not isinstance(inside, int) or accum_grad == HOST:
        return clock
    return {**clock, "inside": min(inside, accum_grad - 1)}


def check_model(saved: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> None:
    """Check that saved weights are those of this model.

    Raises:
        CheckpointError: they are not; every difference is listed.
    """
    shapes = [{n: list(getattr(value, "shape", ())) for n, value in state.items()} for state in (saved, now)]
    lines = [line.replace("in the configuration", "here") for line in differences(shapes[0], shapes[1])]
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    if lines:
        raise CheckpointError("\n  ".join(["the checkpoint is of another model:", *lines[:_LISTED], *more]))

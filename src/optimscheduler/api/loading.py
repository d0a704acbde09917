"""Look at a saved state as a whole, then go on from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optimscheduler.api.settings import Settings
from optimscheduler.backward.precision import Precision
from optimscheduler.checks import one_of
from optimscheduler.errors import CheckpointError
from optimscheduler.line.member import Member
from optimscheduler.plain_config import config_differences
from optimscheduler.state.feedback import check_feedback
from optimscheduler.state.member_state import (
    Fit,
    average_differences,
    check_fits,
    check_whole,
    load_averages,
    load_state,
)
from optimscheduler.state.other_formats import TorchState, check_torch_state, load_torch_state
from optimscheduler.sync import GradientSync
from optimscheduler.written import OnMismatch

__all__ = ["Described", "load_looked_at", "load_other_format", "look_at"]

_log = logging.getLogger("optimscheduler")

State = Mapping[str, Any]  # Any: a tree of plain values and tensors


@dataclass(frozen=True, slots=True)
class Described:
    """A member, its settings, and its configuration as plain values."""

    member: Member
    settings: Settings
    config: Mapping[str, Any]  # Any: plain values


def look_at(
    here: Described,
    sync: GradientSync,
    state: State,
    on_mismatch: OnMismatch,
    build: Callable[[State, Sequence[str]], Described],
) -> tuple[list[str], Fit | TorchState]:
    """Whether a state can be gone on from; nothing is changed.

    Args:
        here: what would go on.
        sync: how its gradients meet.
        state: this package's, the origin's or a plain optimizer's.
        on_mismatch: which side wins where configurations differ.
        build: what a configuration describes, on trial, given a line for each difference.

    Returns:
        A line for every setting that differs, and what of the state may be loaded.

    Raises:
        CheckpointError: it cannot; see `OptimScheduler.load_state_dict`.
    """
    one_of("on_mismatch", on_mismatch, ["error", "config", "checkpoint"])
    in_part = on_mismatch == "config"
    here.member.check_own_weights("load_state_dict")
    if here.member.window and not sync.flushable:
        raise CheckpointError(
            "under fully_shard a state cannot be loaded in the middle of a window, whose gradients torch "
            "keeps out of reach; load it after a window's end, or build model and OptimScheduler anew"
        )
    if not isinstance(state, Mapping):
        raise CheckpointError(f"a state is a mapping, from state_dict(), got {state!r:.80}")
    if "version" not in state:
        return [], check_torch_state(here.member, state, here.config["optim_conf"], in_part=in_part)
    check_whole(state)
    changed = config_differences(state["config"], here.config)
    told = [*changed, *average_differences(here.member, state)]
    if told and on_mismatch == "error":
        raise CheckpointError(
            "the checkpoint was made with another configuration; on_mismatch='config' or 'checkpoint' "
            "says which side wins:\n  " + "\n  ".join(told)
        )
    described = build(state["config"], changed) if changed and not in_part else here
    if state["config"]["schedule"] == described.config["schedule"]:
        check_feedback(described.settings.schedule, state["feedback"])  # type: ignore[arg-type]  # read by now
    settings = not (changed and in_part)
    return changed, check_fits(described.member, described.config, state, settings=settings, in_part=in_part)


def load_other_format(member: Member, precision: Precision, state: State, fit: TorchState) -> None:
    """Go on from a state of a plain optimizer or of the origin, which `look_at` has found good."""
    load_torch_state(member, precision.scaler(member.loss), state, fit)
    for line in fit.changed:
        _log.warning("%s", line)
    load_averages(member, {}, settings=False)
    _log.info("this state has no clock: give step_num, or the schedule begins at real step 1")


def load_looked_at(
    here: Described,
    precision: Precision,
    state: State,
    fit: Fit,
    changed: Sequence[str],
    on_mismatch: OnMismatch,
) -> None:
    """Go on from a state that `look_at` has found good, and say what is taken from which side.

    Args:
        here: what goes on; built anew already where the checkpoint's configuration wins.
        precision: of the line.
        state: this package's.
        fit: what of it may be loaded.
        changed: a line for every setting that differed.
        on_mismatch: which side won.
    """
    averages = average_differences(here.member, state)
    settings = not changed or on_mismatch == "checkpoint"
    load_state(here.member, here.config, precision, state, fit, settings=settings)
    load_averages(here.member, state, settings=on_mismatch == "checkpoint")
    for line in changed:
        _log.warning("%s; taken from the %s", line, on_mismatch.replace("config", "configuration"))
    for line in averages:
        _log.warning("%s; an average that the checkpoint lacks begins with the next update", line)
    for line in fit.changed:
        _log.warning("%s", line)

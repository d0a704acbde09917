"""R40, R41, R44: random trainings with other hands in between, as torch does them."""

from __future__ import annotations

from random import Random

import pytest
import torch

from tests.other_hands.event import Event
from tests.other_hands.events import EVENTS, draw_events
from tests.other_hands.ours import Ours
from tests.other_hands.run import run, train
from tests.other_hands.sides import Side
from tests.other_hands.trainings import SETTINGS, draw

COUNT, AT_ONCE = 400, 20

WITHOUT_DENSE_GRADIENTS_OR_WITH_A_CLOSURE = {"SparseAdam", "LBFGS", "Optimizer"}


@pytest.mark.parametrize("name", EVENTS)
def test_R40_one_kind_of_event_between_ordinary_batches(name: str) -> None:
    outcomes = [run(seed, [name]) for seed in range(5)]
    wrong = [str(outcome) for outcome in outcomes if outcome.wrong]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("first", range(0, COUNT, AT_ONCE))
def test_R40_R44_all_kinds_of_events(first: int) -> None:
    outcomes = [run(seed) for seed in range(first, first + AT_ONCE)]
    wrong = [str(outcome) for outcome in outcomes if outcome.wrong]
    assert not wrong, "\n\n".join(wrong)


# ---- the tester itself ----


def test_every_optimizer_that_can_be_used_is_drawn() -> None:
    known = {n for n, c in vars(torch.optim).items() if isinstance(c, type)}
    assert set(SETTINGS) == known - WITHOUT_DENSE_GRADIENTS_OR_WITH_A_CLOSURE
    assert {draw(seed).optim_type for seed in range(COUNT)} == set(SETTINGS)


def test_every_event_is_drawn() -> None:
    assert {name for seed in range(COUNT) for name in draw_events(draw(seed))} == set(EVENTS)


def test_nothing_but_ordinary_batches_agrees() -> None:
    outcomes = [train(draw(seed), ["a batch", "a flush"] * 4) for seed in range(20)]
    assert not any(outcome.wrong for outcome in outcomes)
    assert all(outcome.updates >= 4 for outcome in outcomes)


def _of_one_side(side: Side, rng: Random) -> None:
    """What the other does not do."""
    if isinstance(side, Ours):
        with torch.no_grad():
            side.model.trunk.weight.add_(1e-6)


def _state_of_one_side(side: Side, rng: Random) -> None:
    if isinstance(side, Ours):
        side.optimizers[0].param_groups[0]["lr"] *= 1 + 1e-6


@pytest.mark.parametrize("do", [_of_one_side, _state_of_one_side], ids=["weights", "a group"])
def test_what_one_side_does_alone_is_seen(do: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EVENTS, "alone", Event(do))  # type: ignore[arg-type]  # either of them
    outcome = train(draw(5), ["a batch", "alone"])
    assert outcome.wrong
    assert outcome.events == ["a batch", "alone"]
    assert "again: python -m tests.other_hands.run" in str(outcome)

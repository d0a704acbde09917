"""R01, R02: which window a batch belongs to."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimscheduler.checks import shown
from optimscheduler.errors import ConfigError
from optimscheduler.window.clock import BatchPosition, Cadence, Clock

SIZES = st.integers(1, 7)


def take(clock: Clock, number: int | None = None, **how: Any) -> BatchPosition:
    beat = clock.beat(number, **how)
    clock.take(beat)
    return beat


@given(batch=st.integers(1, 10**12), accum_grad=SIZES, step_per_update=SIZES)
def test_R01_any_batch_number_gives_the_window_of_the_formula(
    batch: int, accum_grad: int, step_per_update: int
) -> None:
    clock = Clock(Cadence(accum_grad=accum_grad, step_per_update=step_per_update))
    beat = take(clock, batch)
    real_step = (batch - 1) // accum_grad + 1
    assert beat == BatchPosition(
        batch=batch,
        real_step=real_step,
        active=real_step % step_per_update == 0,
        ends=batch % accum_grad == 0,
    )
    assert beat.completes == (beat.active and beat.ends)
    assert clock.real_step == real_step
    assert clock.batch == batch


@given(count=st.integers(0, 40), accum_grad=SIZES)
def test_R01_counting_is_the_same_as_giving_the_numbers(count: int, accum_grad: int) -> None:
    counted, told = Clock(Cadence(accum_grad=accum_grad)), Clock(Cadence(accum_grad=accum_grad))
    for number in range(1, count + 1):
        assert take(counted) == take(told, number)


def test_R01_before_the_first_batch_the_real_step_is_0() -> None:
    assert Clock(Cadence(accum_grad=3)).real_step == 0


@given(accum_grad=SIZES, flushes=st.lists(st.booleans(), max_size=30))
def test_R01_flush_uses_up_the_missing_numbers(accum_grad: int, flushes: list[bool]) -> None:
    clock = Clock(Cadence(accum_grad=accum_grad))
    real_step, inside = 1, 0  # by hand: the window that takes the next batch, and how many it has
    for flush in flushes:
        beat = take(clock)
        inside += 1
        assert beat.real_step == real_step
        assert beat.ends == (inside == accum_grad)
        if flush:
            clock.flush()
            clock.flush()  # with nothing open it does nothing
        if flush or beat.ends:
            real_step, inside = real_step + 1, 0


def test_R13_last_ends_a_window_that_is_not_full() -> None:
    clock = Clock(Cadence(accum_grad=4))
    assert not take(clock).ends
    assert take(clock, last=True).ends
    assert take(clock) == BatchPosition(batch=3, real_step=2, active=True, ends=False)


def test_asking_changes_nothing() -> None:
    clock = Clock(Cadence(accum_grad=2))
    assert clock.beat() == clock.beat() == clock.beat(1)
    assert clock.state_dict() == {"batch": 0, "epoch": 1, "closed_windows": 0, "inside": 0}


@given(jumps=st.lists(st.integers(1, 9), min_size=1, max_size=20), accum_grad=SIZES)
def test_R02_numbers_may_jump_forward_and_the_formula_still_holds(jumps: list[int], accum_grad: int) -> None:
    clock, number = Clock(Cadence(accum_grad=accum_grad)), 0
    for jump in jumps:
        number += jump
        beat = take(clock, number)
        assert beat.real_step == (number - 1) // accum_grad + 1
        assert beat.ends == (number % accum_grad == 0)


@pytest.mark.parametrize("number", [3, 2, 1])
def test_R02_going_backwards_says_what_was_expected(number: int) -> None:
    clock = Clock(Cadence())
    take(clock, 3)
    with pytest.raises(ConfigError) as caught:
        clock.beat(number)
    assert str(caught.value) == (
        f"step_num must go forward: got {number}, expected 4 or more (batch 3 was already taken)"
    )


@pytest.mark.parametrize("number", [0, -1, 1.5, "2", math.nan, True])
def test_R02_a_batch_number_is_whole_and_positive(number: Any) -> None:
    with pytest.raises(ConfigError, match=r"^step_num must be a whole number of batches >= 1, got "):
        Clock(Cadence()).beat(number)


@given(count=st.integers(0, 30), before=SIZES, after=SIZES, flush=st.booleans(), more=st.integers(1, 20))
def test_R01_resumed_with_another_accum_grad_the_real_step_goes_on(
    count: int, before: int, after: int, flush: bool, more: int
) -> None:
    clock = Clock(Cadence(accum_grad=before))
    for _ in range(count):
        take(clock)
    if flush:
        clock.flush()
    resumed = Clock(Cadence(accum_grad=after))
    resumed.load_state_dict(clock.state_dict())
    expected = clock.beat().real_step  # the window that the next batch would have joined
    beats = [take(resumed) for _ in range(more)]
    assert beats[0].real_step == expected
    assert beats[0].batch == count + 1
    closed = [beat.real_step for beat in beats if beat.ends]
    assert closed == list(range(expected, expected + len(closed)))
    inside = 0 if flush else min(count % before, after - 1)
    assert len(closed) == (inside + more) // after


# ---- a host owns the windows ----

HOST = Cadence(accum_grad="host", step_per_update=2)


@given(endings=st.lists(st.sampled_from(["", "last", "flush"]), max_size=40), jumps=st.integers(1, 10**6))
def test_R01_under_a_host_a_window_ends_where_it_is_said_to(endings: list[str], jumps: int) -> None:
    clock = Clock(HOST)
    closed, inside, number = 0, 0, 0  # by hand
    for ending in endings:
        number += jumps
        beat = take(clock, number, last=ending == "last")
        inside += 1
        assert (beat.real_step, beat.ends) == (closed + 1, ending == "last")
        assert beat.active == ((closed + 1) % 2 == 0)
        if ending == "flush":
            clock.flush()
        if ending:
            closed, inside = closed + 1, 0
        assert clock.real_step == closed + bool(inside)
        assert clock.state_dict()["closed_windows"] == closed
        clock.flush() if not inside else None  # nothing is open, nothing is closed
        assert clock.real_step == closed + bool(inside)


@pytest.mark.parametrize("before", ["host", 1, 4])
@pytest.mark.parametrize("after", ["host", 1, 4])
@pytest.mark.parametrize("inside", [0, 1, 3])
def test_R01_a_resumed_host_goes_on_from_the_same_real_step(before: Any, after: Any, inside: int) -> None:
    clock = Clock(Cadence(accum_grad=before))
    for _ in range(5):
        take(clock, last=True)
    for _ in range(inside):
        take(clock)
    expected = clock.beat().real_step
    resumed = Clock(Cadence(accum_grad=after))
    resumed.load_state_dict(clock.state_dict())
    beat = resumed.beat()
    assert beat.real_step == expected
    assert beat.batch == 6 + inside
    back = Clock(Cadence(accum_grad=before))
    back.load_state_dict(resumed.state_dict())
    assert back.beat().real_step == expected


def test_R01_batches_passed_over_under_a_host_change_no_window() -> None:
    clock = Clock(Cadence(accum_grad="host"))
    take(clock, 3, last=True)
    clock.pass_over(7, ended=False)
    assert take(clock).real_step == 2


@pytest.mark.parametrize("word", ["hots", "Host", "trainer", ""])
def test_a_cadence_knows_one_word(word: Any) -> None:
    near = "" if word in ("trainer", "") else "Did you mean 'host'? "
    with pytest.raises(ConfigError) as caught:
        Cadence(accum_grad=word)
    assert str(caught.value) == (
        f"accum_grad must be a whole number of batches >= 1, or 'host', got {word!r}. {near}Known: host."
    )


def test_the_epoch_is_kept_until_another_is_given() -> None:
    clock = Clock(Cadence())
    assert clock.epoch == 1
    clock.take(clock.beat(), 3)
    clock.take(clock.beat())
    assert clock.epoch == 3


@pytest.mark.parametrize("value", [0, -1, 2.5, "2", math.nan, None])
def test_a_cadence_is_whole_and_positive(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Cadence(accum_grad=value)
    assert str(caught.value) == f"accum_grad must be a whole number of batches >= 1, got {shown(value)}"
    with pytest.raises(ConfigError) as caught:
        Cadence(step_per_update=value)
    assert (
        str(caught.value) == f"step_per_update must be a whole number of real steps >= 1, got {shown(value)}"
    )


def test_a_whole_float_is_a_whole_number() -> None:
    assert Cadence(accum_grad=2.0) == Cadence(accum_grad=2)  # type: ignore[arg-type]  # as YAML may have it

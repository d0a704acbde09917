"""Ctrl-C: the first is a wish, the second an order."""

from __future__ import annotations

import signal

import pytest

from optimscheduler.run.loop.signals import Interrupt
from optimscheduler.run.loop.stopwatch import Stopwatch


def test_the_first_is_noted_and_the_second_acts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        assert not interrupt.asked
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_request_of_the_system_is_noted() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        assert (interrupt.by, interrupt.seconds) == ("", 0.0)
        signal.raise_signal(signal.SIGTERM)
        first = interrupt.seconds
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.asked
        assert interrupt.by == "SIGTERM"
        assert interrupt.seconds > first >= 0.0, "since the first"
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_nothing_is_noted() -> None:
    with Interrupt() as interrupt:
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert not interrupt.asked


def test_a_stopwatch_adds_up_what_is_timed_until_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([1.0, 1.5, 10.0, 10.25, 20.0, 22.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    stopwatch = Stopwatch()
    for names in (["backward", "main"], ["backward", "main"], ["update", "main"]):
        with stopwatch(names):
            pass
    assert stopwatch.take("backward", "main") == 0.75
    assert stopwatch.take("backward", "main") == 0.0
    assert stopwatch.take("update", "main") == 2.0

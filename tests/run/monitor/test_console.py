"""What a person sees of a run: plain lines in a file, a live line in a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console as Screen

from optimscheduler.run.monitor import console as console_module
from optimscheduler.run.monitor.console import Console


class Time:
    """A clock that is told the time."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(console_module, "time", time)
    return time


def record(real_step: int, **changed: Any) -> dict[str, Any]:
    return {
        "batch": 2 * real_step,
        "real_step": real_step,
        "epoch": 1,
        "lr": 0.001,
        "loss": 2.5,
        "grad_norm": 0.75,
        "updated": True,
        "skipped": False,
        "backward_seconds": 0.0,
        "update_seconds": 0.0,
        **changed,
    }


def plain(**settings: int) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    screen = Screen(file=file, width=160)
    return Console(screen, **{"epochs": 2, "done": 0, "left": 6, "log_every": 2, **settings}), file


def test_a_plain_line_every_few_windows(clock: Time) -> None:
    console, file = plain()
    for real_step in (1, 2, 3):
        clock.now += 0.5
        console.window(record(real_step))
    # 2 windows in 1 s; 4 more will take 2 s
    assert file.getvalue() == (
        "window 2/6  epoch 1/2  loss 2.5000  lr 0.001  grad norm 0.75  skips 0  2.0 updates/s  0:00:02 left\n"
    )
    console.close()


def test_the_last_window_has_a_line_whatever_its_number(clock: Time) -> None:
    console, file = plain(left=3)
    clock.now = 1.0
    for real_step in (1, 2, 3):
        console.window(record(real_step))
    assert [line.split("  ")[0] for line in file.getvalue().splitlines()] == ["window 2/3", "window 3/3"]
    console.close()


def test_skips_are_counted_and_do_not_count_as_updates(clock: Time) -> None:
    console, file = plain()
    clock.now = 1.0
    console.window(record(1, updated=False, skipped=True, grad_norm=float("inf")))
    console.window(record(2, updated=False, skipped=True, grad_norm=float("nan"), loss=float("nan")))
    assert "loss nan" in file.getvalue()
    assert "grad norm nan  skips 2  0.0 updates/s" in file.getvalue()
    console.close()


def test_a_resumed_run_counts_from_where_it_was(clock: Time) -> None:
    console, file = plain(done=10, left=4)
    clock.now = 3.0
    console.window(record(12))
    # 2 windows in 3 s, though only one of them was active; 2 more will take 3 s
    assert file.getvalue().startswith("window 12/14  ")
    assert file.getvalue().endswith("0.3 updates/s  0:00:03 left\n")
    console.close()


def test_windows_in_which_nothing_happened_say_so(clock: Time) -> None:
    console, file = plain()
    clock.now = 7300.0
    console.window(record(2, updated=False, loss=None, grad_norm=None))
    # 4 windows are left, 3650 s each
    assert file.getvalue() == (
        "window 2/6  epoch 1/2  no loss  lr 0.001  skips 0  0.0 updates/s  4:03:20 left\n"
    )
    console.close()


def test_validation_and_samples_are_shown_as_they_are() -> None:
    console, file = plain()
    console.validated({"batch": 9, "real_step": 5, "epoch": 1, "loss": 1.25, "accuracy": 0.5})
    console.sampled("[bold]one\ntwo")  # no markup
    assert file.getvalue() == (
        "epoch 1 done, held-out data: loss 1.2500  accuracy 0.5000\n"
        "the model writes:\n  | [bold]one\n  | two\n"
    )
    console.close()


def test_where_the_pictures_are_is_said_at_the_first_epoch_and_at_the_last() -> None:
    console, file = plain(epochs=3)
    for epoch in (1, 2, 3):
        console.drawn(epoch, torch.zeros(2, 2))
    assert file.getvalue() == (
        "the model draws: samples/epoch-0001.png in the run folder\n"
        "the model draws: samples/epoch-0003.png in the run folder\n"
    )
    console.close()


def test_a_terminal_has_a_live_line_and_keeps_what_must_stay(clock: Time) -> None:
    file = io.StringIO()
    console = Console(
        Screen(file=file, width=140, force_terminal=True), epochs=2, done=0, left=6, log_every=1
    )
    clock.now = 1.0
    console.window(record(1))
    console.validated({"batch": 9, "real_step": 5, "epoch": 1, "loss": 1.25})
    console.close()
    shown = file.getvalue()
    assert "loss 2.5000  lr 0.001  grad norm 0.75  skips 0  1.0 updates/s" in shown
    assert "1/6" in shown
    assert "window 1/6" not in shown  # the plain line
    assert "epoch 1 done, held-out data: loss 1.2500" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is back

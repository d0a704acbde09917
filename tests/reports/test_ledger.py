"""R21, R22: what is counted, what is said about a refusal, and when it is enough."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from optimscheduler.checks import shown
from optimscheduler.errors import ConfigError, NonFiniteError
from optimscheduler.gradients import PerTensor
from optimscheduler.reports.ledger import Ledger, StepReport
from optimscheduler.window.window import Window
from tests.cases_models import stored

LOG = logging.getLogger("tests.ledger")
INF = math.inf


def a_window(*losses: float, first: int = 1) -> Window:
    window = Window()
    for batch, loss in enumerate(losses, start=first):
        window.add(batch, torch.tensor(loss), None)
    return window


def gradients(**named: Sequence[float] | Tensor) -> PerTensor:
    parameters = {}
    for name, gradient in named.items():
        grad = gradient if isinstance(gradient, Tensor) else torch.tensor(gradient)
        parameters[name] = nn.Parameter(torch.zeros(grad.shape))
        parameters[name].grad = grad
    return PerTensor(parameters, torch.optim.SGD(parameters.values(), lr=0.1))


def record(
    ledger: Ledger,
    accepted: bool,
    window: Window | None = None,
    norm: float = math.nan,
    found: PerTensor | None = None,
    scale: float | Tensor = 1.0,
    advice: Callable[[], str] = str,
) -> None:
    ledger.record(
        window or a_window(1.0),
        7,
        torch.tensor(norm),
        torch.tensor(accepted),
        found or gradients(w=[math.nan]),
        scale=scale,
        lr=0.25,
        logger=LOG,
        advice=advice,
    )


def said(caplog: pytest.LogCaptureFixture) -> str:
    (line,) = caplog.messages
    return line


@pytest.mark.parametrize(
    ("window", "norm", "found", "line"),
    [
        (
            a_window(1.0, math.nan, INF, 2.0),
            math.nan,
            gradients(a=[math.nan, 1.0], b=[1.0]),
            "real step 7 (batches 1 to 4) of loss 'main' skipped: gradient norm nan; the loss itself was "
            "not finite in batches 2, 3; not finite in a (1 of 2 gradients)",
        ),
        (
            a_window(1.0, 2.0, first=5),
            INF,
            gradients(**{f"p{i}": [INF] for i in range(7)}),
            "real step 7 (batches 5, 6) of loss 'main' skipped: gradient norm inf; "
            "not finite in p0, p1, p2, p3, p4 and 2 more (7 of 7 gradients)",
        ),
        (
            a_window(1.0),
            INF,
            gradients(a=[1e30], b=[1e30]),
            "real step 7 (batches 1) of loss 'main' skipped: gradient norm inf; "
            "every gradient is finite, but their norm overflows",
        ),
        (
            a_window(1.0, 1.0, 1.0),
            9.0,
            gradients(a=[1.0], b=[5.0], c=[3.0], d=[0.0], e=[4.0], f=[2.0]),
            "real step 7 (batches 1, 2, 3) of loss 'main' skipped: gradient norm 9; "
            "a spike, the largest gradients are those of b, e, c, f, a",
        ),
    ],
)
def test_R21_the_line_says_which_loss_which_batches_which_parameters(
    window: Window, norm: float, found: PerTensor, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    record(Ledger("main"), False, window, norm, found)
    (entry,) = caplog.records
    assert entry.getMessage() == line
    assert (entry.name, entry.levelno) == ("tests.ledger", logging.WARNING)


def test_R21_a_sparse_gradient_is_looked_into_as_well(caplog: pytest.LogCaptureFixture) -> None:
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[0, 0]]), [[1.0], [math.nan]], (4, 1), check_invariants=True
    )
    record(Ledger("main"), False, norm=math.nan, found=gradients(a=sparse, b=[1.0]))
    assert said(caplog).endswith("not finite in a (1 of 2 gradients)")


def test_R21_a_batch_that_does_not_count_is_not_blamed(caplog: pytest.LogCaptureFixture) -> None:
    window = Window()
    window.add(1, torch.tensor(math.nan), 0.0)
    window.add(2, torch.tensor(1.0), 3.0)
    record(Ledger("main"), False, window, math.nan)
    assert "the loss itself" not in said(caplog)


def test_R21_an_update_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    record(Ledger("main"), True, norm=1.0)
    assert not caplog.records


def test_R22_counters() -> None:
    ledger = Ledger("main")
    for accepted in (True, False, False, True, False):
        record(ledger, accepted)
    assert ledger.read() == {"applied": 2, "skipped": 3, "skips_in_row": 1}
    assert ledger.applied == 2


@pytest.mark.parametrize("max_skips", [0, 1, 3])
def test_R22_more_than_max_skips_in_a_row_are_an_error(max_skips: int) -> None:
    ledger = Ledger("main", max_skips)
    for _ in range(2):  # an update in between begins the count anew
        for _ in range(max_skips):
            record(ledger, False)
        record(ledger, True)
    for _ in range(max_skips):
        record(ledger, False)
    with pytest.raises(NonFiniteError) as caught:
        record(ledger, False, scale=torch.tensor(1024.0))
    assert str(caught.value) == (
        f"{max_skips + 1} gradients in a row were refused (max_skips={max_skips}), the last: "
        "real step 7 (batches 1) of loss 'main' skipped: gradient norm nan; not finite in w (1 of 1 "
        "gradients). Learning rate 0.25, loss scale 1024. Try a lower learning rate or a longer warm-up, "
        "a grad_clip where there is none, use_amp: bf16 instead of fp16, and look at the batches named above"
    )


@pytest.mark.parametrize(
    ("norms", "advised"),
    [
        ((9.0, 9.0), "Write guard: null, and look"),
        ((math.nan, 9.0), "Write guard: null. Try a lower"),
        ((math.nan, math.nan), "Try a lower"),
    ],
)
def test_R23_what_the_guard_refuses_is_said_where_there_is_nothing_else(
    norms: tuple[float, ...], advised: str
) -> None:
    ledger = Ledger("main", max_skips=len(norms) - 1)
    with pytest.raises(NonFiniteError) as caught:
        for norm in norms:
            record(ledger, False, norm=norm, advice=lambda: "Write guard: null")
    assert f"loss scale 1. {advised}" in str(caught.value)
    assert str(caught.value).endswith(", and look at the batches named above")


@pytest.mark.parametrize("guarded", [True, False])
def test_R23_where_the_norms_are_not_known_both_are_said(
    guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On an accelerator a refusal is read late, without its norm.
    ledger = Ledger("main", max_skips=0)
    on_device(ledger, (lambda: "Write guard: null") if guarded else str)
    monkeypatch.setattr("optimscheduler.reports.ledger._stacked", lambda _: torch.tensor([False]))
    with pytest.raises(NonFiniteError) as caught:
        ledger.read()
    told = "Write guard: null. Try a lower" if guarded else "Try a lower"
    assert f"loss scale 1. {told}" in str(caught.value)


def test_R22_the_default_is_25() -> None:
    ledger = Ledger("main")
    for _ in range(25):
        record(ledger, False)
    with pytest.raises(NonFiniteError, match=r"^26 gradients in a row"):
        record(ledger, False)


@pytest.mark.parametrize("value", [-1, 1.5, "3", None, True])
def test_R22_max_skips_is_a_whole_number(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Ledger("main", value)  # type: ignore[arg-type]
    assert str(caught.value) == f"max_skips must be a whole number of updates >= 0, got {shown(value)}"


def on_device(ledger: Ledger, advice: Callable[[], str] = str) -> None:
    """As on an accelerator: an outcome that `record` must not look at."""
    ledger.record(
        a_window(1.0),
        7,
        torch.tensor(1.0, device="meta"),
        torch.tensor(True, device="meta"),
        gradients(w=[1.0]),
        scale=1.0,
        lr=0.25,
        logger=LOG,
        advice=advice,
    )


def test_R24_on_an_accelerator_nothing_is_looked_at_until_there_are_sixteen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = Ledger("main")
    read: list[tuple[object, ...]] = []
    monkeypatch.setattr(ledger, "read", lambda *given: read.append(given))
    for count in range(1, 16):
        on_device(ledger)
        assert not read, f"read after {count}"
    on_device(ledger)
    assert read == [()]


class OnItsWay:
    """Outcomes that arrive when the test says so."""

    arrived = False

    def __init__(self, entries: Sequence[object]) -> None:
        self.entries = entries

    def has_arrived(self) -> bool:
        return self.arrived

    def outcomes(self) -> list[bool]:
        return [True] * (len(self.entries) - 1) + [False]


@pytest.mark.parametrize("arrives", [17, 24, 99])
def test_R24_on_cuda_outcomes_are_sent_and_read_when_they_have_arrived(
    arrives: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("optimscheduler.reports.ledger._Sent", OnItsWay)
    monkeypatch.setattr("optimscheduler.reports.ledger._device_of", lambda _: "cuda")
    ledger = Ledger("main")
    for count in range(1, 33):
        monkeypatch.setattr(OnItsWay, "arrived", count >= arrives)
        on_device(ledger)
        assert len(caplog.records) == (count >= min(arrives, 32)), count  # at 32 the next sixteen wait to go
    assert ledger._counts == {"applied": 15, "skipped": 1, "skips_in_row": 1}


def test_R21_with_forensics_every_outcome_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger("main", forensics=True)
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda _: True)  # "meta" has no value to look at
    on_device(ledger)
    assert ledger.applied == 1


def test_R34_the_counters_go_on_from_a_state() -> None:
    ledger = Ledger("main", max_skips=2)
    for accepted in (True, False, False):
        record(ledger, accepted)
    restored = Ledger("main", max_skips=2)
    restored.load_state_dict(stored(ledger.state_dict()))
    assert restored.read() == {"applied": 1, "skipped": 2, "skips_in_row": 2}
    with pytest.raises(NonFiniteError):
        record(restored, False)


# ---- the report ----

REPORT = {
    "batch": 4,
    "epoch": 2,
    "real_step": 2,
    "lr": 0.25,
    "completes": True,
    "batches": 2,
    "updated": torch.tensor(True),
    "skipped": torch.tensor(False),
    "grad_norm": torch.tensor(1.5),
    "loss": torch.tensor(2.5),
}


def test_a_report_is_read_into_plain_values() -> None:
    report = StepReport(**REPORT).read()  # type: ignore[arg-type]
    plain = {**REPORT, "updated": True, "skipped": False, "grad_norm": 1.5, "loss": 2.5}
    assert report == StepReport(**plain)  # type: ignore[arg-type]
    assert not any(isinstance(getattr(report, name), Tensor) for name in plain)
    assert report.read() == report


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({}, "real step 2 (batch 4): updated, loss 2.5, gradient norm 1.5, lr 0.25"),
        (
            {"updated": False, "skipped": torch.tensor(True), "grad_norm": torch.tensor(math.nan)},
            "real step 2 (batch 4): skipped, loss 2.5, gradient norm nan, lr 0.25",
        ),
        (
            {"updated": False, "grad_norm": None, "loss": None},
            "real step 2 (batch 4): nothing to do, lr 0.25",
        ),
        (
            {"updated": False, "grad_norm": None, "completes": False},
            "real step 2 (batch 4): waiting, loss 2.5, lr 0.25",
        ),
    ],
)
def test_a_report_prints_as_one_line(changed: dict[str, object], line: str) -> None:
    assert str(StepReport(**{**REPORT, **changed})) == line  # type: ignore[arg-type]

"""What happened: a report for every batch, counters over the run, and a line for every refusal."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimscheduler.checks import whole
from optimscheduler.errors import NonFiniteError
from optimscheduler.gradients import Gradients
from optimscheduler.reports.forensics import Refusal, refusal_of
from optimscheduler.scalars import Flag, Scalar
from optimscheduler.window.window import Window

__all__ = ["Ledger", "StepReport"]

_log = logging.getLogger("optimscheduler")
_READ_EVERY = 16  # updates, on an accelerator
_AGAINST_NAN = (
    "Try a lower learning rate or a longer warm-up, a grad_clip where there is none, "
    "use_amp: bf16 instead of fp16"
)


@dataclass(slots=True, kw_only=True)
class StepReport:
    """What one call of `step` did. Tensors stay on the device until `read`.

    Attributes:
        batch: number of the batch, from 1.
        epoch: the epoch given last, from 1.
        real_step: number of the window, from 1.
        lr: learning rate of the first group.
        completes: the window was closed.
        batches: how many batches are in the window so far.
        updated: the weights moved.
        skipped: the window was complete and its gradient was refused.
        grad_norm: norm of the gradient as it is applied, before clipping; None in mid-window.
        loss: mean of the window's losses so far; None where nothing contributed.
    """

    batch: int
    epoch: int
    real_step: int
    lr: float
    completes: bool
    batches: int
    updated: bool | Tensor
    skipped: bool | Tensor
    grad_norm: float | Tensor | None
    loss: float | Tensor | None

    def read(self) -> StepReport:
        """The same with plain Python values; on an accelerator this waits for the device."""
        plain: dict[str, Any] = {}  # Any: as mixed as the attributes
        for attribute in dataclasses.fields(self):
            value = getattr(self, attribute.name)
            plain[attribute.name] = value.item() if isinstance(value, Tensor) else value
        return StepReport(**plain)

    def __str__(self) -> str:
        """One line for people; reads the tensors."""
        r = self.read()
        done = (
            "updated"
            if r.updated
            else "skipped"
            if r.skipped
            else "nothing to do"
            if r.completes
            else "waiting"
        )
        told = [
            f"{name} {value:.4g}"
            for name, value in (("loss", r.loss), ("gradient norm", r.grad_norm))
            if value is not None
        ]
        return f"real step {r.real_step} (batch {r.batch}): {done}, {', '.join([*told, f'lr {r.lr:.4g}'])}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    accepted: Flag
    refusal: Refusal  # what to say if it was not


class _Sent:
    """Outcomes on their way from a device into pinned memory, which nobody waits for."""

    def __init__(self, entries: Sequence[_Entry]) -> None:
        self.entries = entries
        outcomes = _stacked(entries)
        self._here = torch.empty(len(entries), dtype=torch.bool, pin_memory=True)
        self._here.copy_(outcomes, non_blocking=True)
        self._arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own is not typed
        self._arrival.record(torch.cuda.current_stream(outcomes.device))

    def has_arrived(self) -> bool:
        return bool(self._arrival.query())  # type: ignore[no-untyped-call]  # see above

    def outcomes(self) -> list[bool]:
        self._arrival.synchronize()
        outcomes: list[bool] = self._here.tolist()
        return outcomes


def _stacked(entries: Sequence[_Entry]) -> Tensor:
    return torch.stack([torch.as_tensor(entry.accepted) for entry in entries])


class Ledger:
    """Counts updates and skips of one OptimScheduler.

    On a CPU every outcome is looked at when it comes. On CUDA sixteen at a time are copied to the host, and
    looked at when they have arrived there, so that nobody waits; a refusal is logged, and `max_skips`
    enforced, up to 31 updates late. Other accelerators wait once in sixteen updates. `forensics=True` reads
    each at once.

    Args:
        loss: name of the loss, for the messages.
        max_skips: skips in a row that are put up with, >= 0.
        forensics: look at every outcome at once, at the price of a synchronisation.
    """

    def __init__(self, loss: str, max_skips: int = 25, forensics: bool = False) -> None:
        self._loss = loss
        self.max_skips = whole("max_skips", max_skips, least=0, unit="updates")
        self.forensics = forensics
        self._counts = {"applied": 0, "skipped": 0, "skips_in_row": 0}
        self.refused: list[Refusal] = []  # those in a row, as far as they are known
        self._unread: list[_Entry] = []
        self._sent: _Sent | None = None
        self._logger: logging.Logger = _log
        self._lr: float = 0.0
        self._scale: Scalar = 1.0
        self._advice: Callable[[], str] = str  # says nothing

    @property
    def applied(self) -> int:
        """Updates that moved the weights; asking reads everything."""
        return self.read()["applied"]

    def record(
        self,
        window: Window,
        real_step: int,
        norm: Scalar,
        accepted: Flag,
        gradients: Gradients,
        *,
        scale: float | Tensor,
        lr: float,
        logger: logging.Logger,
        blamed: Tensor | None = None,
        advice: Callable[[], str] = str,
        together: Sequence[str] = (),
    ) -> None:
        """Enter a closed window, while its gradients are still there.

        Args:
            window: closed.
            real_step: its number.
            norm: of its gradient.
            accepted: whether it was applied.
            gradients: as they would have been applied.
            scale: of the loss, for the error.
            lr: the learning rate, for the error.
            logger: for refusals.
            blamed: shape (ranks,), true where the loss was not finite; None in a single process.
            advice: of the guard, on refused spikes, for the error.
            together: names of the members that this norm is of, where it is of several.

        Raises:
            NonFiniteError: more than `max_skips` were refused in a row.
        """
        self._logger, self._lr, self._scale, self._advice = logger, lr, scale, advice
        late = isinstance(accepted, Tensor) and accepted.device.type != "cpu" and not self.forensics
        if not late and accepted and not self._unread:
            self._count_applied()
            return
        if late or accepted:
            refusal = Refusal(loss=self._loss, real_step=real_step, batches=tuple(window.batches))
        else:
            refusal = refusal_of(self._loss, real_step, window, float(norm), gradients, blamed, together)
        self._unread.append(_Entry(accepted=accepted, refusal=refusal))
        if not late:
            self.read()
            return
        if self._sent and (self._sent.has_arrived() or len(self._unread) >= _READ_EVERY):
            self._read_sent()
        if len(self._unread) >= _READ_EVERY:
            self._send()

    def read(self) -> dict[str, int]:
        """Bring the counters up to date.

        Returns:
            `applied`, `skipped` and `skips_in_row`.

        Raises:
            NonFiniteError: more than `max_skips` were refused in a row.
        """
        self._read_sent()
        entries, self._unread = self._unread, []
        if entries:
            self._count_all(entries, _stacked(entries).tolist())
        return dict(self._counts)

    def _send(self) -> None:
        """Let the unread outcomes come, where somebody need not wait for that."""
        if _device_of(self._unread[0]) == "cuda":
            self._sent, self._unread = _Sent(self._unread), []
        else:
            self.read()

    def _read_sent(self) -> None:
        sent, self._sent = self._sent, None
        if sent:
            self._count_all(sent.entries, sent.outcomes())

    def _count_all(self, entries: Sequence[_Entry], outcomes: Sequence[bool]) -> None:
        for entry, accepted in zip(entries, outcomes, strict=True):
            self._count(entry, accepted)

    def _count(self, entry: _Entry, accepted: bool) -> None:
        counts = self._counts
        if accepted:
            self._count_applied()
            return
        counts["skipped"] += 1
        counts["skips_in_row"] += 1
        self.refused.append(entry.refusal)
        self._logger.warning("%s", entry.refusal)
        if counts["skips_in_row"] > self.max_skips:
            raise NonFiniteError(
                f"{counts['skips_in_row']} gradients in a row were refused (max_skips={self.max_skips}), "
                f"the last: {entry.refusal}. Learning rate {self._lr:g}, loss scale {float(self._scale):g}. "
                f"{self._what_to_try()}, and look at the batches named above"
            )

    def _what_to_try(self) -> str:
        """The guard's advice where all that were refused in a row are spikes; both where some may be."""
        spikes = [refusal.norm is not None and math.isfinite(refusal.norm) for refusal in self.refused]
        unknown = any(refusal.norm is None for refusal in self.refused)
        advice = self._advice() if unknown or any(spikes) else ""
        return ". ".join(filter(None, [advice, "" if advice and all(spikes) else _AGAINST_NAN]))

    def _count_applied(self) -> None:
        self._counts["applied"] += 1
        self._counts["skips_in_row"] = 0
        self.refused.clear()

    def state_dict(self) -> dict[str, int]:
        """The counters."""
        return self.read()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there."""
        self._counts = {key: int(state[key]) for key in self._counts}
        self._unread, self._sent = [], None


def _device_of(entry: _Entry) -> str:
    return entry.accepted.device.type if isinstance(entry.accepted, Tensor) else "cpu"

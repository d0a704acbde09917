"""The straight line from the losses of a batch to the moved weights, for one or several members.

BatchStep.step(losses)
  1  clock      which members does this batch concern, whose window does it complete?
  2  losses     pick each by name, all before any backward
  3  backward   one per distinct loss: scaled, never in place, into the owners' gradients only
  -- for each member whose window is complete, after all backwards: `closing` --
  4  sync       gradients and weight of all ranks meet (nothing to do where the wrapper did it);
                where small parameters lie side by side, their gradients come together
  5  divide     total weight x loss scale: the mean and the unscaling are one number
  6  norm       of the own gradients as they will be applied, a device scalar; one for several members
                where they are clipped together
  7  decide     finite? a spike? a device bool
  8  values     write the learning rate into the groups
  9  apply      weights move by gradient x clip factor / divisor, or not at all
  10 report, clear
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from optimscheduler._torch_compat import graph_age
from optimscheduler.backward.isolation import (
    Isolation,
    change_behind,
    lateness_behind,
    parallelism_behind,
    zeroed,
)
from optimscheduler.backward.losses import pick_loss, pick_weight
from optimscheduler.backward.owners import Claim
from optimscheduler.backward.precision import Precision, forget_casts
from optimscheduler.checks import boolean, whole
from optimscheduler.errors import ConfigError, NonFiniteError, OptimSchedulerError, nearest
from optimscheduler.line.closing import Closing
from optimscheduler.line.member import Member
from optimscheduler.line.together import check_undivided
from optimscheduler.reports.ledger import StepReport
from optimscheduler.scalars import Scalar
from optimscheduler.sync import GradientSync
from optimscheduler.sync.ranks import absence_behind
from optimscheduler.window.clock import BatchPosition

__all__ = ["BatchStep", "Timer", "untimed"]

_log = logging.getLogger("optimscheduler")

Timer = Callable[[list[str]], AbstractContextManager[Any]]
"""Entered around each backward and each update, with two names: what is timed, and the member's."""


_NOTHING: Final = nullcontext()


def untimed(_names: list[str]) -> AbstractContextManager[Any]:
    """The timer that measures nothing."""
    return _NOTHING


@dataclass(slots=True)
class _Turn:
    """One backward: of a loss with so many items behind it, for the members that it moves."""

    loss: Tensor
    weight: Scalar | None
    members: dict[str, Member] = field(default_factory=dict)


class BatchStep:
    """The line. It owns the facts of the batch; what belongs to a member it asks the member for.

    Args:
        model: wrapped or not; gradients of its other parameters are never touched.
        members: name -> member.
        precision: of the forward pass, with a loss scale per distinct loss.
        sync: how the gradients of the ranks meet.
        together: names of members that are clipped by one norm, set by set.
    """

    def __init__(
        self,
        model: nn.Module,
        members: Mapping[str, Member],
        precision: Precision,
        sync: GradientSync,
        together: Sequence[Sequence[str]] = (),
    ) -> None:
        self.members = dict(members)
        self.precision = precision
        self.sync = sync
        self._opened: dict[str, BatchPosition] | None = None
        self._model = model
        self._together = together
        self._set_of = {name: names for names in together for name in names}
        self._closing = Closing(model, precision, sync)
        self._claim = Claim(model, members.values())
        self._device_type = next(model.parameters()).device.type
        self._since: int | None = None  # how old graphs were before the forward pass
        self._isolations: dict[tuple[str, ...], Isolation] = {}
        self._without_graph = torch.no_grad()  # made once: that takes as long as to enter it

    @contextmanager
    def forward(self, step_num: int | None = None, last: bool = False) -> Iterator[None]:
        """The context of a training forward pass.

        Args:
            step_num: the batch number, from 1; None counts.
            last: this batch ends its window, though that is not full.
        """
        self._check_own_weights("forward")
        self._opened = self._beats(step_num, last)
        try:
            completes = all(beat.completes for beat in self._opened.values())
            with self._claim.quiet_others(), self.sync.forward(completes), self.precision.autocast():
                self._since = graph_age()
                yield
        except BaseException:
            self._opened = None  # this batch is not coming
            raise

    def step(
        self,
        losses: Mapping[str, Tensor],
        *,
        weight: Scalar | Mapping[str, Scalar] | None = None,
        step_num: int | None = None,
        epoch: int | None = None,
        timer: Timer = untimed,
        logger: logging.Logger = _log,
        only: Collection[str] | None = None,
        last: bool = False,
    ) -> dict[str, StepReport]:
        """One batch: its backwards, then an update for every member whose window it completes.

        `only` names the members that the batch is for; the clocks of the others stand still. `last` ends
        their windows, where `forward` was not entered to say so.
        """
        if epoch is not None:
            epoch = whole("epoch_num", epoch, least=1, unit="epochs")
        self._check_own_weights("step")
        beats = self._take(step_num, self.members if only is None else only, last)
        self._follow(beats)
        self._backward(beats, losses, weight, timer, logger)
        for name, beat in beats.items():
            self.members[name].clock.take(beat, epoch)
        closed = self._close([name for name, beat in beats.items() if beat.completes], timer, logger)
        self._since = graph_age()
        return {name: closed[name] if name in closed else self.members[name].report() for name in beats}

    def flush(self, timer: Timer = untimed, logger: logging.Logger = _log) -> dict[str, StepReport]:
        """Close every open window as it is; the next batch opens a new one."""
        self._check_own_weights("flush")
        if not self.sync.flushable and any(member.window for member in self.members.values()):
            raise ConfigError(
                "flush: under fully_shard the gradients of an open window cannot be reduced after its last "
                "backward; say beforehand that a batch is the last: with optim.forward(last=True)"
            )
        pending = [name for name, member in self.members.items() if member.window]
        for name in pending:
            self.members[name].check_trains(name)
        self._opened = None
        for member in self.members.values():
            member.clock.flush()
        self._follow(pending)
        return self._close(pending, timer, logger)

    def _check_own_weights(self, what: str) -> None:
        for member in self.members.values():
            member.check_own_weights(what)

    def _follow(self, names: Iterable[str]) -> None:
        """Others may have replaced parameters in the model and in the optimizers of these members."""
        replaced = [name for name in names if not self.members[name].gradients.is_current()]
        for name in replaced:
            self.members[name].follow(self._model)
        if replaced:
            self._claim = Claim(self._model, self.members.values())
            self._isolations.clear()

    def _beats(self, step_num: int | None, last: bool = False) -> dict[str, BatchPosition]:
        last = boolean("last", last)
        return {name: member.clock.beat(step_num, last=last) for name, member in self.members.items()}

    def _take(self, step_num: int | None, names: Collection[str], last: bool) -> dict[str, BatchPosition]:
        """The beats of these members, as `forward` opened them, or new ones."""
        names = [names] if isinstance(names, str) else names
        for name in names:
            if name not in self.members:
                raise ConfigError(f"only: there is no OptimScheduler {name!r}. {nearest(name, self.members)}")
            self.members[name].check_trains(name)
        if self._together:
            check_undivided(self._together, names)
        beats, self._opened = self._opened or self._beats(step_num, last), None
        for beat in beats.values():
            if step_num is not None and step_num != beat.batch:
                raise ConfigError(
                    f"step_num: forward() was entered for batch {beat.batch}, step() was given {step_num}"
                )
            if last and not beat.ends:
                raise ConfigError(
                    f"last: forward() was entered for batch {beat.batch} without last=True, step() was given "
                    "it; say it to forward, or to step alone where there is no forward()"
                )
        return {name: beat for name, beat in beats.items() if name in names}

    def _backward(
        self,
        beats: Mapping[str, BatchPosition],
        losses: Mapping[str, Tensor],
        weight: Scalar | Mapping[str, Scalar] | None,
        timer: Timer,
        logger: logging.Logger,
    ) -> None:
        """The gradients of the active members, one backward per distinct loss."""
        turns: dict[str, _Turn] = {}
        for name, beat in beats.items():
            if beat.active and not self.members[name].idles(name, logger):
                loss = self.members[name].loss
                if loss not in turns:
                    turns[loss] = _Turn(pick_loss(losses, loss), pick_weight(weight, loss))
                turns[loss].members[name] = self.members[name]
        for loss, turn in turns.items():
            for member in turn.members.values():
                member.window.expect(turn.weight)
            if self.precision.lacks_reference(loss):
                self.precision.refer(loss, self.sync.largest(turn.weight))
        left = len(turns)
        try:
            with self.sync.backward():
                for loss, turn in turns.items():
                    left -= 1
                    with timer(["loss_backward_time", next(iter(turn.members))]):
                        self._backward_one(loss, turn, retain_graph=left > 0)
        except BaseException:
            for turn in turns.values():  # half a gradient is none
                for member in turn.members.values():
                    member.drop()
            self.sync.broke_off()
            raise
        for turn in turns.values():
            value = turn.loss.detach()
            for name, member in turn.members.items():
                member.window.add(beats[name].batch, value, turn.weight)

    def _backward_one(self, name: str, turn: _Turn, *, retain_graph: bool) -> None:
        """Add the gradient of one loss to those of its active owners, and to no others."""
        items = 1.0 if turn.weight is None else turn.weight
        counts = isinstance(items, Tensor) or items > 0
        if not (counts or self.sync.waits):
            return
        isolation = self._isolation(turn.members, name)
        since, past_hooks = self._since, self.sync.past_hooks
        try:
            if counts:
                loss = self.precision.scaled(name, turn.loss, items)
                isolation.backward(loss, since, retain_graph=retain_graph, past_hooks=past_hooks)
            else:  # with nothing behind it, a loss may even be 0 / 0
                loss = turn.loss.nan_to_num() * 0.0
                with zeroed([p for member in turn.members.values() for p in member.gradients.parameters]):
                    isolation.backward(loss, since, retain_graph=retain_graph, past_hooks=past_hooks)
        except RuntimeError as error:
            if explained := self._explained(error, name):
                raise explained from error
            raise
        if isolation.casts_to_half:
            self.precision.met_half()

    def _explained(self, error: RuntimeError, loss: str) -> OptimSchedulerError | None:
        """What torch's error in a backward says of the loop."""
        return (
            absence_behind(error, f"reduce the gradients of loss {loss!r} in its backward")
            or change_behind(error, loss)
            or parallelism_behind(error, loss)
            or lateness_behind(error, loss, shared=self._claim.is_shared())
        )

    def _isolation(self, members: Mapping[str, Member], loss: str) -> Isolation:
        """What keeps the backwards of a loss for these members apart from others."""
        names = tuple(members)
        if names not in self._isolations:
            owners = [member.gradients.parameters for member in members.values()]
            self._isolations[names] = Isolation(self._claim, owners, loss)
        return self._isolations[names]

    def _close(self, names: Sequence[str], timer: Timer, logger: logging.Logger) -> dict[str, StepReport]:
        """Update these members, whose windows are complete.

        Raises:
            NonFiniteError: the first of one of them, raised when all have had their turn.
        """
        reports: dict[str, StepReport] = {}
        errors: list[NonFiniteError] = []
        for name in names:
            if name not in self._set_of:
                try:
                    reports[name] = self._update(name, timer, logger)
                except NonFiniteError as error:
                    errors.append(error)
        for together in self._together:
            told, failed = self._update_together([n for n in together if n in names], timer, logger)
            reports |= told
            errors += failed
        self._settle(closed=bool(names))
        if errors:
            raise errors[0]
        return reports

    def _update(self, name: str, timer: Timer, logger: logging.Logger) -> StepReport:
        """Close the window of one member; its gradients are gone afterwards, whatever happened."""
        m = self.members[name]
        try:
            with timer(["optim_time", name]), self._without_graph:
                return self._closing.alone(m, logger)
        finally:
            m.drop()

    def _update_together(
        self, names: Sequence[str], timer: Timer, logger: logging.Logger
    ) -> tuple[dict[str, StepReport], list[NonFiniteError]]:
        """The same for members that are clipped by one norm."""
        members = {name: self.members[name] for name in names}
        try:
            with self._without_graph:
                return self._closing.together(members, timer, logger)
        finally:
            for m in members.values():
                m.drop()

    def _settle(self, *, closed: bool) -> None:
        """Loss scales may change now where no window is open that their loss has fed.

        Args:
            closed: a window was closed.
        """
        if closed:
            self.sync.share_buffers()
            forget_casts(self._device_type)
        self.precision.settle({member.loss for member in self.members.values() if member.window})

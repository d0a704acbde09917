"""The reference loop: how a run is trained with the package, from the first batch to the last checkpoint.

Follow one loss from here: `Runner._train_batch` hands it to `step.py`, and that its gradient to `apply.py`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from optimscheduler.api.average import Average
from optimscheduler.errors import CheckpointError
from optimscheduler.reports.ledger import StepReport
from optimscheduler.run.checkpoint.store import Checkpoints
from optimscheduler.run.config.instantiate import build_model
from optimscheduler.run.config.schema import RunConfig
from optimscheduler.run.data.batch_ranges import BatchRanges
from optimscheduler.run.data.batches import RunData
from optimscheduler.run.data.rng import derived_seed, kept, seed_everything
from optimscheduler.run.distributed.parallelize import share_buffers, unsharded, wrapped
from optimscheduler.run.distributed.world import ALONE, World
from optimscheduler.run.loop.buffer_guard import CleanBuffers
from optimscheduler.run.loop.modes import averaged
from optimscheduler.run.loop.nonfinite import stop_at_refused
from optimscheduler.run.loop.run_state import Progress, RunState, State
from optimscheduler.run.loop.skip_batches import drop_windows, means_with, say_what_it_comes_to
from optimscheduler.run.loop.stopwatch import Stopwatch, record_of
from optimscheduler.run.loop.validation import items_behind, mean_outputs, observe, outputs_of
from optimscheduler.run.monitor import Monitor
from optimscheduler.run.monitor.samples import Painter, Writer, show
from optimscheduler.run.plan.plan import Plan, build_members
from optimscheduler.written import OnMismatch

__all__ = ["Lengths", "Runner"]

_log = logging.getLogger("optimscheduler")

Stop = Callable[[], bool]
Lengths = Callable[[], Mapping[str, int]]

_PATIENCE: Final = 1.0  # seconds

_RECENT: Final = 16
"""Windows that are remembered, to be told when something goes wrong."""


class Runner:
    """One run, built from its configuration.

    Args:
        config: checked.
        data: what to train on.
        checkpoints: where to save.
        plan: how long, and how many batches make a window.
        device: of this process.
        world: who takes part.
        stop_after: the number of a batch after which to stop, also in an open window where that can be saved.

    Raises:
        ConfigError: something cannot be built.
    """

    def __init__(
        self,
        config: RunConfig,
        data: RunData,
        checkpoints: Checkpoints,
        plan: Plan,
        device: torch.device,
        world: World = ALONE,
        stop_after: int | None = None,
    ) -> None:
        self._stop_after = stop_after
        self.config, self.data, self.checkpoints = config, data, checkpoints
        self.plan, self.horizon, self.device, self.world = plan, plan.horizon, device, world
        seed_everything(config.seed)
        self.model = build_model(config.train_cfg.model).to(device)
        self._called = wrapped(self.model, config.distributed, world, device)
        self.optim_sches = build_members(config, self._called, plan.accum_grad, distributed=world.count > 1)
        for name, optim in self.optim_sches.items():
            optim.resolve(plan.members[name].run)
            optim.member.ledger.forensics |= config.on_nonfinite == "raise"
        average = config.average
        self.average = Average(self.optim_sches, **average.model_dump()) if average else None
        self.progress = Progress()
        self.recent: deque[dict[str, Any]] = deque(maxlen=_RECENT)
        self.state = RunState(config, self.model, self.optim_sches, device, world, self.horizon.batches)
        self._validated: dict[str, float] | None = None
        self._unsaved = config.on_nonfinite == "raise"  # there must be one from before, whatever comes
        self._buffers = CleanBuffers(self.model)
        self._stopwatch = Stopwatch()
        self.optim_sches.train()
        self._diverge(0)

    def _diverge(self, batch: int) -> None:
        """Each rank draws random numbers of its own from here on, after so many batches."""
        if self.world.count > 1:
            seed_everything(derived_seed(self.config.seed, "rank", self.world.rank, batch))

    @property
    def is_over(self) -> bool:
        """Whether the run has come to its end."""
        return self.horizon.is_over(self.progress.epoch, self.progress.batch_in_epoch)

    @property
    def last_batch(self) -> int:
        """The number of the last batch of the run."""
        p, horizon = self.progress, self.horizon
        left = horizon.batches_in_all - (p.epoch - 1) * horizon.batches - p.batch_in_epoch
        return p.batch + max(0, left)

    @property
    def windows_left(self) -> int:
        """Windows to the end of the run."""
        p = self.progress
        return self.horizon.windows - self.horizon.windows_before(p.epoch, p.batch_in_epoch)

    def run(self, monitor: Monitor, lengths: Lengths, stop: Stop) -> bool:
        """Train to the end, or until `stop()`; either way the last thing written is a checkpoint.

        Args:
            monitor: is told what happens.
            lengths: bytes in the files of metrics, as they are to be saved.
            stop: a wish of this process; all ranks act on it at the same window.

        Returns:
            Whether the end was reached.
        """
        if self._unsaved and not self.is_over and self._may_save:
            self.save(lengths)
            self.close()  # it is there, before anything is trained
        while not self.is_over:
            if not (self._train_epoch(monitor, lengths, stop) and self._validate(monitor, stop)):
                self.save(lengths, last=True)
                return False
            if self.progress.batch_in_epoch == self.horizon.batches:
                self.progress.epoch += 1
                self.progress.batch_in_epoch = 0
            if self._may_save:
                self.save(lengths, last=self.is_over)
        return True

    def _train_epoch(self, monitor: Monitor, lengths: Lengths, stop: Stop) -> bool:
        """The rest of an epoch; False if it was stopped."""
        p, due = self.progress, self._unsaved
        self.model.train()
        end, before_epoch = self.horizon.batches_of(p.epoch), p.batch - p.batch_in_epoch
        places = [n for n in range(p.batch_in_epoch, end) if before_epoch + n + 1 not in p.skip]
        following = iter([*places[1:], end])
        for place, weight, batch in self.data.training(p.epoch, self.device, places):
            then = next(following)
            p.batch_in_epoch, p.batch = place + 1, before_epoch + place + 1
            passed = range(place + 1, then + 1)  # this batch, and those after it that are passed over
            last = any(self.horizon.ends_window(p.epoch, n) for n in passed)
            before, reports = p.windows, self._train_batch(batch, weight, last=last)
            if place + 1 < then == end:
                self._pass_over(end, ended=last)
            closed = self._closes_window(reports, monitor)
            if self._stop_after is not None and p.batch >= self._stop_after and self._may_save:
                return False
            if not closed:
                continue
            every = self.config.checkpoint_every
            due = due or p.windows // every > before // every
            if self._agreed(stop):
                return False
            if due and self._may_save:
                self.save(lengths)
                due = False
        if p.batch_in_epoch < end:
            self._pass_over(end, ended=False)
            if self.horizon.ends_window(p.epoch, end):
                self._closes_window(self.optim_sches.flush(), monitor)  # maybe one was open
        return True

    def _pass_over(self, end: int, *, ended: bool) -> None:
        """Go to the end of an epoch of so many batches, of which the rest is left out.

        Args:
            end: batches in the epoch.
            ended: the last window was ended because of them.
        """
        p = self.progress
        p.batch_in_epoch, p.batch = end, p.batch - p.batch_in_epoch + end
        for optim in self.optim_sches.values():
            optim.member.clock.pass_over(p.batch, ended=ended)
            if self.horizon.ends_window(p.epoch, end):
                optim.member.clock.flush()

    def _agreed(self, stop: Stop) -> bool:
        """Whether any rank wishes to stop, at a place where all of them can."""
        return self._may_save and self.world.any(stop())

    def _closes_window(self, reports: Mapping[str, StepReport], monitor: Monitor) -> bool:
        """Tell what became of the windows that are complete; whether there are any.

        Raises:
            NonFiniteError: one was refused, and the configuration says to stop then.
        """
        complete = {name: report.read() for name, report in reports.items() if report.completes}
        if not complete:
            return False
        self.progress.windows = self._windows_done
        for name, report in complete.items():
            record = record_of(report, self._stopwatch, name, several=len(self.optim_sches) > 1)
            self.recent.append(record)
            monitor.window(record)
        if any(report.skipped for report in complete.values()):
            self._buffers.refused()
            share_buffers(self.model, self.world)  # those of rank 0 may have met the others before this
        self._buffers.tell()
        if self.config.on_nonfinite == "raise":
            stop_at_refused(self.optim_sches, complete)
        return True

    @property
    def _windows_done(self) -> int:
        return max(optim.member.clock.real_step for optim in self.optim_sches.values())

    @property
    def _may_save(self) -> bool:
        """Whether a checkpoint can hold everything: with several ranks an open window is theirs together."""
        return self.world.count == 1 or not any(o.member.window for o in self.optim_sches.values())

    def _train_batch(self, batch: Any, part: float, *, last: bool) -> dict[str, StepReport]:
        """One batch: forward, backward, and the update if its window is complete.

        Args:
            batch: this rank's part.
            part: how much it counts, see `RunData.training`.
            last: it ends its window, though that is maybe not full.
        """
        p = self.progress
        self._validated = None
        with self.optim_sches.forward(step_num=p.batch, last=last):
            losses = outputs_of(self._called, batch)
        weight: float | Tensor | None = items_behind(losses, self.config.train_cfg.weight)
        if weight is not None:
            weight = weight if part else 0.0
        elif self.world.count > 1 or self.config.counts_items:
            weight = part
        reports = self.optim_sches.step(losses, self._stopwatch, epoch_num=p.epoch, weight=weight)
        names = {optim.member.loss for optim in self.optim_sches.values()}
        self._buffers.after(losses[name] for name in names if name in losses)
        return reports

    def _validate(self, monitor: Monitor, stop: Stop) -> bool:
        """Validate with the weights that are to be kept: the averaged ones, where they are averaged."""
        with self.average.applied() if self.average else nullcontext():
            return self._validate_weights(monitor, stop)

    def _validate_weights(self, monitor: Monitor, stop: Stop) -> bool:
        """Means of the model's outputs over the held-out data, and a text if it writes one.

        Returns:
            False if it was stopped before the end; then nothing was done.
        """
        self.model.eval()
        share_buffers(self.model, self.world)
        with averaged(self.optim_sches):
            return self._validated_with(monitor, stop)

    def _validated_with(self, monitor: Monitor, stop: Stop) -> bool:
        """The same, with the weights as they are now."""
        p = self.progress
        with kept(self.device), torch.no_grad(), self.optim_sches.autocast():
            held_out = self.data.validation(self.device)
            asked = partial(self._agreed, stop)
            means = mean_outputs(self.model, held_out, self.config.train_cfg.weight, asked, self.world)
        if means is None:
            return False
        if means:
            place = {"batch": p.batch, "real_step": self._windows_done, "epoch": p.epoch}
            monitor.validated({**place, **means})
            self.checkpoints.retention.check(means)
            self._validated = means
            observe(self.optim_sches.values(), means)
        if isinstance(self.model, Writer | Painter):
            with kept(self.device), unsharded(self.model):  # all ranks: a sharded model may meet in it
                show(self.model, monitor, p.epoch, self.config.seed)
        return True

    # ---- checkpoints ----

    def save(self, lengths: Lengths, *, last: bool = False) -> None:
        """Write a checkpoint of everything that the rest of the run depends on; all ranks take part.

        One that cannot be written is a warning, and an error where it is the last.
        """
        self._unsaved = False
        share_buffers(self.model, self.world)
        with averaged(self.optim_sches) as trained:
            self._save(lengths, trained, last=last)

    def _save(self, lengths: Lengths, trained: Mapping[str, Tensor], *, last: bool) -> None:
        """The same, with the weights as they are to be used, and beside them as they are trained."""
        background = self.config.save_in_background and not last
        state, batch = self.state.taken(self.progress, lengths(), trained), self.progress.batch
        began = time.monotonic()
        self.close()
        if time.monotonic() - began > _PATIENCE:
            _log.info(
                "checkpoint_every: a checkpoint takes longer to write than the windows to the next, so the "
                "training waits for it; a larger number makes it faster"
            )
        write = partial(self.checkpoints.save, batch, state, metrics=self._validated, background=background)
        if last:
            write()
        else:
            self._tell(write)

    def close(self) -> None:
        """Wait for the checkpoint that is being written."""
        self._tell(self.checkpoints.finish)

    def _tell(self, write: Callable[[], object]) -> None:
        """Write, or say why not, and go on."""
        try:
            write()
        except CheckpointError as error:
            _log.warning("%s. The training goes on, and the next checkpoint is tried again", error)

    def load(self, state: State, on_mismatch: OnMismatch) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: it is of another model, or of other OptimSchedulers.
        """
        self.progress = self.state.restore(state, on_mismatch, self._diverge)
        self._buffers = CleanBuffers(self.model)
        self._unsaved = False

    def leave_out(self, skip: BatchRanges, checkpoint: Path | None) -> None:
        """Pass over these batches, and over those that were passed over before, also when this is resumed.

        An open window with one of them in it is dropped. What cannot be left out is said.

        Args:
            skip: numbers of batches.
            checkpoint: that the run goes on from.
        """
        p, known = self.progress, self.progress.skip
        p.skip = known | skip
        lost = drop_windows(self.optim_sches.values(), p.skip)
        say_what_it_comes_to(skip, known, lost, done=p.batch, last=self.last_batch)
        if p.skip != known and checkpoint:
            self._validated = means_with(checkpoint)
        self._unsaved |= p.skip != known

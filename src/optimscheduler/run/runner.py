"""The reference loop: how a run is trained with the package, from the first batch to the last checkpoint.

Follow one loss from here: `Runner._train_batch` hands it to `step.py`, and that its gradient to `apply.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from optimscheduler.ledger import StepReport
from optimscheduler.optim_scheduler import OnMismatch
from optimscheduler.parameters import canonical
from optimscheduler.run.checkpoint import Checkpoints
from optimscheduler.run.config import RunConfig
from optimscheduler.run.data import RunData
from optimscheduler.run.monitor import Monitor
from optimscheduler.run.parts import build_model
from optimscheduler.run.plan import Plan, build_members
from optimscheduler.run.randomness import (
    derived_seed,
    kept,
    random_state,
    restore_random_state,
    seed_everything,
)
from optimscheduler.run.resuming import check_model, for_ranks
from optimscheduler.run.stopwatch import Stopwatch
from optimscheduler.run.tensors import Place
from optimscheduler.run.validation import items_behind, mean_outputs, outputs_of
from optimscheduler.run.world import ALONE, World
from optimscheduler.run.wrapping import share_buffers, unsharded, wrapped
from optimscheduler.shards import is_sharded

__all__ = ["Lengths", "Painter", "Progress", "Runner", "State", "Writer"]

State = dict[str, Any]  # Any: a tree of plain values and tensors
Stop = Callable[[], bool]
Lengths = Callable[[], Mapping[str, int]]


@runtime_checkable
class Writer(Protocol):
    """A model that can show in text what it has learned."""

    def write_sample(self, *, generator: torch.Generator) -> str:
        """Some text; the global random generators are left alone."""


@runtime_checkable
class Painter(Protocol):
    """A model that can show in a picture what it has learned."""

    def draw_sample(self, *, generator: torch.Generator) -> Tensor:
        """(H, W), 0 is paper and 1 is ink, or (H, W, 3); the global random generators are left alone."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        epoch: the current one, from 1.
        batch_in_epoch: batches of it that are done.
        batch: batches of the whole run that are done.
        windows: windows that are over, idle ones included.
    """

    epoch: int = 1
    batch_in_epoch: int = 0
    batch: int = 0
    windows: int = 0


class Runner:
    """One run, built from its configuration.

    Args:
        config: checked.
        data: what to train on.
        checkpoints: where to save.
        plan: how long, and how many batches make a window.
        device: of this process.
        world: who takes part.

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
    ) -> None:
        self.config, self.data, self.checkpoints = config, data, checkpoints
        self.plan, self.horizon, self.device, self.world = plan, plan.horizon, device, world
        seed_everything(config.seed)
        self.model = build_model(config.train_cfg.model).to(device)
        self._called = wrapped(self.model, config.distributed, world, device)
        self.optim_sches = build_members(config, self._called, plan.accum_grad, distributed=world.count > 1)
        for name, optim in self.optim_sches.items():
            optim.resolve(plan.members[name].run)
        self.progress = Progress()
        self._stopwatch = Stopwatch()
        self._diverge()

    def _diverge(self) -> None:
        """Each rank draws random numbers of its own from here on."""
        if self.world.count > 1:
            seed_everything(derived_seed(self.config.seed, "rank", self.world.rank, self.progress.batch))

    @property
    def is_over(self) -> bool:
        """Whether the run has come to its end."""
        return self.horizon.is_over(self.progress.epoch, self.progress.batch_in_epoch)

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

        def agreed() -> bool:
            return self._may_save and self.world.any(stop())

        while not self.is_over:
            if not (self._train_epoch(monitor, lengths, agreed) and self._validate(monitor, agreed)):
                self.save(lengths)
                return False
            if self.progress.batch_in_epoch == self.horizon.batches:
                self.progress.epoch += 1
                self.progress.batch_in_epoch = 0
            if self._may_save:
                self.save(lengths)
        return True

    def _train_epoch(self, monitor: Monitor, lengths: Lengths, stop: Stop) -> bool:
        """The rest of an epoch; False if it was stopped."""
        p, due = self.progress, False
        self.model.train()
        left = {"first": p.batch_in_epoch, "end": self.horizon.batches_of(p.epoch)}
        for weight, batch in self.data.training(p.epoch, self.device, **left):
            reports = self._train_batch(batch, weight)
            if not any(report.completes for report in reports.values()):
                continue
            before, p.windows = p.windows, self._windows_done
            for name, report in reports.items():
                if report.completes:
                    monitor.window(self._record(name, report.read()))
            every = self.config.checkpoint_every
            due = due or p.windows // every > before // every
            if stop():
                return False
            if due and self._may_save:
                self.save(lengths)
                due = False
        return True

    @property
    def _windows_done(self) -> int:
        return max(optim.member.clock.real_step for optim in self.optim_sches.values())

    @property
    def _may_save(self) -> bool:
        """Whether a checkpoint can hold everything: with several ranks an open window is theirs together."""
        return self.world.count == 1 or not any(o.member.window for o in self.optim_sches.values())

    def _train_batch(self, batch: Any, part: float) -> dict[str, StepReport]:
        """One batch: forward, backward, and the update if its window is complete.

        Args:
            batch: this rank's part.
            part: how much it counts, see `RunData.training`.
        """
        p = self.progress
        p.batch_in_epoch += 1
        p.batch += 1
        last = self.horizon.ends_window(p.epoch, p.batch_in_epoch)
        with self.optim_sches.forward(step_num=p.batch, last=last):
            losses = outputs_of(self._called, batch)
        weight: float | Tensor | None = items_behind(losses, self.config.train_cfg.weight)
        if weight is not None:
            weight = weight if part else 0.0
        elif self.world.count > 1 or self.config.counts_items:
            weight = part
        return self.optim_sches.step(losses, self._stopwatch, epoch_num=p.epoch, weight=weight)

    def _validate(self, monitor: Monitor, stop: Stop) -> bool:
        """Means of the model's outputs over the held-out data, and a text if it writes one.

        Returns:
            False if it was stopped before the end; then nothing was done.
        """
        p = self.progress
        self.model.eval()
        share_buffers(self.model, self.world)
        with kept(self.device), torch.no_grad(), self.optim_sches.autocast():
            held_out = self.data.validation(self.device)
            means = mean_outputs(self.model, held_out, self.config.train_cfg.weight, stop, self.world)
        if means is None:
            return False
        if means:
            place = {"batch": p.batch, "real_step": self._windows_done, "epoch": p.epoch}
            monitor.validated({**place, **means})
            self._observe(means)
        if isinstance(self.model, Writer | Painter):
            with kept(self.device), unsharded(self.model):
                self._show(monitor)  # on all ranks: a sharded model may meet while it draws
        return True

    def _show(self, monitor: Monitor) -> None:
        """What the model has learned, in its own words and pictures; the same random numbers each time."""
        if isinstance(self.model, Writer):
            generator = torch.Generator().manual_seed(self.config.seed)
            monitor.sampled(self.model.write_sample(generator=generator))
        if isinstance(self.model, Painter):
            generator = torch.Generator().manual_seed(self.config.seed)
            monitor.drawn(self.progress.epoch, self.model.draw_sample(generator=generator))

    def _observe(self, means: Mapping[str, float]) -> None:
        """Tell every member the mean of its own loss."""
        for optim in self.optim_sches.values():
            if optim.member.loss in means:
                optim.observe(means[optim.member.loss])

    def _record(self, name: str, report: StepReport) -> dict[str, Any]:
        member = {"member": name} if len(self.optim_sches) > 1 else {}
        return member | {
            "batch": report.batch,
            "real_step": report.real_step,
            "epoch": report.epoch,
            "lr": report.lr,
            "loss": report.loss,
            "grad_norm": report.grad_norm,
            "updated": report.updated,
            "skipped": report.skipped,
            "backward_seconds": round(self._stopwatch.take("loss_backward_time", name), 6),
            "update_seconds": round(self._stopwatch.take("optim_time", name), 6),
        }

    # ---- checkpoints ----

    def save(self, lengths: Lengths) -> Path:
        """Write a checkpoint of everything that the rest of the run depends on; all ranks take part."""
        share_buffers(self.model, self.world)
        return self.checkpoints.save(
            self.progress.batch,
            {
                "config": self.config.plain(),
                "ranks": self.world.count,
                "model": self.model.state_dict(),
                "optim_sches": self.optim_sches.state_dict(),
                "progress": asdict(self.progress),
                "random": self.world.gather(random_state(self.device)),
                "lengths": lengths(),
            },
        )

    def empty_like(self, place: Place, size: torch.Size, dtype: torch.dtype) -> Tensor:
        """What to read a tensor of a checkpoint into: sharded as the parameter that it belongs to."""
        for name in place:
            parameter = self._sharded.get(name)
            if parameter is not None and parameter.shape == size:
                return torch.empty_like(parameter, dtype=dtype)
        return torch.empty(size, dtype=dtype)

    @cached_property
    def _sharded(self) -> dict[str | int, Tensor]:
        named = self.model.named_parameters()
        return {canonical(name): p.detach() for name, p in named if is_sharded(p)}

    def load(self, state: State, on_mismatch: OnMismatch) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: it is of another model, or of other OptimSchedulers.
        """
        check_model(state["model"], self.model.state_dict())
        saved = state["optim_sches"]
        if state["ranks"] != self.world.count and on_mismatch == "error":
            size = self.config.data_cfg.batch_size
            saved = for_ranks(saved, self.optim_sches, size, state["ranks"], self.world.count)
        self.model.load_state_dict(state["model"])
        self.optim_sches.load_state_dict(saved, on_mismatch)
        self.progress = Progress(**state["progress"])
        items = self.progress.batch_in_epoch * state["config"]["data_cfg"]["batch_size"] * state["ranks"]
        done = math.ceil(items / (self.config.data_cfg.batch_size * self.world.count))
        self.progress.batch_in_epoch = min(done, self.horizon.batches)
        if state["ranks"] == self.world.count:
            restore_random_state(state["random"][self.world.rank], self.device)
        else:
            self._diverge()

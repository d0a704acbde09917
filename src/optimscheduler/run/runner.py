"""The reference loop: how a run is trained with the package, from the first batch to the last checkpoint.

Follow one loss from here: `Runner._train_batch` hands it to `step.py`, and that its gradient to `apply.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from optimscheduler.errors import CheckpointError
from optimscheduler.ledger import StepReport
from optimscheduler.optim_scheduler import OnMismatch
from optimscheduler.run.checkpoint import Checkpoints
from optimscheduler.run.config import RunConfig
from optimscheduler.run.data import RunData
from optimscheduler.run.monitor import JsonLines, Monitor
from optimscheduler.run.parts import build_model, device_named
from optimscheduler.run.plan import Horizon, build_members
from optimscheduler.run.randomness import kept, random_state, restore_random_state, seed_everything
from optimscheduler.run.stopwatch import Stopwatch
from optimscheduler.run.validation import items_behind, mean_outputs, outputs_of
from optimscheduler.state import differences

__all__ = ["Progress", "Runner", "State", "Writer"]

_LISTED = 12  # differences told one by one

State = dict[str, Any]  # Any: a tree of plain values and tensors
Stop = Callable[[], bool]


@runtime_checkable
class Writer(Protocol):
    """A model that can show in text what it has learned."""

    def write_sample(self, *, generator: torch.Generator) -> str:
        """Some text; the global random generators are left alone."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        epoch: the current one, from 1.
        batch_in_epoch: batches of it that are done.
        batch: batches of the whole run that are done.
        windows: windows that are closed.
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
        horizon: how long.

    Raises:
        ConfigError: something cannot be built.
    """

    def __init__(self, config: RunConfig, data: RunData, checkpoints: Checkpoints, horizon: Horizon) -> None:
        self.config, self.data, self.checkpoints, self.horizon = config, data, checkpoints, horizon
        self.device = device_named(config.device)
        seed_everything(config.seed)
        self.model = build_model(config.train_cfg.model).to(self.device)
        self.optim_sches = build_members(config, self.model)
        self.progress = Progress()
        self._stopwatch = Stopwatch()

    @property
    def windows_done(self) -> int:
        """Windows that are over, idle ones included."""
        return max(optim.member.clock.real_step for optim in self.optim_sches.values())

    @property
    def windows_left(self) -> int:
        """Windows to the end of the run."""
        p = self.progress
        return self.horizon.windows - self.horizon.windows_before(p.epoch, p.batch_in_epoch)

    def run(self, monitor: Monitor, lines: JsonLines, stop: Stop) -> bool:
        """Train to the end, or until `stop()`; either way the last thing written is a checkpoint.

        Returns:
            Whether the end was reached.
        """
        while self.progress.epoch <= self.config.num_epochs:
            if not (self._train_epoch(monitor, lines, stop) and self._validate(monitor, stop)):
                self.save(lines)
                return False
            self.progress.epoch += 1
            self.progress.batch_in_epoch = 0
            self.save(lines)
        return True

    def _train_epoch(self, monitor: Monitor, lines: JsonLines, stop: Stop) -> bool:
        """The rest of an epoch; False if it was stopped."""
        p = self.progress
        self.model.train()
        left = {"first": p.batch_in_epoch, "end": self.horizon.batches}
        for batch in self.data.training(p.epoch, self.device, **left):
            reports = self._train_batch(batch)
            if not any(report.completes for report in reports.values()):
                continue
            p.windows += 1
            for name, report in reports.items():
                if report.completes:
                    monitor.window(self._record(name, report.read()))
            if stop():
                return False
            if p.windows % self.config.checkpoint_every == 0:
                self.save(lines)
        return True

    def _train_batch(self, batch: Any) -> dict[str, StepReport]:
        """One batch: forward, backward, and the update if its window is complete."""
        p = self.progress
        p.batch_in_epoch += 1
        p.batch += 1
        last = self.horizon.ends_window(p.epoch, p.batch_in_epoch)
        with self.optim_sches.forward(step_num=p.batch, last=last):
            losses = outputs_of(self.model, batch)
        weight = items_behind(losses, self.config.train_cfg.weight)
        return self.optim_sches.step(losses, self._stopwatch, epoch_num=p.epoch, weight=weight)

    def _validate(self, monitor: Monitor, stop: Stop) -> bool:
        """Means of the model's outputs over the held-out data, and a text if it writes one.

        Returns:
            False if it was stopped before the end; then nothing was done.
        """
        p = self.progress
        self.model.eval()
        with kept(self.device), torch.no_grad(), self.optim_sches.autocast():
            held_out = self.data.validation(self.device)
            means = mean_outputs(self.model, held_out, self.config.train_cfg.weight, stop)
        if means is None:
            return False
        if means:
            place = {"batch": p.batch, "real_step": self.windows_done, "epoch": p.epoch}
            monitor.validated({**place, **means})
            self._observe(means)
        if isinstance(self.model, Writer):
            with kept(self.device):
                generator = torch.Generator().manual_seed(self.config.seed)
                monitor.sampled(self.model.write_sample(generator=generator))
        return True

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

    def save(self, lines: JsonLines) -> Path:
        """Write a checkpoint of everything that the rest of the run depends on."""
        return self.checkpoints.save(
            self.progress.batch,
            {
                "config": self.config.plain(),
                "model": self.model.state_dict(),
                "optim_sches": self.optim_sches.state_dict(),
                "progress": asdict(self.progress),
                "random": random_state(self.device),
                "lengths": lines.lengths(),
            },
        )

    def load(self, state: State, on_mismatch: OnMismatch) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: it is of another model, or of other OptimSchedulers.
        """
        _check_model(state["model"], self.model.state_dict())
        self.model.load_state_dict(state["model"])
        self.optim_sches.load_state_dict(state["optim_sches"], on_mismatch)
        self.progress = Progress(**state["progress"])
        items = self.progress.batch_in_epoch * state["config"]["data_cfg"]["batch_size"]
        done = math.ceil(items / self.config.data_cfg.batch_size)
        self.progress.batch_in_epoch = min(done, self.horizon.batches)
        restore_random_state(state["random"], self.device)


def _check_model(saved: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> None:
    """Check that saved weights are those of this model.

    Raises:
        CheckpointError: they are not; every difference is listed.
    """
    shapes = [{n: list(getattr(value, "shape", ())) for n, value in state.items()} for state in (saved, now)]
    lines = [line.replace("in the configuration", "here") for line in differences(shapes[0], shapes[1])]
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    if lines:
        raise CheckpointError("\n  ".join(["the checkpoint is of another model:", *lines[:_LISTED], *more]))

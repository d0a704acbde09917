"""The reference loop: how a run is trained with the package, from the first batch to the last checkpoint.

Follow one loss from here: `Runner._train_batch` hands it to `step.py`, and that its gradient to `apply.py`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy
import torch
from torch import Tensor

from optimscheduler.errors import CheckpointError, ConfigError, LossNotFound, nearest
from optimscheduler.ledger import StepReport
from optimscheduler.optim_scheduler import OnMismatch
from optimscheduler.run.checkpoint import Checkpoints, load_random_state, random_state
from optimscheduler.run.config import RunConfig
from optimscheduler.run.data import Batches, build_dataset, to_device
from optimscheduler.run.monitor import JsonLines, Monitor
from optimscheduler.run.plan import Horizon, build_members, build_model
from optimscheduler.run.stopwatch import Stopwatch

__all__ = ["Progress", "Runner", "Writer", "choose_device", "train_batches", "valid_batches"]

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
        checkpoints: where to save.
        horizon: how long.

    Raises:
        ConfigError: something cannot be built.
    """

    def __init__(self, config: RunConfig, checkpoints: Checkpoints, horizon: Horizon) -> None:
        self.config, self.checkpoints, self.horizon = config, checkpoints, horizon
        _seed_everything(config.seed)
        self.device = choose_device(config.device)
        self.train_data, self.valid_data = train_batches(config), valid_batches(config)
        self.model = build_model(config.train_cfg.model, self.device)
        self.optim_sches = build_members(config, self.model)
        self.progress = Progress()
        self._stopwatch = Stopwatch()

    def run(self, monitor: Monitor, lines: JsonLines, stop: Stop) -> bool:
        """Train to the end, or until `stop()`; either way the last thing written is a checkpoint.

        Returns:
            Whether the end was reached.
        """
        while self.progress.epoch <= self.config.num_epochs:
            if not self._train_epoch(monitor, lines, stop):
                return False
            self._validate(monitor)
            self.progress.epoch += 1
            self.progress.batch_in_epoch = 0
            self.save(lines)
        return True

    def _train_epoch(self, monitor: Monitor, lines: JsonLines, stop: Stop) -> bool:
        """The rest of an epoch; False if it was stopped."""
        p = self.progress
        self.model.train()
        for batch in self.train_data.of_epoch(p.epoch, first=p.batch_in_epoch, end=self.horizon.batches):
            reports = self._train_batch(to_device(batch, self.device))
            if not any(report.completes for report in reports.values()):
                continue
            p.windows += 1
            for name, report in reports.items():
                monitor.window(self._record(name, report.read()))
            if stop():
                self.save(lines)
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
            outputs = self.model(batch)
        return self.optim_sches.step(
            outputs,
            time_func=self._stopwatch,
            epoch_num=p.epoch,
            weight=self._items(outputs),
        )

    def _validate(self, monitor: Monitor) -> None:
        """Means of the model's outputs over the held-out data, each batch weighted by its items."""
        p = self.progress
        sums: dict[str, Tensor] = defaultdict(
            lambda: torch.zeros((), dtype=torch.float64, device=self.device)
        )
        items = torch.zeros((), dtype=torch.float64, device=self.device)
        self.model.eval()
        with torch.no_grad(), self.optim_sches.autocast():
            for batch in self.valid_data.of_epoch(1) if self.valid_data else ():
                outputs = self.model(to_device(batch, self.device))
                weight = self._items(outputs)
                items += _rows(batch) if weight is None else weight
                for name, value in outputs.items():
                    if name != self.config.train_cfg.weight:
                        sums[name] += value.double() * (_rows(batch) if weight is None else weight)
        if sums:
            means = {name: float(total / items) for name, total in sums.items()}
            real_step = max(optim.member.clock.real_step for optim in self.optim_sches.values())
            monitor.validated({"batch": p.batch, "real_step": real_step, "epoch": p.epoch, **means})
            self.optim_sches.observe(means["loss"] if "loss" in means else next(iter(means.values())))
        if isinstance(self.model, Writer):
            monitor.sampled(
                self.model.write_sample(generator=torch.Generator().manual_seed(self.config.seed))
            )

    def _items(self, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """How many items are behind the mean losses, where the configuration says how they are called."""
        name = self.config.train_cfg.weight
        if name is not None and name not in outputs:
            raise LossNotFound(f"train_cfg.weight: the model returned no {name!r}. {nearest(name, outputs)}")
        return None if name is None else outputs[name]

    def _record(self, name: str, report: StepReport) -> dict[str, Any]:
        return {
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
                "version": 1,
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
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise CheckpointError(f"the checkpoint is of another model: {error}") from None
        self.optim_sches.load_state_dict(state["optim_sches"], on_mismatch)
        self.progress = Progress(**state["progress"])
        load_random_state(state["random"], self.device)


def train_batches(config: RunConfig) -> Batches:
    """The training data of a configuration."""
    cfg = config.data_cfg
    return Batches(
        dataset=build_dataset(cfg.train, "data_cfg.train"),
        batch_size=cfg.batch_size,
        seed=config.seed,
        num_workers=cfg.num_workers,
    )


def valid_batches(config: RunConfig) -> Batches | None:
    """The held-out data of a configuration, if it names some."""
    cfg = config.data_cfg
    if cfg.valid is None:
        return None
    dataset = build_dataset(cfg.valid, "data_cfg.valid")
    size = cfg.valid_batch_size or cfg.batch_size
    return Batches(dataset=dataset, batch_size=size, seed=None, num_workers=cfg.num_workers)


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, otherwise the CPU.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty((), device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device: {name!r} cannot be used here: {reason:.120}. Try auto or cpu") from None


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def _rows(batch: Any) -> int:
    """The number of rows: the length of the first tensor in the batch."""
    if isinstance(batch, Tensor):
        return len(batch)
    parts = batch.values() if isinstance(batch, Mapping) else batch
    return next((_rows(part) for part in parts if isinstance(part, Tensor | Mapping | list | tuple)), 1)

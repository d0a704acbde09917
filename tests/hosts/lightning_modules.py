"""Modules and a Trainer of Lightning as its users write them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR
from torch.utils.data import DataLoader

from tests.hosts.trainings import loss_of, ours, torchs

__all__ = ["OF_LIGHTNING", "fit", "manual", "module", "trainer"]

OF_LIGHTNING = (
    "ignore:.isinstance.treespec, LeafSpec:FutureWarning",
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:The .train_dataloader. does not have many workers",
)
"""Warnings of its own."""


def module(model: nn.Module, layout: str | None) -> Any:  # Any: a LightningModule
    """A LightningModule as its users write it; `layout` None is torch's optimizer."""
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.rates: list[float] = []

        def training_step(self, number: Tensor, at: int) -> Tensor:
            self.rates.append(self.optimizers().param_groups[0]["lr"])
            return loss_of(self.model, int(number))

        def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
            if layout is None:
                self.made: Optimizer = torchs(self.model)
            else:
                self.optim = ours(self.model, layout)
                self.made = self.optim.optimizer
            return [self.made], [StepLR(self.made, 1, 0.5)]

    return Module()


def manual(model: nn.Module, layout: str, *, counts: bool = True) -> Any:  # Any: a LightningModule
    """The library steps, and Lightning is told of it, as the page says."""
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.model = model
            self.optim = ours(model, layout)
            self.made = self.optim.optimizer

        def training_step(self, number: Tensor, at: int) -> None:
            with self.optim.forward():
                loss = loss_of(self.model, int(number))
            report = self.optim.step({"loss": loss})
            if counts and report.completes:
                progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
                progress.increment_ready()
                progress.increment_completed()

        def configure_optimizers(self) -> Optimizer:
            return self.made

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["optim"] = self.optim.state_dict()

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.optim.load_state_dict(checkpoint["optim"])

    return Module()


def trainer(**more: Any) -> Any:  # Any: Lightning's
    """On the CPU, without bars, logs and files."""
    from lightning.pytorch import Trainer

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"enable_checkpointing": False, "max_epochs": 2, "precision": "64-true", **quiet, **more}
    return Trainer(accelerator="cpu", devices=1, **settings)


def fit(its_module: Any, its_trainer: Any, **more: Any) -> tuple[nn.Module, Optimizer]:  # Any: Lightning's
    its_trainer.fit(its_module, DataLoader(range(6), batch_size=None), **more)
    its_module.made.zero_grad()
    return its_module.model, its_module.made

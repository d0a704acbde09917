"""Lightning: its Fabric, and its Trainer, over `optim.optimizer`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from tests.hosts.lightning_modules import fit, manual, module, trainer
from tests.hosts.row import Row
from tests.hosts.trainings import MODELS, apart, loss_of, ours, plain, steps, torchs

__all__ = ["ROWS"]


def _fabric(layout: str) -> float:
    from lightning.fabric import Fabric

    found = []
    for make in MODELS:
        sides = [(model := make(), ours(model, layout).optimizer), (model := make(), torchs(model))]
        for model, optimizer in sides:
            fabric = Fabric(accelerator="cpu", devices=1, precision="64-true")
            wrapped, theirs = fabric.setup(model, optimizer)
            for number in range(8):
                theirs.zero_grad()
                fabric.backward(loss_of(wrapped, number))
                fabric.clip_gradients(wrapped, theirs, max_norm=0.1)
                theirs.step()
            optimizer.zero_grad()
        found.append(apart(*sides))
    return max(found)


def _trainer(layout: str) -> float:
    """Two batches make a gradient, which is clipped; the learning rate is halved after an epoch."""
    found = []
    for make in MODELS:
        settings = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}
        modules = [module(make(), layout), module(make(), None)]
        sides = [fit(each, trainer(**settings)) for each in modules]
        assert modules[0].rates == modules[1].rates == [0.01] * 6 + [0.005] * 6
        found.append(apart(*sides))
    return max(found)


def _trainer_resumed(layout: str) -> float:
    """ModelCheckpoint after the first epoch; another process goes on from its file."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    found = []
    for make in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            saving = {
                "enable_checkpointing": True,
                "callbacks": [ModelCheckpoint(dirpath=folder, filename="last")],
            }
            fit(module(make(), layout), trainer(max_epochs=1, **saving))
            torch.manual_seed(1)
            resumed = module(make(), layout)
            side = fit(resumed, trainer(**saving), ckpt_path=str(Path(folder) / "last.ckpt"))
        assert resumed.rates == [0.005] * 6
        found.append(apart(side, fit(module(make(), None), trainer())))
    return max(found)


def _fabric_ours(layout: str) -> float:
    """The library steps; Fabric wraps the model, saves and loads."""
    from lightning.fabric import Fabric

    found = []
    for make in MODELS:
        models, fabric = [make(), make(), make()], Fabric(accelerator="cpu", devices=1, precision="64-true")
        optims = [ours(model, layout) for model in models[:2]]
        wrapped = [fabric.setup_module(model) for model in models]  # whose outputs are float32
        steps(optims[0], range(4), model=wrapped[0])
        with tempfile.TemporaryDirectory() as folder:
            fabric.save(Path(folder) / "all", {"model": wrapped[0], "optim": optims[0]})
            fabric.load(Path(folder) / "all", {"model": wrapped[1], "optim": optims[1]})
        steps(optims[1], range(4, 8), model=wrapped[1])
        optimizer = torchs(models[2])
        plain(wrapped[2], optimizer, range(8))
        found.append(apart((models[1], optims[1].optimizer), (models[2], optimizer)))
    return max(found)


def _by_hand(layout: str) -> float:
    """Lightning's manual optimization, saved and resumed."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    found = []
    for make in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            saving = {
                "enable_checkpointing": True,
                "callbacks": [ModelCheckpoint(dirpath=folder, filename="last")],
            }
            fit(manual(make(), layout), trainer(max_epochs=1, **saving))
            torch.manual_seed(1)
            its_trainer = trainer(**saving)
            side = fit(manual(make(), layout), its_trainer, ckpt_path=str(Path(folder) / "last.ckpt"))
        assert its_trainer.global_step == 12
        other = make()
        optimizer = torchs(other)
        plain(other, optimizer, [*range(6), *range(6)])
        found.append(apart(side, (other, optimizer)))
    return max(found)


ROWS = (
    Row(
        name="fabric",
        tool="Lightning Fabric: `fabric.setup(model, optim.optimizer)`, `clip_gradients`",
        trial=_fabric,
        needs="lightning",
    ),
    Row(
        name="fabric_ours",
        tool="Lightning Fabric: `fabric.setup_module(model)`, `optim.step`, `fabric.save`, `fabric.load`",
        trial=_fabric_ours,
        needs="lightning",
    ),
    Row(
        name="trainer",
        tool="Lightning Trainer: `configure_optimizers` returns `optim.optimizer`, with a scheduler of torch",
        trial=_trainer,
        needs="lightning",
    ),
    Row(
        name="trainer_resumed",
        tool="Lightning Trainer: `ModelCheckpoint`, `fit(ckpt_path=...)`",
        trial=_trainer_resumed,
        needs="lightning",
    ),
    Row(
        name="by_hand",
        tool="Lightning Trainer: `automatic_optimization = False`, `optim.step` in `training_step`, as below",
        trial=_by_hand,
        needs="lightning",
    ),
)

"""The Trainer of transformers over `optim.optimizer`, with a model of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tests.hosts.row import Row
from tests.hosts.trainings import apart, ours, torchs

__all__ = ["ROWS"]


def _bert() -> Any:  # Any: of transformers
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    drop = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(BertConfig(vocab_size=20, **sizes, **drop)).double()


def _data() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 20, (24, 6), generator=generator)
    return [{"input_ids": row, "labels": int(row.sum() % 2)} for row in rows]


def _train(model: Any, optimizer: Optimizer, folder: str, **more: Any) -> Any:  # Any: see above
    """Two batches make a gradient, which is clipped; the Trainer's own schedule goes down to 0."""
    from transformers import Trainer, TrainingArguments

    resume = more.pop("resume", None)
    settings = {"max_steps": 8, "save_strategy": "no", "max_grad_norm": 0.1, "gradient_accumulation_steps": 2}
    arguments = TrainingArguments(
        folder,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_steps=1,
        seed=3,
        per_device_train_batch_size=2,
        **{**settings, **more},
    )
    trainer = Trainer(model, arguments, train_dataset=_data(), optimizers=(optimizer, None))
    trainer.train(resume_from_checkpoint=resume)
    optimizer.zero_grad()
    return [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row]


def _trained(layout: str) -> float:
    models = [_bert(), _bert()]
    sides: list[tuple[nn.Module, Optimizer]] = [
        (models[0], ours(models[0], layout).optimizer),
        (models[1], torchs(models[1])),
    ]
    with tempfile.TemporaryDirectory() as folder:
        rates = [_train(*side, folder) for side in sides]
    assert rates[0] == rates[1]
    assert rates[0][0] > rates[0][-1] > 0
    return apart(*sides)


def _resumed(layout: str) -> float:
    models = [_bert(), _bert(), _bert()]
    optimizers = [ours(models[0], layout).optimizer, ours(models[1], layout).optimizer, torchs(models[2])]
    with tempfile.TemporaryDirectory() as folder:
        saving = {"save_strategy": "steps", "save_steps": 4}
        _train(models[0], optimizers[0], folder, **saving)
        _train(models[1], optimizers[1], folder, resume=str(Path(folder) / "checkpoint-4"))
        _train(models[2], optimizers[2], folder)
    return apart((models[1], optimizers[1]), (models[2], optimizers[2]))


ROWS = (
    Row(
        name="transformers",
        tool="Hugging Face `Trainer(optimizers=(optim.optimizer, None))`",
        trial=_trained,
        needs="transformers",
    ),
    Row(
        name="transformers_resumed",
        tool="Hugging Face `Trainer`: `save_steps`, `resume_from_checkpoint`",
        trial=_resumed,
        needs="transformers",
    ),
)

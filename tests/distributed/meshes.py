"""A small transformer on a mesh of (2, 2): tensor parallel along one dimension, sharded along the other."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812  # torch's habit
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

__all__ = ["WORDS", "Net", "laid", "loss_of", "mesh_of_four", "part_of", "texts"]

WORDS = 10


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.down(torch.tanh(self.up(self.norm(x))))
        return x + inner


class Net(nn.Module):
    """Embeddings, two blocks, a layer norm, a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.embed, self.places = nn.Embedding(WORDS, 8), nn.Parameter(torch.randn(4, 8))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.last, self.head = nn.LayerNorm(8), nn.Linear(8, WORDS)
        self.double()

    def forward(self, text: Tensor) -> Tensor:
        x = self.embed(text) + self.places
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.last(x))
        return logits


def mesh_of_four() -> DeviceMesh:
    return init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))


def laid(model: Net, mesh: DeviceMesh, how: str) -> Net:
    """The model on the mesh: `"tensor"`, `"sequence"`, `"loss"` parallel along tp, `"sharded"` along dp.

    Or `"hybrid"`: replicated along dp, sharded along tp.
    """
    sequence = "sequence" in how
    if "tensor" in how or sequence:
        parallelize_module(model, mesh["tp"], _plan(sequence, whole_logits="loss" not in how))
    if "sharded" in how or how == "hybrid":
        spread = mesh if how == "hybrid" else mesh["dp"]
        for block in model.blocks:
            fully_shard(block, mesh=spread)
        fully_shard(model, mesh=spread)
    return model


def _plan(sequence: bool, *, whole_logits: bool) -> dict[str, ParallelStyle]:
    """The head is sharded, too; layer norms are whole unless the sequence is."""
    inside: Any = Shard(1) if sequence else Replicate()
    plan: dict[str, ParallelStyle] = {}
    for i in range(2):
        plan[f"blocks.{i}.up"] = ColwiseParallel(input_layouts=inside)
        plan[f"blocks.{i}.down"] = RowwiseParallel(output_layouts=inside, use_local_output=not sequence)
    logits: Any = {"output_layouts": Replicate()} if whole_logits else {"use_local_output": False}
    plan["head"] = ColwiseParallel(input_layouts=inside, **logits)
    if sequence:
        norms = ("blocks.0.norm", "blocks.1.norm", "last")
        plan |= {name: SequenceParallel() for name in norms}
        plan["blocks.0"] = PrepareModuleInput(input_layouts=(Replicate(),), desired_input_layouts=(Shard(1),))
    return plan


def texts(count: int, size: int = 4) -> list[Tensor]:
    """Batches of word numbers, shape (size, 4)."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, WORDS, (size, 4), generator=generator) for _ in range(count)]


def part_of(text: Tensor, mesh: DeviceMesh, how: str, cut: int = 2) -> Tensor:
    """What this rank trains with: where batches are dealt out, the first `cut` texts or the others."""
    if how == "hybrid":
        return text[dist.get_rank() :][:1]
    if "sharded" not in how or not dist.is_initialized():
        return text
    return text[cut:] if mesh["dp"].get_local_rank() else text[:cut]


def loss_of(model: nn.Module, text: Tensor) -> Tensor:
    """To say each text again."""
    return F.cross_entropy(model(text).flatten(0, 1), text.flatten())

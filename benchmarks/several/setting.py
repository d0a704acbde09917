"""The setting that all libraries are given: a generator, a discriminator, five batches, and the right answer.

Both losses come out of one forward pass. Windows have `ACCUM` batches, so the last one is short; the
discriminator moves in every window, the generator in every second; each clips its own gradients. The right
answer is a plain loop in float64 in one process with all the data.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

BATCHES, ROWS, ACCUM = 5, 8, 2  # ROWS of a batch are dealt out to the ranks
LR, EPS, CLIP = 1e-2, 1e-3, {"d": 1.0, "g": 0.2}
RANK, RANKS = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)


def real_score(x: Tensor) -> Tensor:
    """Cross entropy of scores that should say "real"."""
    return binary_cross_entropy_with_logits(x, torch.ones_like(x))


def fake_score(x: Tensor) -> Tensor:
    """Cross entropy of scores that should say "drawn"."""
    return binary_cross_entropy_with_logits(x, torch.zeros_like(x))


class Gan(nn.Module):
    """Two perceptrons, and both losses over one graph."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.g = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 64))
        self.d = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def forward(self, real: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """`{"d": ..., "g": ...}`; nothing is detached."""
        return losses_of(self.g, self.d, real, noise)


def losses_of(g: nn.Module, d: nn.Module, real: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """Both losses, whatever the two networks are wrapped in."""
    scores = d(g(noise))
    return {"d": real_score(d(real)) + fake_score(scores), "g": real_score(scores)}


def own(model: Gan) -> dict[str, list[nn.Parameter]]:
    """The parameters of each side."""
    return {"d": list(model.d.parameters()), "g": list(model.g.parameters())}


def optimizers(model: Gan) -> dict[str, torch.optim.Adam]:
    """One for each side."""
    return {side: torch.optim.Adam(parameters, lr=LR, eps=EPS) for side, parameters in own(model).items()}


def batches() -> list[tuple[Tensor, Tensor]]:
    """Real rows and noise of each batch, with all ranks' rows."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.linspace(0.5, 2.0, BATCHES)
    return [
        (
            size * torch.randn(ROWS, 64, generator=generator),
            torch.randn(ROWS, 16, generator=generator),
        )
        for size in sizes
    ]


def my_batches() -> list[tuple[Tensor, Tensor]]:
    """This rank's rows of each batch."""
    return [(real.chunk(RANKS)[RANK], noise.chunk(RANKS)[RANK]) for real, noise in batches()]


def ends(batch: int) -> bool:
    """Whether a batch, from 0, is the last of its window."""
    return batch % ACCUM == ACCUM - 1 or batch == BATCHES - 1


def in_window(batch: int) -> int:
    """How many batches its window really has."""
    first = batch - batch % ACCUM
    return min(ACCUM, BATCHES - first)


def due(batch: int) -> list[str]:
    """The sides that take part in its window."""
    return ["d", "g"] if batch // ACCUM % 2 else ["d"]


def right_answer() -> Gan:
    """One process, all the data, a plain loop."""
    model = Gan()
    mine, optimizer = own(model), optimizers(model)
    sums = {side: [torch.zeros_like(p) for p in parameters] for side, parameters in mine.items()}
    for batch, (real, noise) in enumerate(batches()):
        losses = model(real, noise)
        for side in due(batch):
            gradients = torch.autograd.grad(losses[side], mine[side], retain_graph=True)
            for total, gradient in zip(sums[side], gradients, strict=True):
                total += gradient / in_window(batch)
        for side in due(batch) if ends(batch) else ():
            for parameter, total in zip(mine[side], sums[side], strict=True):
                parameter.grad = total.clone()
                total.zero_()
            nn.utils.clip_grad_norm_(mine[side], CLIP[side])
            optimizer[side].step()
    return model


def tell(name: str, trained: Gan) -> None:
    """One line: how far each side is from the right answer, relative to the largest weight."""
    expected = own(right_answer())
    said: dict[str, Any] = {"what": name, "ranks": RANKS}
    for side, parameters in own(trained).items():
        pairs = list(zip(parameters, expected[side], strict=True))
        largest = max(float(e.detach().abs().max()) for _, e in pairs)
        said[side] = f"{max(float((p - e).detach().abs().max()) for p, e in pairs) / largest:.1e}"
    if RANK == 0:
        print(json.dumps(said), flush=True)


def fail(name: str, error: BaseException) -> None:
    """One line: what the library said."""
    text = str(error).strip().splitlines()[0]
    if RANK == 0:
        print(json.dumps({"what": name, "ranks": RANKS, "error": text[:160]}), flush=True)

"""What is trained: lists of tensors with a loss that costs next to nothing, and small real models.

Every builder is seeded, so that two workloads of the same builder are equal. A model takes a batch and
returns `{"loss": 0-d tensor}`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from examples.char_lm.char_lm import CharLM, PydocText
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

UNCLIPPED, CLIPPED = 0.5, 4.0  # gradient norms; the loops clip at 1.0
BATCHES = 8

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A model, and the batches that every loop is fed in the same order, over and over."""

    model: nn.Module
    batches: Sequence[object]


Builder = Callable[[], Workload]


class _Bowl(torch.autograd.Function):
    """Half the sum of squares, times a constant; its value is never looked at, so it is not computed.

    The backward makes every gradient anew (gradient = constant x parameter: 4 bytes read and 4 written per
    element), so that autograd may hand it over without a copy, as it does for a matrix product.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, constant: float, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        ctx.constant = constant
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *torch._foreach_mul(ctx.saved_tensors, ctx.constant * gradient)


class Tensors(nn.Module):
    """Parameters of these shapes, normally distributed; the gradient has a chosen norm at the first step."""

    def __init__(self, shapes: Sequence[Shape], norm: float, device: str) -> None:
        super().__init__()
        self.tensors = nn.ParameterList(torch.randn(shape, device=device) for shape in shapes)
        self.constant = norm / math.sqrt(sum(math.prod(shape) for shape in shapes))

    def forward(self, _batch: object) -> dict[str, Tensor]:
        """The loss, 0 by name."""
        return {"loss": _Bowl.apply(self.constant, *self.parameters())}


class Regression(nn.Module):
    """Layers, and the mean squared error of what they make of a batch."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The loss of inputs and targets of one shape."""
        inputs, targets = batch
        return {"loss": nn.functional.mse_loss(self.layers(inputs), targets)}


def tensors(shapes: Sequence[Shape], norm: float = UNCLIPPED, device: str = "cpu") -> Builder:
    """A list of tensors with a loss that costs next to nothing."""

    def build() -> Workload:
        torch.manual_seed(0)
        return Workload(model=Tensors(shapes, norm, device), batches=[None])

    return build


def million(pieces: int) -> Builder:
    """2^20 parameters cut into 10, 100, 1,000 or 10,000 tensors, about square."""
    side = math.isqrt(2**20 // pieces)
    return tensors([(side, 2**20 // pieces // side)] * pieces)


def conformer() -> list[Shape]:
    """The 590 tensors, 29.5 M parameters, of a conformer with 16 blocks of width 256."""
    d, hidden, heads, kernel, mels, symbols = 256, 1024, 4, 31, 80, 4400
    norm: list[Shape] = [(d,), (d,)]
    feed_forward = [*norm, (hidden, d), (hidden,), (d, hidden), (d,)]
    attention = [*norm, *[(d, d), (d,)] * 4, (d, d), *[(heads, d // heads)] * 2]
    convolution = [*norm, (2 * d, d, 1), (2 * d,), (d, 1, kernel), *norm, (d, d, 1), (d,)]
    block = [*feed_forward, *attention, *convolution, *feed_forward, *norm]
    subsampling = [(mels,), (mels,), (d, 1, 3, 3), (d,), (d, d, 3, 3), (d,), (d, 19 * d), (d,)]
    head = [*norm, (symbols, d), (symbols,), (d, symbols), (d,)]  # CTC, fed back between the blocks
    return [*subsampling, *block * 16, *head]


def gpt2() -> list[Shape]:
    """The 148 tensors, 124 M parameters, of GPT-2."""
    d = 768
    norm: list[Shape] = [(d,), (d,)]
    attention = [*norm, (d, 3 * d), (3 * d,), (d, d), (d,)]
    block = [*attention, *norm, (d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    return [(50257, d), (1024, d), *block * 12, *norm]


def transformer(width: int, layers: int, batch: int, length: int, device: str = "cpu") -> Builder:
    """Torch's own encoder, pre-norm, with a linear head: 12 tensors per layer and 2."""

    def build() -> Workload:
        torch.manual_seed(0)
        one = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        encoder = nn.TransformerEncoder(one, layers, enable_nested_tensor=False)
        return _regression(Regression(encoder, nn.Linear(width, width)), (batch, length, width), device)

    return build


def perceptron() -> Workload:
    """A small MLP: four layers of width 128."""
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(128, 128), nn.GELU())]
    return _regression(Regression(*layers, nn.Linear(128, 128)), (64, 128), "cpu")


def char_lm() -> Workload:
    """The main job's model, with its batches of 4 pieces of 128 characters."""
    torch.manual_seed(0)
    pieces = torch.utils.data.DataLoader(PydocText(split="train"), batch_size=4)
    return Workload(model=CharLM(), batches=[b for b, _ in zip(pieces, range(BATCHES), strict=False)])


def _regression(model: nn.Module, shape: Shape, device: str) -> Workload:
    batches = [(torch.randn(shape, device=device), torch.randn(shape, device=device)) for _ in range(BATCHES)]
    return Workload(model=model.to(device), batches=batches)

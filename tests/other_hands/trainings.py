"""A training drawn at random: model, optimizer with settings, groups, windows, clipping, layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import torch
from torch import Tensor, nn

__all__ = ["Member", "Net", "Training", "draw"]

SETTINGS: Final[dict[str, Sequence[dict[str, Any]]]] = {
    "Adam": ({}, {"amsgrad": True}, {"maximize": True}, {"weight_decay": 0.1, "betas": (0.8, 0.95)}),
    "AdamW": ({}, {"weight_decay": 0.1}, {"amsgrad": True, "weight_decay": 0.0}, {"maximize": True}),
    "SGD": (
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"momentum": 0.8, "dampening": 0.3},
        {"weight_decay": 0.1, "maximize": True},
    ),
    "RMSprop": ({}, {"centered": True}, {"momentum": 0.9, "centered": True}, {"weight_decay": 0.1}),
    "Adagrad": ({}, {"lr_decay": 0.1, "initial_accumulator_value": 0.2}, {"weight_decay": 0.1}),
    "Adadelta": ({"lr": 1.0}, {"lr": 0.5, "weight_decay": 0.1}),
    "Adamax": ({}, {"weight_decay": 0.1}),
    "NAdam": ({}, {"weight_decay": 0.1, "decoupled_weight_decay": True}, {"momentum_decay": 0.1}),
    "RAdam": ({}, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "ASGD": ({"t0": 4.0, "lambd": 0.01}, {"t0": 1.0, "alpha": 0.5}),
    "Rprop": ({}, {"etas": (0.4, 1.3)}),
    "Adafactor": ({}, {"weight_decay": 0.1}),
    "Muon": ({}, {"nesterov": False, "weight_decay": 0.0}),
}
"""Every optimizer of torch.optim that takes dense gradients and no closure, with settings to draw from."""

_KERNELS: Final = ({}, {}, {}, {"fused": True}, {"fused": False}, {"foreach": True}, {"foreach": False})
_NARROW: Final = {"SGD": {}, "AdamW": {"eps": 1e-3}}
"""Those that do not turn a rounding of float32 into a whole step, with what keeps them from it."""


class Net(nn.Module):
    """A trunk, two heads one of which is not always used, a scalar, a large layer perhaps, and points.

    Args:
        matrices: every parameter has two dimensions.
        large: one has more elements than go into any buffer.
    """

    def __init__(self, *, matrices: bool = False, large: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 6, bias=not matrices)
        self.norm = nn.Identity() if matrices else nn.LayerNorm(6)
        self.left = nn.Linear(6, 2, bias=not matrices)
        self.side = nn.Linear(6, 2, bias=not matrices)
        self.points = nn.Parameter(torch.randn(3, 2))
        self.gain = nn.Parameter(torch.full((1, 1) if matrices else (), 0.7))
        self.large = nn.Linear(6, 6000, bias=False) if large else None

    def forward(self, x: Tensor, side: bool = True) -> dict[str, Tensor]:
        z = self.norm(torch.tanh(self.trunk(x)))
        out = self.left(z) * self.gain + (self.side(z) if side else 0.0)
        out = out + (self.points * out.mean()).sin().mean()
        if self.large is not None:
            out = out + 0.1 * self.large(z).mean()
        return {"loss": (out - 1).square().mean(), "other": (out.exp() - out).mean()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One optimizer's part: `modules` is None for the whole model."""

    loss: str
    modules: tuple[str, ...] | None
    accum_grad: int
    grad_clip: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What is trained, and how.

    Attributes:
        rules: of `param_groups`.
        falls_over: real steps over which the learning rate falls to a tenth; None leaves it alone.
    """

    seed: int
    optim_type: str
    optim_conf: dict[str, Any]
    members: tuple[Member, ...]
    layout: str = "auto"
    rules: tuple[dict[str, Any], ...] = ()
    falls_over: int | None = None
    dtype: torch.dtype = torch.float64
    large: bool = False
    events: int = field(default=16)

    def model(self) -> Net:
        """Freshly built; the same every time."""
        torch.manual_seed(self.seed)
        return Net(matrices=self.optim_type == "Muon", large=self.large).to(self.dtype)

    @property
    def close(self) -> float:
        """What sums and norms in another order come to over a training of this length."""
        return 1e-9 if self.dtype is torch.float64 else 2e-4

    def factor(self, real_step: int) -> float:
        """Of the learning rate."""
        return 1.0 - 0.9 * min((real_step - 1) / self.falls_over, 1.0) if self.falls_over else 1.0


def draw(seed: int) -> Training:
    """The training of a seed."""
    rng = Random(f"training {seed}")
    narrow = rng.random() < 0.1
    optim_type = rng.choice(list(_NARROW if narrow else SETTINGS))
    conf = {"lr": 0.02, **rng.choice(SETTINGS[optim_type]), **(_NARROW[optim_type] if narrow else {})}
    if optim_type in ("Adam", "AdamW"):
        conf |= rng.choice(_KERNELS)
    return Training(
        seed=seed,
        optim_type=optim_type,
        optim_conf=conf,
        members=_members(rng),
        layout=rng.choice(["auto", "auto", "auto", "loose"]),
        rules=_rules(rng, optim_type),
        falls_over=rng.choice([None, None, None, 12]),
        dtype=torch.float32 if narrow else torch.float64,
        large=rng.random() < 0.04,
        events=rng.randint(6, 22),
    )


def _members(rng: Random) -> tuple[Member, ...]:
    def member(loss: str, *modules: str) -> Member:
        return Member(
            loss=loss,
            modules=modules or None,
            accum_grad=rng.choice([1, 1, 2, 3]),
            grad_clip=rng.choice([None, 1.0, 0.2]),
        )

    if rng.random() < 0.8:
        return (member("loss"),)
    return (member("loss", "trunk", "points"), member("other", "left", "side", "gain"))


def _rules(rng: Random, optim_type: str) -> tuple[dict[str, Any], ...]:
    rules: list[dict[str, Any]] = []
    if rng.random() < 0.3:
        rules.append({"name": ["points", "side"], "lr": 0.05})
    if rng.random() < 0.2 and optim_type not in ("Rprop", "Muon"):
        rules.append({"ndim": "<2", "weight_decay": 0.01})
    return tuple(rules)

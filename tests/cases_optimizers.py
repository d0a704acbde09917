"""Optimizers as they are outside torch: several algorithms in one class, or a step size of their own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Adaptive", "FromSource", "GroupsOnly", "TwoInOne"]


class TwoInOne(Optimizer):
    """As dion's: `algorithm` is in the defaults alone; `mu` is a setting, `momentum` is state.

    Args:
        params: parameters or groups.
        lr: learning rate.
        mu: momentum of the sign.
    """

    def __init__(self, params: Any, lr: float = 0.01, mu: float = 0.9) -> None:
        if mu < 0:
            raise ValueError(f"Invalid mu: {mu}")
        defaults = dict(lr=lr, mu=mu, algorithm="sign")  # noqa: C408  # as they write it
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for g in self.param_groups:
            if g["algorithm"] not in ("sign", "sgd"):
                raise ValueError(f"Unknown algorithm: {g['algorithm']}")
            scale = g.get("rank", 1.0) if "rank" in g else 1.0
            for p in g["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].mul_(g["mu"]).add_(p.grad)
                update = state["momentum"].sign() if g["algorithm"] == "sign" else p.grad
                p.sub_(update, alpha=g["lr"] * scale)


class GroupsOnly(Optimizer):
    """As Keller Jordan's: groups alone, each with the keys of its algorithm; it sorts the parameters."""

    def __init__(self, param_groups: Iterable[dict[str, Any]]) -> None:
        for group in param_groups:
            assert "use_sign" in group
            group["params"] = sorted(group["params"], key=lambda p: p.size(), reverse=True)
            if group["use_sign"]:
                group["lr"] = group.get("lr", 0.02)
                assert set(group) == {"params", "lr", "use_sign"}
            else:
                group["lr"] = group.get("lr", 3e-4)
                group["betas"] = group.get("betas", (0.9, 0.95))
                assert set(group) == {"params", "lr", "betas", "use_sign"}
        super().__init__(param_groups, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.lerp_(p.grad, 0.1)
                p.sub_(average.sign() if group["use_sign"] else average, alpha=group["lr"])


class Adaptive(Optimizer):
    """As Adafactor of transformers: with `relative_step` it computes its step size, and takes no `lr`."""

    def __init__(self, params: Any, lr: float | None = None, relative_step: bool = True) -> None:
        if lr is not None and relative_step:
            raise ValueError("Cannot combine manual `lr` and `relative_step=True` options")
        super().__init__(params, {"lr": lr, "relative_step": relative_step, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                state["step"] = state.get("step", 0) + 1
                relative = min(1e-2, 1 / math.sqrt(state["step"]))
                rate = relative if group["relative_step"] else group["lr"]
                p.mul_(1 - group["weight_decay"]).sub_(_signs(p.grad), alpha=rate)


def _signs(gradient: Tensor) -> Tensor:
    return gradient.sign()


_SOURCE = """
class FromSource(Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr, "hidden_key": 1.0})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.sub_(p.grad, alpha=group["lr"] * group["hidden_key"])
"""
_space: dict[str, Any] = {"Optimizer": Optimizer, "__name__": __name__}
exec(compile(_SOURCE, "<nowhere>", "exec"), _space)  # a class whose source cannot be read
FromSource: type[Optimizer] = _space["FromSource"]

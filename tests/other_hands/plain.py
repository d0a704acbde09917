"""The plain loop that torch's users write, with the windows of the textbook."""

from __future__ import annotations

import copy
import fnmatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.other_hands.sides import Side, parameters_of
from tests.other_hands.trainings import Member, Net, Training

__all__ = ["Plain", "torch_optimizers"]


class Plain(Side):
    """torch alone: the gradients of a window are summed, divided once, clipped, applied."""

    def build(self, model: Net) -> None:
        self.model = model
        self.optimizers = torch_optimizers(self.training, model)
        self.pending = [0] * len(self.optimizers)
        self.closed = [0] * len(self.optimizers)

    def batch(self, x: Tensor, side: bool, *, last: bool = False, times: float = 1.0) -> None:
        losses = self.model(x, side)
        for i, (member, optimizer) in enumerate(zip(self.training.members, self.optimizers, strict=True)):
            own = [p for p in parameters_of(optimizer) if p.requires_grad]
            (losses[member.loss] * times).backward(inputs=own, retain_graph=True)
            self.pending[i] += 1
        for i, member in enumerate(self.training.members):
            if last or self.pending[i] == member.accum_grad:
                self._close(i)

    def flush(self) -> None:
        for i, count in enumerate(self.pending):
            if count:
                self._close(i)

    def _close(self, i: int) -> None:
        """The update of a window."""
        optimizer, member = self.optimizers[i], self.training.members[i]
        self.closed[i] += 1
        gradients = [p.grad for p in parameters_of(optimizer) if p.grad is not None]
        if gradients:
            for gradient in gradients:
                gradient.mul_(1 / self.pending[i])
            norm = nn.utils.get_total_norm(gradients)
            if member.grad_clip is not None:
                for gradient in gradients:
                    gradient.mul_(torch.clamp(member.grad_clip / (norm + 1e-6), max=1.0))
            if self.training.falls_over:
                for group, lr in zip(optimizer.param_groups, self._peaks(i), strict=True):
                    group["lr"] = lr * self.training.factor(self.closed[i])
            if norm.isfinite():
                optimizer.step()
        optimizer.zero_grad()
        self.pending[i] = 0

    def _peaks(self, i: int) -> list[float]:
        return [group["lr"] for group in groups_of(self.training, self.training.members[i], self.model)]

    def copy(self) -> None:
        self.model, self.optimizers = copy.deepcopy((self.model, self.optimizers))
        self.forget()

    def resume(self) -> None:
        """As if it had never stopped."""
        gradients = [
            [None if p.grad is None else p.grad.clone() for p in parameters_of(o)] for o in self.optimizers
        ]
        self.copy()
        for i, optimizer in enumerate(self.optimizers):
            for p, gradient in zip(parameters_of(optimizer), gradients[i], strict=True):
                p.grad = gradient if self.pending[i] else None


def torch_optimizers(training: Training, model: Net) -> list[Optimizer]:
    """Torch's own, over the parameters of each member."""
    return [
        getattr(torch.optim, training.optim_type)(groups_of(training, member, model), **training.optim_conf)
        for member in training.members
    ]


def groups_of(training: Training, member: Member, model: Net) -> list[dict[str, Any]]:
    """The groups that the rules make, the first rule that fits wins; what no rule takes comes first."""
    modules = member.modules or ("*",)
    rest = [(name, p) for module in modules for name, p in model.named_parameters() if _is_in(name, [module])]
    groups = []
    for rule in training.rules:
        taken = [pair for pair in rest if _fits(rule, *pair)]
        rest = [pair for pair in rest if pair not in taken]
        settings = {key: value for key, value in rule.items() if key not in ("name", "ndim")}
        groups.append({"params": [p for _, p in taken], "lr": training.optim_conf["lr"], **settings})
    first = {"params": [p for _, p in rest], "lr": training.optim_conf["lr"]}
    return [group for group in [first, *groups] if group["params"]]


def _fits(rule: dict[str, Any], name: str, parameter: nn.Parameter) -> bool:
    return _is_in(name, rule["name"]) if "name" in rule else parameter.ndim < 2


def _is_in(name: str, modules: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, m) or name.startswith(f"{m}.") for m in modules)

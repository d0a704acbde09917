"""Small optimizers that keep their state as those of other packages do."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = [
    "Gathering",
    "GlobalCount",
    "Hidden",
    "Keywords",
    "LazyStep",
    "Master",
    "Nested",
    "Numbered",
    "Quantised",
    "Recent",
    "ScheduleFree",
    "Sided",
    "Told",
    "WithoutLr",
    "Wrapped",
    "parts",
]

Parameters = Iterable[Any]  # Any: parameters, or groups of them


class LazyStep(Optimizer):
    """Counts in its groups, from the first step on, and makes state then, as SOAP, Adan and ADOPT do."""

    def __init__(self, params: Parameters, lr: float = 0.1, beta: float = 0.9, second: bool = False) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "second": second})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            first = "step" not in group
            group["step"] = group.get("step", 0) + 1
            for p in (p for p in group["params"] if p.grad is not None):
                if first:
                    self.state[p]["mean"] = torch.zeros_like(p)
                    if group["second"]:
                        self.state[p]["square"] = torch.zeros_like(p)
                mean = self.state[p]["mean"].lerp_(p.grad, 1 - group["beta"])
                update = mean / (1 - group["beta"] ** group["step"])
                if group["second"]:
                    update = update / (self.state[p]["square"].addcmul_(p.grad, p.grad).sqrt() + 1e-8)
                p.add_(update, alpha=-group["lr"])


class ScheduleFree(Optimizer):
    """Averages as schedule-free ones do: what it counts is in the groups from the beginning."""

    def __init__(self, params: Parameters, lr: float = 0.1, beta: float = 0.9) -> None:
        own = {"k": 0, "train_mode": False, "weight_sum": 0.0, "lr_max": -1.0}
        super().__init__(params, {"lr": lr, "beta": beta, **own})

    @torch.no_grad()
    def _swap(self, to_train: bool) -> None:
        for group in self.param_groups:
            if group["train_mode"] is not to_train:
                weight = 1 - group["beta"] if to_train else 1 - 1 / group["beta"]
                for p in (p for p in group["params"] if "z" in self.state[p]):
                    p.lerp_(self.state[p]["z"], weight)
            group["train_mode"] = to_train

    def train(self) -> None:
        self._swap(to_train=True)

    def eval(self) -> None:
        self._swap(to_train=False)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("not in train mode")
            group["lr_max"] = max(group["lr"], group["lr_max"])
            weight = group["lr_max"] ** 2 * (group["k"] + 1)
            group["weight_sum"] += weight
            share = weight / group["weight_sum"]
            for p in (p for p in group["params"] if p.grad is not None):
                z = self.state[p].setdefault("z", p.clone())
                p.lerp_(z, share)
                p.add_(p.grad, alpha=group["lr"] * (group["beta"] * (1 - share) - 1))
                z.sub_(p.grad, alpha=group["lr"])
            group["k"] += 1


class Keywords(LazyStep):
    """Takes any keyword, and puts counters of its own beside those; one moves from the second step on."""

    def __init__(self, params: Parameters, **settings: Any) -> None:
        super().__init__(params, lr=settings.pop("lr", 0.1))
        for group in self.param_groups:
            group |= {"decay": 0.0, "count": 0, "late": 0, **settings}
        self.defaults |= {"decay": 0.0, "count": 0, "late": 0, **settings}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        super().step()
        for group in self.param_groups:
            group["late"] += group["count"] > 0
            group["count"] += 1
            for p in group["params"]:
                p.mul_(1 - group["decay"] / (group["count"] + group["late"]))


class Told(Optimizer):
    """Knows no settings but those of its groups, as Muon with an AdamW beside it."""

    def __init__(self, param_groups: Parameters) -> None:
        super().__init__(param_groups, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                if not self.state[p]:
                    self.state[p]["slow" if group["use_slow"] else "fast"] = torch.zeros_like(p)
                (buffer,) = self.state[p].values()
                p.sub_(buffer.mul_(group["momentum"]).add_(p.grad), alpha=group["lr"])


class Master(Optimizer):
    """Steps a float32 copy of each weight, and keeps signs in int8."""

    def __init__(self, params: Parameters, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["master"] = p.float()
                    state["mean"] = torch.zeros_like(p)
                    state["signs"] = torch.zeros_like(p, dtype=torch.int8)
                    state["scale"] = torch.tensor(1 / 3, dtype=torch.float64)
                state["mean"].lerp_(p.grad, 0.5)
                state["scale"].mul_(1.001)
                state["signs"].add_(p.grad.sign().to(torch.int8)).clamp_(-3, 3)
                step = state["mean"].float() * state["scale"] + 0.01 * state["signs"]
                p.copy_(state["master"].sub_(step, alpha=group["lr"]))


class Nested(Optimizer):
    """Keeps lists of float32 matrices and text for each weight, as Shampoo and its kin do."""

    def __init__(self, params: Parameters, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["factors"] = [torch.zeros(n) for n in p.shape]
                    state["how"] = ("mean", {"power": torch.tensor(0.5)})
                    state["none"] = None
                grad = p.grad.float()
                for i, factor in enumerate(state["factors"]):
                    others = [j for j in range(p.ndim) if j != i]
                    factor.add_(grad.square().sum(others) if others else grad.square())
                    shape = [-1 if j == i else 1 for j in range(p.ndim)]
                    power = state["how"][1]["power"] if state["how"][0] == "mean" else 0.0
                    grad = grad / (factor.reshape(shape) ** (power / p.ndim) + 1e-6)
                p.sub_(group["lr"] * grad)


class Sided(Optimizer):
    """Keeps a flag for each weight."""

    def __init__(self, params: Parameters, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                turned = self.state[p].setdefault("turned", False)
                p.sub_(p.grad, alpha=group["lr"] * (0.5 if turned else 1.0))
                self.state[p]["turned"] = not turned


class GlobalCount(Optimizer):
    """Keeps something that belongs to no parameter: in its state, and in its state dict."""

    def __init__(self, params: Parameters, lr: float = 0.1) -> None:
        self.seen: list[int] = []
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        whole: Any = self.state["whole"]  # type: ignore[index]  # as some packages do
        whole["count"] = whole.get("count", 0) + 1
        self.seen.append(len(self.seen))
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                p.sub_(p.grad, alpha=group["lr"] / (whole["count"] + len(self.seen)))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "seen": list(self.seen)}

    def load_state_dict(self, state_dict: Any) -> None:
        state_dict = dict(state_dict)
        self.seen = list(state_dict.pop("seen"))
        super().load_state_dict(state_dict)


class Wrapped(Tensor):
    """A float32 tensor kept in bfloat16, which can be read, written and moved, but not cloned."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapped:
        return Tensor._make_wrapper_subclass(cls, inner.shape, dtype=torch.float32, device=inner.device)  # type: ignore[attr-defined, no-any-return]  # torch's own way

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *rest: Any) -> Wrapped:
        return Wrapped(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].inner)
        raise NotImplementedError(f"{cls.__name__}: {func}")


class Quantised(Optimizer):
    """Keeps its mean in a tensor of a class of its own, as those of torchao do."""

    def __init__(self, params: Parameters, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                if not self.state[p]:
                    self.state[p]["mean"] = Wrapped(torch.zeros_like(p, dtype=torch.bfloat16))
                inner = self.state[p]["mean"].inner
                inner.lerp_(p.grad.to(inner.dtype), 0.1)
                p.sub_(inner.to(p.dtype), alpha=group["lr"])


def parts(model: nn.Module) -> list[dict[str, Any]]:
    """Groups for `Told`: matrices and the rest."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    return [
        {"params": matrices, "lr": 0.1, "momentum": 0.5, "use_slow": True},
        {"params": rest, "lr": 0.1, "momentum": 0.9, "use_slow": False},
    ]


class Numbered(Optimizer):
    """Keeps state under numbers, as heavyball does, with a flag and a short history in it."""

    def __init__(self, params: Parameters, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state[0] = {"mean": torch.zeros_like(p)}  # type: ignore[index]  # as some packages do
                    state["flat"] = p.ndim < 2
                mean = state[0]["mean"].lerp_(p.grad, 0.5)  # type: ignore[index]
                p.sub_(mean.sign() if state["flat"] else mean, alpha=group["lr"])


class Hidden(Optimizer):
    """Saves its state under other names than it keeps it, as bitsandbytes does."""

    def __init__(self, params: Parameters, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                p.sub_(mean.lerp_(p.grad, 0.5), alpha=group["lr"])

    def state_dict(self) -> dict[str, Any]:
        raw = super().state_dict()
        return {**raw, "state": {i: {"wrapped": dict(kept)} for i, kept in raw["state"].items()}}

    def load_state_dict(self, state_dict: Any) -> None:
        inner = {i: dict(kept["wrapped"]) for i, kept in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": inner})


class Recent(Optimizer):
    """Keeps the last gradients in a deque, as AdaShift does."""

    def __init__(self, params: Parameters, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                recent = self.state[p].setdefault("recent", deque([torch.zeros_like(p)] * 3, maxlen=3))
                recent[0].zero_()  # in place: a copy is no copy otherwise
                recent.append(p.grad.clone())
                p.sub_(sum(recent) / 3, alpha=group["lr"])


class Gathering(Optimizer):
    """Adds up in its groups, from the first step on, what gradients of zeros do not change."""

    def __init__(self, params: Parameters, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            norms = [p.grad.norm() for p in group["params"] if p.grad is not None]
            group.setdefault("seen", torch.zeros(())).add_(sum(float(norm) for norm in norms))
            group.setdefault("each", []).append(float(sum(norms)))
            for p in (p for p in group["params"] if p.grad is not None):
                p.sub_(p.grad, alpha=group["lr"] / (1 + float(group["seen"]) + len(group["each"])))


class WithoutLr(Optimizer):
    """Has no learning rate in its groups."""

    def __init__(self, params: Parameters, lr: float = 0.1) -> None:
        super().__init__(params, {"rate": lr})

    def step(self, closure: Any = None) -> None: ...

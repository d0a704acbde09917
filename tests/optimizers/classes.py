"""The classes that are proved: those of torch, and of packages on PyPI: `[test-optimizers]`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from tests import strangers
from tests.optimizers.prove import Build, Case

__all__ = ["OF_PACKAGES", "OF_STRANGERS", "OF_TORCH"]

_LR: Final = {"lr": 1e-2}


class Matrices(nn.Module):
    """4 -> 6 -> 2 without biases: matrices alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 6, bias=False), nn.Linear(6, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return out


class Rows(nn.Module):
    """Adds rows of two tables, with sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Embedding(6, 2, sparse=True), nn.Embedding(5, 2, sparse=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        at = (x.nan_to_num() * 10).long().abs()
        out: torch.Tensor = (self.one(at[:, 0] % 6) + self.two(at[:, 1] % 5)) * (x[:, :1] * 0 + 1)
        return out


def _torch(name: str, conf: Mapping[str, Any] | None = None, **told: Any) -> Case:
    more = conf or {}
    said = ", ".join(f"{key}={value}" for key, value in more.items())
    label = f"{name}, {said}" if said else name
    return Case(name=label, package="torch", optim_type=name, conf={**_LR, **more}, **told)


OF_TORCH: Final = (
    _torch("ASGD"),
    _torch("Adadelta"),
    _torch("Adafactor"),
    _torch("Adagrad", fused_by_us=True),
    _torch("Adagrad", {"fused": False}),
    _torch("Adam", fused_by_us=True),
    _torch("Adam", {"fused": False}),
    _torch("Adam", {"amsgrad": True}, fused_by_us=True),
    _torch("AdamW", fused_by_us=True),
    _torch("AdamW", {"fused": False}),
    _torch("Adamax"),
    _torch("LBFGS"),
    _torch(
        "Muon", model=Matrices, line="matrices alone: `updated_modules` or `exclude` leaves the others out"
    ),
    _torch("NAdam"),
    _torch("RAdam"),
    _torch("RMSprop", {"momentum": 0.9, "centered": True}),
    _torch("Rprop"),
    _torch("SGD", fused_by_us=True),
    _torch("SGD", {"fused": False, "momentum": 0.9}),
    _torch("SGD", {"momentum": 0.9, "nesterov": True}, fused_by_us=True),
    _torch("SGD", {"momentum": 0.9, "dampening": 0.5}, fused_by_us=True),
    _torch("SparseAdam", model=Rows, line="sparse gradients alone, as of `nn.Embedding(..., sparse=True)`"),
)

OF_STRANGERS: Final = tuple(
    Case(name=name, package="stand-in", optim_type=getattr(strangers, name), conf={"lr": 0.05})
    for name in (
        "LazyStep",
        "ScheduleFree",
        "Keywords",
        "GlobalCount",
        "Numbered",
        "Hidden",
    )
)

_MODES: Final = "`optim.train()` before training, `optim.eval()` before validation and saving"
_UNSAFE: Final = "its state holds objects: `torch.load(path, weights_only=False)`"
_HANDED: Final = "`OptimScheduler.from_optimizer`, with groups as the class wants them"

_OF_PACKAGES: Final = {
    "schedulefree": (
        ("schedulefree", "AdamWScheduleFree SGDScheduleFree RAdamScheduleFree", _MODES),
        ("schedulefree", "AdamWScheduleFreeClosure", ""),
    ),
    "pytorch-optimizer": (
        (
            "pytorch_optimizer",
            "A2Grad ADOPT AccSGD AdEMAMix AdaBelief AdaBound AdaGC AdaNorm AdaPNM Adai Adalite AdamC AdamP "
            "Adan AggMo Amos ApolloDQN CAME DAdaptAdam DAdaptAdan FAdam FOCUS FTRL Fira Fromage GaLore Grams "
            "Gravity Kate LARS Lamb LaProp Lion MADGRAD MARS MSVAG NovoGrad PID PNM Prodigy QHAdam Ranger "
            "SGDP SGDSaI SM3 SOAP SRMM SWATS Shampoo SimplifiedAdEMAMix SophiaH StableAdamW TAM Tiger VSGD "
            "Yogi AdaHessian AliG",
            "",
        ),
        ("pytorch_optimizer", "ScheduleFreeAdamW ScheduleFreeSGD ScheduleFreeRAdam SPlus", _MODES),
        ("pytorch_optimizer", "AdaShift Conda SCION ScalableShampoo", _UNSAFE),
    ),
    "lion-pytorch": (("lion_pytorch", "Lion", ""),),
    "prodigyopt": (("prodigyopt", "Prodigy", ""),),
    "heavyball": (
        ("heavyball", "AdamW SOAP Muon PSGDKron LaProp ADOPT NAdam SGD AdEMAMix Scion", ""),
        ("heavyball", "SFAdamW", _MODES),
    ),
    "torchao": (("torchao.optim", "AdamW8bit Adam8bit AdamW4bit AdamWFp8", ""),),
    "bitsandbytes": (
        (
            "bitsandbytes.optim",
            "Adam AdamW Lion RMSprop Adagrad AdEMAMix LAMB Adam8bit AdamW8bit Lion8bit",
            "",
        ),
    ),
}

_CONF: Final = {("prodigyopt", "Prodigy"): {"lr": 1.0}, ("pytorch_optimizer", "Prodigy"): {"lr": 1.0}}


def _split(kind: type[Any], first: str, second: str, model: nn.Module) -> Any:
    """Groups of matrices and of the rest, told apart by a key that only the class knows."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    return kind([{"params": matrices, first: True}, {"params": rest, second: False}], **_LR)


def _muons() -> tuple[Case, ...]:
    def build(name: str) -> Build:
        def made(model: nn.Module) -> Any:
            import pytorch_optimizer

            return functools.partial(_split, getattr(pytorch_optimizer, name), "use_muon", "use_muon")(model)

        return made

    return tuple(
        Case(name=name, package="pytorch-optimizer", optim_type=None, build=build(name), line=_HANDED)
        for name in ("Muon", "AdaMuon", "AdaGO")
    )


OF_PACKAGES: Final = (
    *(
        Case(
            name=name,
            package=package,
            optim_type=f"{module}.{name}",
            conf=_CONF.get((module, name), _LR),
            line=line,
            unsafe=line == _UNSAFE,
        )
        for package, parts in _OF_PACKAGES.items()
        for module, names, line in parts
        for name in names.split()
    ),
    *_muons(),
)

"""Trains with an optimizer class through an OptimScheduler and in a plain loop, and compares the weights.

Windows of two batches; in one of them the gradient is not finite. In the middle everything is saved, and
loaded into objects that are new.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import product
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optimscheduler import OptimScheduler, OptimSchedulerError
from tests.cases_models import Batch, a_model, batches, mse, stored

__all__ = ["Case", "outcome"]

Build = Callable[[nn.Module], Optimizer]

_ACCUM: Final = 2
_BEFORE: Final = 5  # windows before the checkpoint, and after it
_BROKEN: Final = (2, 7)  # windows without a finite gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A class with its settings.

    Args:
        name: what stands in the table.
        package: from PyPI, or torch.
        optim_type: the class, or a dotted path to it.
        conf: its keyword arguments.
        build: makes the optimizer, where a class wants more than parameters and keywords.
        model: to train.
        line: what has to be written, where the class alone is not enough.
        layouts: of the saved and of the resumed run.
        near: largest relative difference that is a rounding, where a layout is not loose.
    """

    name: str
    package: str
    optim_type: Any  # Any: a class or a path
    conf: Mapping[str, Any] = field(default_factory=lambda: {"lr": 1e-2})
    build: Build | None = None
    model: Callable[[], nn.Module] = a_model
    line: str = ""
    layouts: Sequence[str] = ("auto", "loose")
    near: float = 1e-5


def outcome(case: Case) -> str:
    """`"works"`, `"refused: ..."`, or `"differs ..."`, which is a defect.

    A class that the plain loop cannot use either is `"fails in a plain loop, too: ..."`.
    """
    for clip in (None, 0.05):
        try:
            expected = _plain(case, clip)
        except Exception as error:  # whatever a class raises
            return f"fails in a plain loop, too: {_said(error)}"
        for layouts in product(case.layouts, repeat=2):
            try:
                found = _ours(case, clip, *layouts)
            except OptimSchedulerError as error:
                return f"refused: {_said(error)}"
            if differing := _difference(expected, found, exact=set(layouts) == {"loose"}, near=case.near):
                return f"differs with grad_clip={clip}, layouts {layouts}: {differing}"
    return "works"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def _data() -> list[list[Batch]]:
    single = batches(2 * _BEFORE * _ACCUM)
    windows = [single[i : i + _ACCUM] for i in range(0, len(single), _ACCUM)]
    for number in _BROKEN:
        windows[number][0][0][0, 0] = torch.nan
    return windows


def _built(case: Case, model: nn.Module) -> Optimizer:
    if case.build is not None:
        return case.build(model)
    if isinstance(case.optim_type, str):
        module, _, name = case.optim_type.rpartition(".")
        found = getattr(import_module(module or "torch.optim"), name)
    else:
        found = case.optim_type
    built: Optimizer = found(list(model.parameters()), **case.conf)
    return built


def _mode(optimizer: Any, mode: str) -> None:  # Any: not every optimizer has modes
    if hasattr(optimizer, "train") and hasattr(optimizer, "eval"):
        getattr(optimizer, mode)()


def _plain(case: Case, clip: float | None) -> dict[str, Tensor]:
    """The textbook's loop, which saves and loads the class's own state dict."""
    windows = _data()
    model = case.model()
    optimizer = _built(case, model)
    _plain_windows(model, optimizer, windows[:_BEFORE], clip, 0)
    _mode(optimizer, "eval")
    saved = copy.deepcopy({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    model = case.model()
    model.load_state_dict(saved["model"])
    optimizer = _built(case, model)
    optimizer.load_state_dict(saved["optimizer"])
    _plain_windows(model, optimizer, windows[_BEFORE:], clip, _BEFORE)
    _mode(optimizer, "eval")
    return dict(model.state_dict())


def _plain_windows(
    model: nn.Module, optimizer: Optimizer, windows: Sequence[Sequence[Batch]], clip: float | None, first: int
) -> None:
    _mode(optimizer, "train")
    for number, window in enumerate(windows, start=first):
        torch.manual_seed(number)
        for batch in window:
            mse(model, batch).backward()  # type: ignore[no-untyped-call]
        parameters = [p for p in model.parameters() if p.grad is not None]
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.mul_(1 / len(window))
        norm = nn.utils.clip_grad_norm_(parameters, torch.inf if clip is None else clip)
        if norm.isfinite():
            optimizer.step()
        optimizer.zero_grad()


def _ours(case: Case, clip: float | None, before: str, after: str) -> dict[str, Tensor]:
    windows = _data()
    optim = _scheduler(case, case.model(), clip, before)
    _our_windows(optim, windows[:_BEFORE], 0)
    optim.eval()
    saved = stored({"model": optim.model.state_dict(), "optim": optim.state_dict()})
    model = case.model()
    model.load_state_dict(saved["model"])
    optim = _scheduler(case, model, clip, after)
    optim.load_state_dict(saved["optim"])
    _our_windows(optim, windows[_BEFORE:], _BEFORE)
    optim.eval()
    return dict(model.state_dict())


def _scheduler(case: Case, model: nn.Module, clip: float | None, layout: Any) -> OptimScheduler:
    told: dict[str, Any] = {"accum_grad": _ACCUM, "grad_clip": clip, "use_amp": False, "layout": layout}
    if case.build is not None:
        return OptimScheduler.from_optimizer(case.build(model), model, **told)
    return OptimScheduler(case.optim_type, dict(case.conf), model, **told)


def _our_windows(optim: OptimScheduler, windows: Sequence[Sequence[Batch]], first: int) -> None:
    optim.train()
    for number, window in enumerate(windows, start=first):
        torch.manual_seed(number)
        for batch in window:
            with optim.forward():
                loss = mse(optim.model, batch)
            optim.step(loss)


def _difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor], *, exact: bool, near: float) -> str:
    for name, tensor in one.items():
        tolerance = 0.0 if exact else near
        if not torch.allclose(tensor, other[name], rtol=tolerance, atol=tolerance, equal_nan=True):
            return f"{name} by {float((tensor - other[name]).abs().max()):.1e}"
    return ""


def quietly(case: Case) -> str:
    """The outcome, without the warnings of other packages, and without waiting for compilers."""
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.simplefilter("ignore")
        return outcome(case)

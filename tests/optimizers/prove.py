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

__all__ = ["Build", "Case", "outcome"]

Build = Callable[[nn.Module], Optimizer]

_ACCUM: Final = 2
_BEFORE: Final = 5  # windows before the checkpoint, and after it
_NEAR: Final = 1e-5  # roundings of ten updates in float32: fused kernels, sums in another order
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
        fused_by_us: the library chooses torch's fused kernel, which rounds otherwise.
        unsafe: the state holds objects that `weights_only=True` does not load.
    """

    name: str
    package: str
    optim_type: Any  # Any: a class or a path
    conf: Mapping[str, Any] = field(default_factory=lambda: {"lr": 1e-2})
    build: Build | None = None
    model: Callable[[], nn.Module] = a_model
    line: str = ""
    layouts: Sequence[str] = ("auto", "loose")
    fused_by_us: bool = False
    unsafe: bool = False


def outcome(case: Case) -> str:
    """`"works"`, `"refused: ..."` with the message, or `"differs ..."`, which is a defect.

    Compilers and the warnings of other packages are left out.
    """
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.simplefilter("ignore")
        return next(filter(None, (_compared(case, clip) for clip in (None, 0.05))), "works")


def _compared(case: Case, clip: float | None) -> str:
    """What goes wrong with one way to clip; nothing if all is as in a plain loop."""
    try:
        expected = _plain(case, clip)
    except Exception:  # whatever a class raises
        return _refused(case, clip)
    for layouts in product(case.layouts, repeat=2):
        try:
            found = _ours(case, clip, *layouts)
        except OptimSchedulerError as error:
            return f"refused: {_said(error)}"
        exact = set(layouts) == {"loose"} and not case.fused_by_us
        if differing := _difference(expected, found, exact=exact):
            return f"differs with grad_clip={clip}, layouts {layouts}: {differing}"
    return ""


def _refused(case: Case, clip: float | None) -> str:
    """Of a class that a plain loop cannot use: what is said, before a weight has moved."""
    model = case.model()
    before = copy.deepcopy(model.state_dict())
    try:
        _our_windows(_scheduler(case, model, clip, "loose"), _data()[:1], 0)
    except OptimSchedulerError as error:
        said = _said(error)
    except Exception as error:  # the class's own
        said = f"by the class itself: {_said(error)}"
    else:
        return "differs: a plain loop cannot use the class"
    moved = _difference(before, model.state_dict(), exact=True)
    return f"differs: refused after {moved}" if moved else f"refused: {said}"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ").replace("|", "/")


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
        held = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if _clipped(held, len(window), torch.inf if clip is None else clip).isfinite():
            optimizer.step()
        optimizer.zero_grad()


def _clipped(held: Sequence[nn.Parameter], divisor: int, clip: float) -> Tensor:
    """Divide and clip as torch does, also sparse gradients; returns their norm."""
    values = []
    for parameter in held:
        assert parameter.grad is not None
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
        values.append(parameter.grad.values() if parameter.grad.is_sparse else parameter.grad)
        values[-1].mul_(1 / divisor)
    norm = nn.utils.get_total_norm(values)
    for value in values:
        value.mul_((clip / (norm + 1e-6)).clamp(max=1.0))
    return norm


def _ours(case: Case, clip: float | None, before: str, after: str) -> dict[str, Tensor]:
    windows = _data()
    optim = _scheduler(case, case.model(), clip, before)
    _our_windows(optim, windows[:_BEFORE], 0)
    optim.eval()
    saved = {"model": optim.model.state_dict(), "optim": optim.state_dict()}
    saved = copy.deepcopy(saved) if case.unsafe else stored(saved)
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


def _difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor], *, exact: bool) -> str:
    for name, tensor in one.items():
        tolerance = 0.0 if exact else _NEAR
        if not torch.allclose(tensor, other[name], rtol=tolerance, atol=tolerance, equal_nan=True):
            return f"{name} by {float((tensor - other[name]).abs().max()):.1e}"
    return ""

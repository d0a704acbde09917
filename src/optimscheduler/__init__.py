"""The optimisation layer of PyTorch training: one object for optimizer, schedule and training step.

Names are imported when they are first used, so that `optimscheduler.schedules` works without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from optimscheduler.api.average import Average
    from optimscheduler.api.optim_scheduler import OptimScheduler
    from optimscheduler.api.optim_scheduler_dict import OptimSchedulerDict
    from optimscheduler.build import build_optim_sches
    from optimscheduler.errors import (
        CheckpointError,
        ConfigError,
        GraphError,
        LossNotFound,
        NonFiniteError,
        OptimSchedulerError,
        ParameterError,
        RankError,
    )
    from optimscheduler.origin.exp import ExponentDecayLr
    from optimscheduler.origin.noam import NoamLr, Noamlr
    from optimscheduler.reports.ledger import StepReport

__all__ = [
    "Average",
    "CheckpointError",
    "ConfigError",
    "ExponentDecayLr",
    "GraphError",
    "LossNotFound",
    "NoamLr",
    "Noamlr",
    "NonFiniteError",
    "OptimScheduler",
    "OptimSchedulerDict",
    "OptimSchedulerError",
    "ParameterError",
    "RankError",
    "StepReport",
    "build_optim_sches",
]

__version__ = "0.1.0"

_HOMES: Final = {
    **dict.fromkeys([n for n in __all__ if n.endswith(("Error", "NotFound"))], "errors"),
    "Average": "api.average",
    "ExponentDecayLr": "origin.exp",
    "NoamLr": "origin.noam",
    "Noamlr": "origin.noam",
    "OptimScheduler": "api.optim_scheduler",
    "OptimSchedulerDict": "api.optim_scheduler_dict",
    "StepReport": "reports.ledger",
    "build_optim_sches": "build",
}


def __getattr__(name: str) -> Any:  # Any: whichever public name was asked for
    """Import a public name at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""The layout of every OptimScheduler that is not told one, in this process: `pytest --layout loose`."""

from __future__ import annotations

from optimscheduler import OptimScheduler

__all__ = ["lay", "layout"]


def layout() -> str:
    """The present default."""
    default: str = _defaults()["layout"]
    return default


def lay(layout: str) -> None:
    """Make this one the default."""
    _defaults()["layout"] = layout


def _defaults() -> dict[str, object]:
    defaults = OptimScheduler.__init__.__kwdefaults__
    assert defaults is not None
    return defaults

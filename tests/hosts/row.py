"""A row of the table of `docs/interop.md`: a tool, and a small training with it beside torch's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["EQUAL", "LAYOUTS", "Row", "cell"]

LAYOUTS: Final = ("auto", "loose")

EQUAL: Final = 1e-10
"""float64: roundings of 1e-17 (fused kernel, sums in another order), which Adam divides by its eps, 1e-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Trains in two ways and compares.

    Args:
        name: of the test.
        tool: what a user looks for, and types.
        trial: layout -> the largest difference of a weight or an optimizer state, or what was said.
        needs: the package to install, if it is not torch.
    """

    name: str
    tool: str
    trial: Callable[[str], float | str]
    needs: str | None = None


def cell(found: float | str) -> str:
    """What stands in the table."""
    if isinstance(found, str):
        return found
    return "= torch" if found <= EQUAL else f"**differs by {found:.0e}**"

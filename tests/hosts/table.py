"""The table of `docs/interop.md`, from what its rows come to: `python -m tests.hosts.table`.

Rows whose tool is not installed stay as they are.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from pathlib import Path
from typing import Final

import torch

from tests.hosts import files, loops, models, on_accelerate, on_lightning, on_transformers
from tests.hosts.row import LAYOUTS, Row, cell

__all__ = ["ROWS", "cells", "line", "page_rows"]

ROWS: Final = (
    *loops.ROWS,
    *files.ROWS,
    *models.ROWS,
    *on_lightning.ROWS,
    *on_accelerate.ROWS,
    *on_transformers.ROWS,
)

_PAGE = Path(__file__).parents[2] / "docs" / "interop.md"
_BEGIN, _END = "<!-- hosts -->", "<!-- end of hosts -->"
_HEAD = ("| what you use | `layout: auto` | `layout: loose` |", "|---|---|---|")


def cells(row: Row) -> list[str]:
    """What both layouts come to."""
    return [cell(row.trial(layout)) for layout in LAYOUTS]


def line(row: Row, its_cells: list[str]) -> str:
    """As it stands in the page."""
    return f"| {row.tool} | {' | '.join(its_cells)} |"


def page_rows() -> dict[str, list[str]]:
    """Tool -> cells, as the page has them."""
    _, _, rest = _PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    found = {}
    for text in rest.partition(_END)[0].splitlines():
        if text.startswith("| ") and text != _HEAD[0]:
            tool, *its_cells = text.removeprefix("| ").removesuffix(" |").split(" | ")
            found[tool] = its_cells
    return found


def main() -> int:
    """Try everything, and write the page; 1 if something differs from torch."""
    before, lines = page_rows(), []
    for row in ROWS:
        here = row.needs is None or importlib.util.find_spec(row.needs) is not None
        lines.append(line(row, cells(row) if here else before.get(row.tool, ["not tried", "not tried"])))
        print(lines[-1], flush=True)
    _write_page(lines)
    return int(any("differs" in text for text in lines))


def _write_page(lines: list[str]) -> None:
    """Put the table between its marks."""
    where = f"Python {platform.python_version()}, torch {torch.__version__}, {_versions()}."
    text = _PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    content = "\n".join([_BEGIN, "", *_HEAD, *lines, "", where, "", _END])
    _PAGE.write_text(before + content + after, encoding="utf-8")


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("lightning", "accelerate", "transformers", "safetensors"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


if __name__ == "__main__":
    sys.exit(main())

"""The table of `docs/optimizers.md`, from what each class comes to: `python -m tests.optimizers.table`."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch

from tests.optimizers.classes import OF_PACKAGES, OF_TORCH
from tests.optimizers.prove import Case, outcome

__all__ = ["cell", "page_rows"]

_PAGE: Final = Path(__file__).parents[2] / "docs" / "optimizers.md"
_BEGIN, _END = "<!-- optimizers -->", "<!-- end of optimizers -->"
_HEAD: Final = ("| class | package | what happens |", "|---|---|---|")


def cell(case: Case, found: str) -> str:
    """What stands in the table."""
    if found == "works":
        return f"works with a line: {case.line}" if case.line else "works"
    return found if len(found) <= 300 else f"{found[:297]}..."


def page_rows() -> dict[tuple[str, str], str]:
    """Class and package -> what happens, as the page has it."""
    _, _, rest = _PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    found = {}
    for text in rest.partition(_END)[0].splitlines():
        if text.startswith("| ") and text != _HEAD[0]:
            name, package, said = text.removeprefix("| ").removesuffix(" |").split(" | ", 2)
            found[name, package] = said
    return found


def main() -> int:
    """Try everything, and write the page; 1 if something differs from a plain loop."""
    logging.getLogger("optimscheduler").setLevel(logging.ERROR)
    lines = []
    for case in (*OF_TORCH, *OF_PACKAGES):
        lines.append(f"| {case.name} | {case.package} | {cell(case, outcome(case))} |")
        print(lines[-1], flush=True)
    _write_page(lines)
    return int(any("| differs" in text for text in lines))


def _write_page(lines: Sequence[str]) -> None:
    packages = dict.fromkeys(case.package for case in OF_PACKAGES)
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    where = f"Python {platform.python_version()}, torch {torch.__version__}, {versions}."
    before, _, rest = _PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    content = "\n".join([_BEGIN, "", *_HEAD, *lines, "", where, "", _END])
    _PAGE.write_text(before + content + rest.partition(_END)[2], encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

"""Draw the rooms of the house from its import contracts, and list every file: `python docs/rooms.py`."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

__all__ = ["PICTURE", "floors", "listing", "svg", "with_listing"]

ROOT: Final = Path(__file__).resolve().parents[1]
PICTURE: Final = ROOT / "docs" / "images" / "rooms.svg"
_PAGE: Final = ROOT / "docs" / "architecture.md"
_SOURCE: Final = ROOT / "src" / "optimscheduler"
_LISTING: Final = re.compile(r"(<!-- files -->\n).*(<!-- end of files -->\n)", re.DOTALL)

_WIDTH, _HEIGHT, _GAP, _MARGIN = 860, 34, 8, 12
_INK, _PAPER, _RUN, _CORE = "#30343b", "#ffffff", "#dbe9f6", "#e4efe2"


def floors(container: str) -> list[list[str]]:
    """The rooms of a package as its contract has them, floor by floor from the top.

    Args:
        container: `"optimscheduler"` or `"optimscheduler.run"`.
    """
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [c for c in contracts if c.get("containers") == [container]]
    return [[room.strip(" ()") for room in layer.split("|")] for layer in contract["layers"]]


def svg() -> str:
    """The picture: `run/` opened at the top, the core below it; imports go downwards only."""
    rows = [(f"run/{name}" for name in floor) for floor in floors("optimscheduler.run")]
    core = [floor for floor in floors("optimscheduler") if floor not in (["__main__"], ["run"])]
    boxes: list[str] = []
    y = _MARGIN
    for color, part in ((_RUN, rows), (_CORE, core)):
        for floor in part:
            boxes += _boxes(list(floor), y, color)
            y += _HEIGHT + _GAP
        y += _GAP
    frame = f'viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}"'
    style = 'font-family="ui-monospace, monospace" font-size="13" text-anchor="middle"'
    background = f'<rect width="{_WIDTH}" height="{y}" fill="{_PAPER}"/>'
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" {frame} {style}>', background, *boxes, "</svg>\n"]
    )


def _boxes(floor: list[str], y: int, color: str) -> Iterator[str]:
    width = (_WIDTH - 2 * _MARGIN - _GAP * (len(floor) - 1)) / len(floor)
    for i, name in enumerate(floor):
        x = _MARGIN + i * (width + _GAP)
        yield (
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_HEIGHT}" rx="5" fill="{color}" '
            f'stroke="{_INK}"/>'
            f'<text x="{x + width / 2:.1f}" y="{y + 22}" fill="{_INK}">{escape(name)}</text>'
        )


def listing() -> str:
    """Every file with the first sentence of its docstring, room by room, in Markdown."""
    lines: list[str] = []
    rooms = [f"run.{room}" for floor in floors("optimscheduler.run") for room in floor]
    rooms += [room for floor in floors("optimscheduler") for room in floor if room != "run"]
    for room in rooms:
        path = _SOURCE / room.replace(".", "/")
        if not path.is_dir():
            lines.append(f"- `{path.name}.py`: {_sentence(path.with_suffix('.py'))}")
            continue
        lines.append(f"- **`{path.relative_to(_SOURCE)}/`**: {_sentence(path / '__init__.py')}")
        files = sorted(file for file in path.rglob("*.py") if file.name != "__init__.py")
        lines += [f"    - `{file.relative_to(path)}`: {_sentence(file)}" for file in files]
    return "\n".join(lines) + "\n"


def _sentence(file: Path) -> str:
    text = (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=\.)\s", text)[0].rstrip(":.") + "."


def with_listing(page: str) -> str:
    """A page with what stands between its two marks made anew."""
    return _LISTING.sub(lambda marks: f"{marks[1]}\n{listing()}\n{marks[2]}", page)


if __name__ == "__main__":
    PICTURE.write_text(svg())
    _PAGE.write_text(with_listing(_PAGE.read_text()))

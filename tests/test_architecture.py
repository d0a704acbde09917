"""The page about the house, made from its import contracts, is the one that is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
assert _SPEC is not None
assert _SPEC.loader is not None
rooms = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(rooms)


def test_the_list_of_files_is_that_of_today() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert rooms.with_listing(page) == page, "type: python docs/rooms.py"


def test_the_picture_is_that_of_the_contracts() -> None:
    assert rooms.PICTURE.read_text() == rooms.svg(), "type: python docs/rooms.py"


def test_every_room_is_on_a_floor() -> None:
    package = ROOT / "src" / "optimscheduler"
    for container, folder in (("optimscheduler", package), ("optimscheduler.run", package / "run")):
        there = {
            path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
        }
        assert {room for floor in rooms.floors(container) for room in floor} == there - {"__init__"}

"""The table of `docs/reliability.md`."""

from __future__ import annotations

from tests.faults.drills import table


def test_each_figure_has_a_line_and_the_minutes_are_summed() -> None:
    row = {
        "drill": "a | b",
        "count": "60",
        "promise": "p",
        "figures": "60 of 60; at most 2",
        "minutes": "3.4",
    }
    *_, first, second, _, last = table([row, {**row, "minutes": "1.2"}]).split("\n")
    assert first == "| a \\| b | 60 | p | 60 of 60;<br>at most 2 | 3.4 |"
    assert second.endswith(" | 1.2 |")
    assert last == "Together 5 minutes."

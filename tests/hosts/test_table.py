"""R40, R44: the table of `docs/interop.md` says what happens."""

from __future__ import annotations

import pytest

from tests.hosts.lightning_modules import OF_LIGHTNING
from tests.hosts.row import LAYOUTS, Row, cell
from tests.hosts.table import ROWS, page_rows

_BY_TOOL = [
    pytest.param(row, id=row.name, marks=pytest.mark.xdist_group(f"hosts: {row.needs}")) for row in ROWS
]  # each tool takes seconds to import


def test_R40_the_page_has_the_rows_that_are_tried() -> None:
    assert list(page_rows()) == [row.tool for row in ROWS]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("row", _BY_TOOL)
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized")  # of DCP
@pytest.mark.filterwarnings(*OF_LIGHTNING)
def test_R40_a_row_of_the_page_holds(row: Row, layout: str) -> None:
    if row.needs is not None:
        pytest.importorskip(row.needs, reason=f"pip install {row.needs}")
    expected = dict(zip(LAYOUTS, page_rows()[row.tool], strict=True))[layout]
    assert cell(row.trial(layout)) == expected


def test_R40_a_difference_is_one() -> None:
    assert cell(0.0) == cell(1e-11) == "= torch"
    assert cell(0.07) == "**differs by 7e-02**"
    assert cell("refused") == "refused"

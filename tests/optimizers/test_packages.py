"""`docs/optimizers.md` says what happens with each class: `make test-optimizers`."""

from __future__ import annotations

import pytest

from tests.optimizers.classes import OF_PACKAGES, OF_TORCH
from tests.optimizers.prove import Case, outcome
from tests.optimizers.table import cell, page_rows

ALL = [pytest.param(case, id=f"{case.package}: {case.name}") for case in (*OF_TORCH, *OF_PACKAGES)]


@pytest.mark.parametrize("case", ALL)
def test_a_row_of_the_page_holds(case: Case) -> None:
    found = cell(case, outcome(case))
    assert not found.startswith("differs")
    assert page_rows()[case.name, case.package] == found


def test_the_page_has_all_rows_and_none_that_is_wrong_without_a_word() -> None:
    rows = page_rows()
    assert list(rows) == [(case.name, case.package) for case in (*OF_TORCH, *OF_PACKAGES)]
    assert all(said.startswith(("works", "refused: ")) for said in rows.values())

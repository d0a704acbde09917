"""Configurations with one to three faults are refused with their place, or do what their values say."""

from __future__ import annotations

from pathlib import Path

from tests.faults.config_bases import BASES
from tests.faults.config_mutations import mutated
from tests.faults.configs import drill


def test_every_mutated_configuration_is_refused_with_its_place_or_explained(tmp_path: Path) -> None:
    row = drill(150, tmp_path)
    print(row.figures, *row.failures, sep="\n")
    assert row.count == 150
    assert row.holds


def test_the_same_seed_breaks_the_same_things() -> None:
    first, again, others = (mutated(20, seed) for seed in (3, 3, 4))
    assert [each.text for each in first] == [each.text for each in again]
    assert len({each.text for each in [*first, *others]}) > 30
    assert not {each.text for each in first} & set(BASES.values())

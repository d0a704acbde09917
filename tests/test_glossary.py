"""The glossary: each term once, and no term that the house no longer uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
TERMS = re.findall(r"^\*\*(.+?)\*\*.*\n:   ", GLOSSARY, re.M)

RENAMED = [
    "Outlook",
    "Met",
    "Beat",
    "Loose",
    "Flat",
    "Joint",
    "Sight",
    "Driven",
    "suited",
    "outlook",
    "joints",
]
"""Names in the code that said nothing to a newcomer."""


def test_each_term_is_defined_once() -> None:
    assert len(TERMS) == len(set(TERMS)) > 25
    assert GLOSSARY.count("\n:   ") == len(TERMS)


def test_a_definition_says_what_it_is_before_anything_else() -> None:
    for term, text in re.findall(r"^\*\*(.+?)\*\*.*\n:   (.+)", GLOSSARY, re.M):
        assert not text.lower().startswith(term.lower()), term


@pytest.mark.parametrize("name", RENAMED)
def test_the_code_uses_the_words_of_the_glossary(name: str) -> None:
    files = [*(ROOT / "src").rglob("*.py")]
    found = [str(file) for file in files if re.search(rf"\b(class|def|import) {name}\b", file.read_text())]
    assert found == []

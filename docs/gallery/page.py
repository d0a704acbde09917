"""The text of the gallery: what a schedule's docstring says of it, an example, its names elsewhere."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Final

from gallery.entries import Entry

__all__ = ["MARK", "check_complete", "formula", "picture", "reference", "text"]

MARK: Final = "<!-- every schedule -->"
"""What the gallery takes the place of in gallery.md."""

_ARXIV: Final = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def check_complete(entries: Iterable[Entry], schedules: Iterable[str]) -> None:
    """Whether every schedule has one entry.

    Raises:
        ValueError: one is missing, there twice, or none of the schedules.
    """
    names = [entry.name for entry in entries]
    wrong = sorted({*names} ^ {*schedules}) or sorted({name for name in names if names.count(name) > 1})
    if wrong:
        raise ValueError(
            "docs/gallery/entries.py needs one entry for each schedule of SCHEDULES; see " + ", ".join(wrong)
        )


def text(sections: Mapping[str, tuple[Entry, ...]]) -> str:
    """The Markdown of all sections."""
    parts = []
    for heading, entries in sections.items():
        parts += [f"## {heading}", *map(_of_entry, entries)]
    return "\n\n".join(parts)


def picture(entry: Entry, theme: str) -> str:
    """The path of a figure in the site."""
    return f"images/schedules/{entry.name}-{theme}.svg"


def formula(cls: type) -> str:
    """What a docstring has between its first sentence and its arguments: the formula, and words to it."""
    doc = inspect.getdoc(cls) or ""
    return doc.partition("\n\n")[2].partition("\nArgs:\n")[0].strip("\n")


def reference(cls: type) -> str:
    """The source that a docstring names, on one line, with links; empty where it names none."""
    paragraphs = (inspect.getdoc(cls) or "").split("\n\n")
    found = next((p for p in paragraphs if p.startswith("Reference:")), "")
    return _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", " ".join(found.split()))


def _of_entry(entry: Entry) -> str:
    cls = type(entry.example)
    first = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())
    parts = [
        f"### {entry.name}",
        first,
        _pictures(entry),
        formula(cls),
        f"```yaml\nschedule: {entry.example!r}\n```",
    ]
    if entry.elsewhere:
        parts.append(
            "Elsewhere: " + "; ".join(f"{name} {what}" for name, what in entry.elsewhere.items()) + "."
        )
    arguments = f"[Arguments][{cls.__module__}.{cls.__qualname__}]."
    return "\n\n".join([*parts, f"{reference(cls)} {arguments}".strip()])


def _pictures(entry: Entry) -> str:
    """One for each of the page's colours; the theme shows that which fits."""
    return "\n".join(
        f"![{entry.name}: factor over real steps]({picture(entry, theme)}#only-{theme})"
        for theme in ("light", "dark")
    )

"""What mkdocs calls while it builds: the gallery of schedules is drawn and written anew each time."""

from __future__ import annotations

from itertools import chain

from gallery.entries import SECTIONS
from gallery.figures import THEMES, svg
from gallery.page import MARK, check_complete, picture, text
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from optimscheduler.schedules import SCHEDULES

__all__ = ["on_files", "on_page_markdown"]


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the figures to the site.

    Raises:
        PluginError: a schedule has no entry.
    """
    entries = list(chain.from_iterable(SECTIONS.values()))
    try:
        check_complete(entries, SCHEDULES)
    except ValueError as error:
        raise PluginError(str(error)) from error
    for entry in entries:
        for theme in THEMES:
            files.append(File.generated(config, picture(entry, theme), content=svg(entry, theme)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 -- mkdocs calls by name
    """Put the gallery in its page."""
    return markdown.replace(MARK, text(SECTIONS)) if page.file.src_uri == "gallery.md" else markdown

"""The gallery of the documentation: complete, readable back, drawn from the schedules themselves."""

from __future__ import annotations

import importlib
import re
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from gallery.entries import SECTIONS, Entry
from gallery.figures import THEMES, points, svg
from gallery.page import MARK, check_complete, formula, reference, text

from optimscheduler import schedules
from optimscheduler.schedules import SCHEDULES, Constant, Cosine, NewBob, Noam, Warmup
from optimscheduler.schedules.grammar import read_schedule

DOCS = Path(__file__).parents[1] / "docs"
ENTRIES = list(chain.from_iterable(SECTIONS.values()))
YAML = re.compile(r"```yaml\n(.*?)```", re.DOTALL)


def test_every_schedule_has_one_entry() -> None:
    check_complete(ENTRIES, SCHEDULES)


@pytest.mark.parametrize(
    ("entries", "known", "named"),
    [
        ([], ["Cosine"], "Cosine"),
        ([Entry(curves={"": Constant()})], [], "Constant"),
        ([Entry(curves={"": Constant()}), Entry(curves={"": Constant()})], ["Constant"], "Constant"),
    ],
    ids=["missing", "of no schedule", "twice"],
)
def test_a_schedule_without_its_one_entry_fails_the_build(
    entries: list[Entry], known: list[str], named: str
) -> None:
    with pytest.raises(ValueError, match=rf"needs one entry for each schedule of SCHEDULES; see {named}$"):
        check_complete(entries, known)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_all_examples_of_an_entry_are_drawn_and_stay_within_its_figure(entry: Entry) -> None:
    for schedule in entry.curves.values():
        curve = list(points(schedule, entry))
        assert (curve[0][0], curve[-1][0]) == (1, entry.steps)
        assert all(0 <= factor <= 1 for _, factor in curve)
    assert entry.example in [s for s in entry.curves.values() if type(s) is SCHEDULES[entry.name]]


@pytest.mark.parametrize("cls", SCHEDULES.values(), ids=SCHEDULES)
def test_every_docstring_has_a_formula_block(cls: type) -> None:
    assert re.search(r"^    \S", formula(cls), re.MULTILINE)


def test_the_text_of_an_entry() -> None:
    entry = Entry(
        curves={"steps=4": Cosine(steps=4), "floor=0.1": Cosine(steps=4, floor=0.1)},
        elsewhere={"torch": "`A`", "timm": "`B`"},
    )
    assert text({"Curves": (entry,)}) == (
        "## Curves\n\n"
        "### Cosine\n\n"
        "Fall along half a cosine: slowly at both ends, fast between; then stay.\n\n"
        "![Cosine: factor over real steps](images/schedules/Cosine-light.svg#only-light)\n"
        "![Cosine: factor over real steps](images/schedules/Cosine-dark.svg#only-dark)\n\n"
        "    factor = floor + (1 - floor) (1 + cos(pi p)) / 2\n\n"
        "```yaml\nschedule: Cosine(steps=4)\n```\n\n"
        "Elsewhere: torch `A`; timm `B`.\n\n"
        "Reference: Loshchilov and Hutter 2017, SGDR, [arXiv:1608.03983](https://arxiv.org/abs/1608.03983) "
        "(one cycle, no restart). [Arguments][optimscheduler.schedules.curves.Cosine]."
    )


def test_a_reference_over_two_lines_is_one_and_none_is_empty() -> None:
    assert "Vaswani et al. 2017, Attention Is All You Need, [arXiv" in reference(Noam)
    assert "\n" not in reference(Warmup)
    assert reference(Constant) == ""


def test_the_yaml_of_the_gallery_is_read_back_as_its_examples() -> None:
    written = [yaml.safe_load(block)["schedule"] for block in YAML.findall(text(SECTIONS))]
    assert [read_schedule(value, "schedule") for value in written] == [entry.example for entry in ENTRIES]


def test_the_yaml_of_the_page_about_schedules_is_read() -> None:
    blocks = [yaml.safe_load(block) for block in YAML.findall((DOCS / "schedules.md").read_text())]
    written = [block["schedule"] for block in blocks if "schedule" in block]
    written += [value for block in blocks for value in block.get("schedules", {}).values()]
    written += [r["schedule"] for block in blocks for r in block.get("param_groups", []) if "schedule" in r]
    assert len(written) == 8  # five of `schedule`, two of `schedules`, one of a group
    for value in written:
        read_schedule(value, "schedule")


def test_a_feedback_schedule_is_drawn_after_what_it_has_heard() -> None:
    entry = Entry(curves={"": NewBob()}, steps=4, metrics=(1.0, 1.0))
    # metrics after steps 2 and 4; the second is the first that can be too little, and no step follows it
    assert list(points(NewBob(), entry)) == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)]
    entry = Entry(curves={"": NewBob()}, steps=6, metrics=(1.0, 1.0, 0.5))
    # after step 4 the improvement is 0 of 1: halved from step 5 on
    assert [factor for _, factor in points(NewBob(), entry)] == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]


def test_figures_have_one_size_and_are_the_same_each_time() -> None:
    roots = [ElementTree.fromstring(svg(entry, theme)) for entry in ENTRIES[:3] for theme in THEMES]
    assert {root.get("viewBox") for root in roots} == {"0 0 460.8 165.6"}  # 6.4 and 2.3 inches of 72 points
    assert svg(ENTRIES[0], "dark") == svg(ENTRIES[0], "dark") != svg(ENTRIES[0], "light")


def test_the_page_has_the_place_that_the_gallery_is_put_in() -> None:
    assert (DOCS / "gallery.md").read_text().count(MARK) == 1


def test_the_api_page_has_all_public_names() -> None:
    shown = re.findall(r"^::: (\S+)$", (DOCS / "api" / "schedules.md").read_text(), re.MULTILINE)
    for name in set(schedules.__all__) - {"SCHEDULES"}:
        home = getattr(schedules, name).__module__
        assert f"{home}.{name}" in shown or (home in shown and name in importlib.import_module(home).__all__)

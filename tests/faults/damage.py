"""Checkpoints damaged in every way that bytes and names can be, and a run that is to go on."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.faults.damages import DAMAGES
from tests.faults.row import Row
from tests.faults.same import difference
from tests.run.command import YAML, call, checkpoints, write

__all__ = ["drill"]

_SETTINGS = ("save_in_background=false", "keep=3")


def drill(count: int, folder: Path, seed: int = 0) -> Row:
    """Damage the newest of three checkpoints that many times, and resume."""
    config, chance = write(folder, YAML), random.Random(seed)
    whole, begun = folder / "whole", folder / "begun"
    assert call("train", config, *_SETTINGS, "--out", whole).code == 0
    assert call("train", config, *_SETTINGS, "--out", begun, "--stop-after", 9).code == 130
    failures = []
    for number in range(count):
        name = list(DAMAGES)[number % len(DAMAGES)]
        run = folder / f"run-{number}"
        shutil.copytree(begun, run)
        newest = [run / "checkpoints" / each for each in reversed(checkpoints(begun))]
        DAMAGES[name].do(newest[0], newest[1], chance)
        try:
            failure = _failure(config, run, newest, DAMAGES[name].refused) or difference(whole, run)
        except Exception as error:  # a traceback is what must not be
            failure = repr(error)
        if failure:
            failures.append(f"{number}, {name}: {failure}")
        else:
            shutil.rmtree(run)
    return Row(
        drill=f"damaged checkpoints, {_shares(count)}: {', '.join(DAMAGES)}",
        promise="each is recognised, named and set aside (a half-written one is passed over, and removed), "
        "and the newest whole one is used; the run ends as if nothing had happened",
        count=count,
        figures=f"{count - len(failures)} of {count} recognised, and ended identical to the whole run",
        failures=tuple(failures),
    )


def _shares(count: int) -> str:
    share, more = divmod(count, len(DAMAGES))
    return f"{share} or {share + 1} of each kind" if more else f"{share} of each kind"


def _failure(config: Path, run: Path, newest: list[Path], refused: int) -> str | None:
    """What is wrong with how the run goes on, if so many of the newest checkpoints are no good."""
    said = call("train", config, *_SETTINGS, "--out", run, "--resume")
    if said.code != 0:
        return f"exit code {said.code}: {said.err}"
    for path in newest[:refused]:
        if f"{path} cannot be used: " not in said.out:
            return f"not recognised: {said.out[:300]}"
        if not any(name.startswith(f"{path.name}.damaged") for name in checkpoints(run)):
            return "it is not set aside"
    if said.out.count("cannot be used: ") != refused:
        return f"not {refused} of them are refused: {said.out[:300]}"
    if f"resuming   from {newest[refused]}," not in said.out:
        return f"{newest[refused].name} is not used"
    if any(name.endswith(".tmp") for name in checkpoints(run)):
        return "a half-written one stays"
    return None

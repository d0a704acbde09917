"""`optimscheduler verify-resume`: whether a run that is stopped and continued is the run that was not.

What can be wrong is outside of this package: a data set that remembers what it gave, a generator of its own,
a model with state that is no buffer, kernels that are not deterministic.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console as Screen
from torch import Tensor

from optimscheduler.errors import CheckpointError, ConfigError
from optimscheduler.run.checkpoint.reader import content_of
from optimscheduler.run.checkpoint.store import Checkpoints
from optimscheduler.run.checkpoint.tensors import tensors_in
from optimscheduler.run.commands.settings import read_settings
from optimscheduler.run.commands.speak import INTERRUPTED
from optimscheduler.run.commands.stop_points import StopPoints, choose_stop_points
from optimscheduler.run.data.batches import open_data
from optimscheduler.run.monitor.jsonl import METRICS, VALIDATION, read_lines
from optimscheduler.run.plan.plan import make_plan

__all__ = ["Difference", "differences_of_states", "verify_resume"]

State = Mapping[str, Any]  # Any: a tree of plain values and tensors

_PARTS = ("model", "optim_sches", "random", "progress", "trained")

_TOLD: Final = 2000  # characters of what a training has said

_STOPPED: Final = "stopped    as asked"
"""How the line begins that `train` says when its last checkpoint is written."""

_LAUNCHER: Final = re.compile(r"^E\d{4} .*failed \(exitcode.*$", re.MULTILINE)
"""What torchrun says of a process that ended otherwise than with 0; a traceback of its own comes after it."""


def verify(
    arguments: Sequence[str], batches: int, at: int | None, ranks: int, cwd: Path, screen: Screen
) -> int:
    """Choose where to stop, and `verify_resume`.

    Args:
        arguments: of `train`: the configuration file, and settings to change.
        batches: how many to train, >= 2.
        at: the batch after which to stop; None is one at random.
        ranks: processes, >= 1.
        cwd: where the processes run.
        screen: where to speak.

    Raises:
        ConfigError: the run is too short, or a training fails.
    """
    settings = read_settings(Path(arguments[0]), arguments[1:])
    data = open_data(settings, ranks=ranks)
    plan = make_plan(settings, data.batches, ranks=ranks, tokens_per_item=data.tokens_per_item)
    return verify_resume(arguments, choose_stop_points(plan, ranks, batches, at), ranks, cwd, screen)


def verify_resume(arguments: Sequence[str], stops: StopPoints, ranks: int, cwd: Path, screen: Screen) -> int:
    """Train twice, once without and once with a stop after which a new process goes on, and compare.

    Args:
        arguments: of `train`: the configuration, and settings to change.
        stops: how many batches are trained, and where to stop.
        ranks: processes, >= 1.
        cwd: where the processes run.
        screen: where to speak.

    Returns:
        0 if the two are the same to the bit, 1 if not.

    Raises:
        ConfigError: a training fails, or ends elsewhere; which one, and what it said, is in the message.
    """
    with _folder_of_its_own(screen) as folder:
        whole, parts = folder / "whole", folder / "parts"
        _train_both(_Training(arguments=arguments, ranks=ranks, cwd=cwd), stops, whole, parts, screen)
        found = list(_differences(whole, parts, stops.at))
        if found:
            for line in found:
                screen.print(line, highlight=False, markup=False, soft_wrap=True)
            _keep(folder, screen)
            return 1
        state = _last(whole)
        count = sum(1 for part in _PARTS for _ in tensors_in(state.get(part)))
        screen.print(
            f"identical  {count} tensors of weights and state, the random generators, and "
            f"{len(read_lines(whole / METRICS))} lines of metrics are the same to the bit",
            highlight=False,
            soft_wrap=True,
        )
        shutil.rmtree(folder)
        return 0


@contextmanager
def _folder_of_its_own(screen: Screen) -> Iterator[Path]:
    """A folder for the trainings. After an error it is named, and removed where nothing is in it."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="verify-resume-"))
    except OSError as error:
        raise ConfigError(
            f"no folder can be made for the trainings: {error.strerror}. Say where in the variable TMPDIR"
        ) from None
    try:
        yield folder
    except BaseException:
        _keep(folder, screen)
        raise


def _keep(folder: Path, screen: Screen) -> None:
    inside = [f"{path.name}/" for path in sorted(folder.iterdir(), reverse=True)]
    if inside:
        screen.print(f"kept       {folder}/: {' and '.join(inside)}", highlight=False, soft_wrap=True)
    else:
        folder.rmdir()


def _train_both(train: _Training, stops: StopPoints, whole: Path, parts: Path, screen: Screen) -> None:
    batches, at = stops.batches, stops.at
    for note in stops.notes:
        screen.print(f"note       {note}", highlight=False, soft_wrap=True)
    screen.print(f"training   {batches} batches without a stop", highlight=False)
    train.run("without a stop", whole, batches)
    screen.print(f"training   {batches} batches, stopped after {at}", highlight=False)
    train.run(f"until the stop after batch {at}", parts, at)
    train.run(f"that goes on after the stop after batch {at}", parts, batches, "--resume")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Training:
    """A training in processes of its own."""

    arguments: Sequence[str]
    ranks: int
    cwd: Path

    def run(self, which: str, out: Path, batches: int, *more: str) -> None:
        """Train up to a batch, and make sure that this is what was done.

        Raises:
            ConfigError: it is not.
        """
        command = [sys.executable, "-m"]
        if self.ranks > 1:
            command += ["torch.distributed.run", "--nproc-per-node", str(self.ranks), "-m"]
        command += ["optimscheduler", "train", *self.arguments, "--out", str(out)]
        command += ["--stop-after", str(batches), *more]
        done = subprocess.run(command, cwd=self.cwd, capture_output=True, text=True, check=False)
        if not self._ended_well(done):
            raise ConfigError(f"the training {which} fails ({_exit(done.returncode)}): {_told(done)}")
        reached = _last_batch(out)
        if reached != batches:
            raise ConfigError(
                f"the training {which} was to end with batch {batches}, and its last checkpoint is of batch "
                f"{reached}: {_told(done)}"
            )

    def _ended_well(self, done: subprocess.CompletedProcess[str]) -> bool:
        """Whether it was stopped, or came to its end. torchrun makes 1 of whatever its processes end with."""
        if self.ranks > 1 and done.returncode == 1:
            return any(line.startswith(_STOPPED) for line in done.stdout.splitlines())
        return done.returncode in (0, INTERRUPTED)


def _exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"


def _told(done: subprocess.CompletedProcess[str]) -> str:
    """The end of what it said; of what torchrun adds, only what became of which process."""
    said = done.stderr.strip() or done.stdout.strip() or "it has said nothing"
    launcher = _LAUNCHER.search(said)
    said = said[: launcher.end()] if launcher else said
    said = said.removeprefix("error: ")
    return said if len(said) <= _TOLD else "...\n" + said[-_TOLD:].partition("\n")[2]


def _last_batch(run: Path) -> int:
    checkpoints = Checkpoints(run / "checkpoints")
    newest = checkpoints.newest()
    return int(content_of(newest)["progress"]["batch"]) if newest else 0


def _last(run: Path) -> State:
    checkpoints = Checkpoints(run / "checkpoints")
    newest = checkpoints.newest()
    if newest is None:
        raise CheckpointError(f"{run} has no checkpoint")
    return checkpoints.load(newest)


def _differences(whole: Path, parts: Path, at: int) -> Iterator[str]:
    """Lines on where two runs differ; none if they do not."""
    before = False
    for name in (METRICS, VALIDATION):
        ours, theirs = ([_timeless(line) for line in read_lines(run / name)] for run in (whole, parts))
        pairs = zip(ours, theirs, strict=False)
        first = next((pair for pair in pairs if pair[0] != pair[1]), None)
        if first is not None:
            before = before or first[0]["batch"] <= at
            keys = [key for key in first[0] if first[0][key] != first[1].get(key)]
            told = ", ".join(f"{key} {first[0][key]} and {first[1].get(key)}" for key in keys)
            yield f"different  {name}, batch {first[0]['batch']}: {told}"
        elif len(ours) != len(theirs):
            yield f"different  {name}: {len(ours)} and {len(theirs)} lines"
    one, other = _last(whole), _last(parts)
    found = [d for part in _PARTS for d in differences_of_states(one.get(part), other.get(part), part)]
    if found:
        yield f"different  {len(found)} places of the last checkpoint, the first: {found[0]}"
    if before:
        yield (
            f"           The two differ before the stop after batch {at} already: the training is not "
            "deterministic. On a GPU see torch.use_deterministic_algorithms"
        )
    elif found:
        yield (
            "           Up to the stop they are the same. Look for what is in no checkpoint: a data set that "
            "remembers what it gave, a generator of its own, attributes of the model that are no buffers"
        )


def _timeless(line: State) -> State:
    return {key: value for key, value in line.items() if not key.endswith("_seconds")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A place at which two states differ.

    Attributes:
        place: keys and indices that lead there.
        how: what differs.
    """

    place: str
    how: str

    def __str__(self) -> str:
        return f"{self.place}: {self.how}"


def differences_of_states(one: Any, other: Any, place: str) -> Iterator[Difference]:  # Any: trees
    """Where two trees differ, in order; NaN is the same as NaN.

    >>> import torch
    >>> other = {"w": torch.tensor([1.0, 3.0, 1.0])}
    >>> [str(found) for found in differences_of_states({"w": torch.ones(3)}, other, "model")]
    ['model.w: 1 of 3 elements, by at most 2']
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in [*one, *(key for key in other if key not in one)]:
            if key in one and key in other:
                yield from differences_of_states(one[key], other[key], f"{place}.{key}")
            else:
                yield Difference(place=f"{place}.{key}", how="it is in one of them alone")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, (ours, theirs) in enumerate(zip(one, other, strict=True)):
            yield from differences_of_states(ours, theirs, f"{place}.{index}")
    elif isinstance(one, Tensor) and isinstance(other, Tensor):
        how = _how_tensors_differ(one, other)
        if how:
            yield Difference(place=place, how=how)
    elif type(one) is not type(other) or (one != other and not (one != one and other != other)):
        yield Difference(place=place, how=f"{one!r:.60} and {other!r:.60}")


def _how_tensors_differ(one: Tensor, other: Tensor) -> str:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return f"{one.dtype} {tuple(one.shape)} and {other.dtype} {tuple(other.shape)}"
    if one.dtype.is_floating_point:
        one, other = one.double(), other.double()
        unequal = (one != other) & ~(one.isnan() & other.isnan())
    else:
        unequal = one != other
    if not unequal.any():
        return ""
    most = (one.double() - other.double()).abs().max().item()
    return f"{int(unequal.sum())} of {one.numel()} elements, by at most {most:.3g}"

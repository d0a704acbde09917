"""The drill of configurations: break a right one in one to three places, and see what is said."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from optimscheduler.errors import ConfigError
from optimscheduler.run.config.schema import read_config
from optimscheduler.run.config.strict_yaml import read_file
from optimscheduler.run.data.batches import open_data
from optimscheduler.run.distributed.device import device_named
from optimscheduler.run.plan.plan import Plan, make_plan
from optimscheduler.run.plan.report import show_config, show_plan
from tests.faults.config_bases import EXAMPLES, called, plain_of
from tests.faults.config_legal import FUNCTIONS, strangers
from tests.faults.config_mutations import Mutated, mutated
from tests.faults.config_oracle import differences
from tests.faults.row import Row

__all__ = ["drill"]

_PROMISE: Final = (
    "each is refused with a ConfigError that names the place, or is accepted and explains to the plan that "
    "its values say; no other exception, no unknown key accepted"
)
_LIMIT: Final = 10.0  # seconds of this process's own time for one configuration
_MOST_MEMORY: Final = 1_000_000  # kB that one configuration may add
_LONGEST: Final = 4_000  # characters of a message that somebody is to read


class _TooLong(BaseException):  # no Exception: nothing that is drilled may catch it
    """One configuration took longer than the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Explained:
    """What `explain` found out about a configuration."""

    values: Mapping[str, Any]
    plan: Plan
    items: int


def drill(count: int, folder: Path, seed: int = 0) -> Row:
    """Explain so many configurations with faults.

    Args:
        count: mutated configurations, each of them different.
        folder: an empty one, to write them into.
        seed: chooses which.
    """
    failures: list[str] = []
    outcomes: Counter[str] = Counter()
    longest = 0.0
    with _beside_examples(), contextlib.chdir(folder):
        for each in mutated(count, seed):
            begun = time.process_time()
            outcome, found = _judged(each, folder / "config.yaml")
            longest = max(longest, time.process_time() - begun)
            outcomes[outcome] += 1
            failures += [f"{each.told}: {failure}" for failure in found]
    sums = f"{outcomes['refused']} refused, {outcomes['accepted']} accepted"
    return Row(
        drill="mutated configurations",
        promise=_PROMISE,
        count=count,
        figures=f"{sums}, the longest took {longest:.1f} s",
        failures=tuple(failures),
    )


def _judged(mutated: Mutated, path: Path) -> tuple[str, list[str]]:
    """What became of one, and a line for everything that must not have."""
    path.write_text(mutated.text, encoding="utf-8")
    called.clear()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with _limited():
            explained = _explain(path)
    except ConfigError as error:
        outcome, failures = "refused", list(_faults_of(str(error), mutated))
    except _TooLong:
        outcome, failures = "failed", [f"more than {_LIMIT} s"]
    except BaseException as error:
        outcome, failures = "failed", [f"{type(error).__name__}: {error!s:.200} {_raised_at(error)}"]
    else:
        outcome, failures = "accepted", list(_faults_in(explained, mutated))
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > _MOST_MEMORY:
        failures.append("more than 1 GB of memory")
    if called:
        failures.append(f"{called} was called")
    if left := [each.name for each in path.parent.iterdir() if each != path]:
        failures.append(f"something was written: {left}")
    return outcome, failures


def _explain(path: Path) -> _Explained:
    """What `optimscheduler explain` does."""
    screen = Console(file=io.StringIO(), width=160)
    values = read_file(path)
    config = read_config(values, str(path))
    data = open_data(config)
    show_config(screen, config, data, device_named(config.device))
    plan = make_plan(config, data.batches, tokens_per_item=data.tokens_per_item)
    show_plan(screen, plan, curve=True)
    return _Explained(values=values, plan=plan, items=data.items)


def _faults_of(message: str, mutated: Mutated) -> Iterator[str]:
    """What is wrong with the message of a refusal."""
    named = any(word[:40] in message or repr(word)[1:41] in message for word in mutated.words if word)
    if not named and not re.search(r"\bline \d", message):
        yield f"the message names no place: {message:.300}"
    if len(message) > _LONGEST:
        yield f"the message has {len(message)} characters: {message:.300}"
    if "\\ud800" in message.encode("utf-8", "backslashreplace").decode():
        yield f"the message cannot be printed: {message!r:.300}"
    for path in re.findall(r'Custom\("(.*?)"\): (?:at s = |the factor at s = )', message):
        if path not in FUNCTIONS:
            yield f"{path} was called: {message:.300}"
    if "Traceback" in message:
        yield f"the message has a traceback: {message:.300}"


def _faults_in(explained: _Explained, mutated: Mutated) -> Iterator[str]:
    """What is wrong with the plan of one that was accepted."""
    with contextlib.suppress(ValueError):
        if repr(plain_of(mutated.tree)) != repr(explained.values) and mutated.tree is not None:  # nan
            yield f"read as {explained.values!r:.200}"
    wrong = list(strangers(explained.values))
    yield from wrong or differences(explained.values, explained.plan, explained.items)


def _raised_at(error: BaseException) -> str:
    """The innermost line of the package that it came through."""
    places, traceback = [], error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{Path(code.co_filename).name}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return f"[{' < '.join(reversed(places[-4:]))}]"


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Warnings are errors, and there is so much time; pytest's own limit counts another clock."""

    def too_long(*_: object) -> None:
        raise _TooLong

    previous = signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, _LIMIT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


@contextlib.contextmanager
def _beside_examples() -> Iterator[None]:
    """The modules beside the examples' files are found, as the command line finds them; nothing is logged."""
    added, logger, silent = (
        list(map(str, EXAMPLES)),
        logging.getLogger("optimscheduler"),
        logging.NullHandler(),
    )
    sys.path.extend(added)
    logger.addHandler(silent)
    try:
        yield
    finally:
        logger.removeHandler(silent)
        for folder in added:
            sys.path.remove(folder)

"""One random training after the other, by the library and by a plain loop, with other hands in between.

python -m tests.other_hands.run 17                     one seed, told in full
python -m tests.other_hands.run 0 --count 500          so many from there, with a table of what failed
python -m tests.other_hands.run 0 --count 20 --each    so many for each kind of event alone
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

import torch

from tests.other_hands.compare import apart, apart_at_the_end
from tests.other_hands.events import EVENTS, draw_events
from tests.other_hands.ours import Ours
from tests.other_hands.plain import Plain
from tests.other_hands.trainings import Training, draw

__all__ = ["Outcome", "run", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a training.

    Attributes:
        events: up to the one after which the sides were apart.
        wrong: where they were; empty if nowhere.
        refused: the library has refused an event that it may refuse.
        updates: real steps of torch's side.
        how: arguments of the command line that repeat it.
    """

    training: Training
    events: list[str]
    wrong: list[str]
    refused: bool = False
    updates: int = 0
    how: str = ""

    def __str__(self) -> str:
        lines = [f"{self.training}", *(f"  {i:2} {event}" for i, event in enumerate(self.events))]
        lines += [f"    {line}" for line in self.wrong[:12]]
        return "\n".join([*lines, f"again: python -m tests.other_hands.run {self.how}"])


def run(seed: int, only: Sequence[str] = (), *, layout: str = "", plain_kernel: bool = False) -> Outcome:
    """The training of a seed.

    Args:
        seed: of everything.
        only: the kinds of events to draw from, beside ordinary batches; none for all.
        layout: another than the drawn one.
        plain_kernel: `fused=False` where the library might choose.
    """
    training = draw(seed)
    training = replace(training, layout=layout or training.layout)
    training = unfused(training) if plain_kernel else training
    how = [str(seed), *(["--layout", layout] if layout else [])]
    how += ["--plain-kernel"] if plain_kernel else []
    how += ["--only", *only] if only else []
    with _quiet():
        return replace(train(training, draw_events(training, only)), how=shlex.join(how))


def unfused(training: Training) -> Training:
    """No kernel is chosen where none was asked for."""
    may = training.optim_type in ("Adam", "AdamW", "SGD", "Adagrad")
    return replace(training, optim_conf={**({"fused": False} if may else {}), **training.optim_conf})


def train(training: Training, events: Sequence[str]) -> Outcome:
    """Both sides through the events; weights are compared after each of them."""
    plain, ours = Plain(training), Ours(training)
    for i, name in enumerate(events):
        event, told = EVENTS[name], list(events[: i + 1])
        event.do(plain, Random(f"{training.seed} {i}"))
        try:
            event.do(ours, Random(f"{training.seed} {i}"))
        except event.refusals:
            return Outcome(training=training, events=told, wrong=[], refused=True)
        except Exception:
            return Outcome(training=training, events=told, wrong=traceback.format_exc().splitlines()[-6:])
        if wrong := apart(ours, plain):
            return Outcome(training=training, events=told, wrong=wrong)
    return Outcome(
        training=training,
        events=list(events),
        wrong=apart_at_the_end(ours, plain),
        updates=sum(plain.closed),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Warnings are errors, and the library's log is silent."""
    logger, threads = logging.getLogger("optimscheduler"), torch.get_num_threads()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        logger.setLevel(level)
        torch.set_num_threads(threads)


def main(arguments: list[str]) -> int:
    """Run seeds, and tell; 1 if any was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("seed", type=int)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--layout", default="", choices=["auto", "flat", "loose"])
    parser.add_argument("--only", nargs="*", default=[], choices=list(EVENTS), help="beside ordinary batches")
    parser.add_argument("--without", nargs="*", default=[], choices=list(EVENTS))
    parser.add_argument("--each", action="store_true", help="every kind of event alone")
    parser.add_argument(
        "--plain-kernel", action="store_true", help="fused=False where the library might choose"
    )
    told = parser.parse_args(arguments)
    how = {"layout": told.layout, "plain_kernel": told.plain_kernel}
    failed = 0
    kinds = [name for name in told.only or EVENTS if name not in told.without]
    pools = [[name] for name in kinds] if told.each else [kinds if told.only or told.without else []]
    for only in pools:
        outcomes = [run(seed, only, **how) for seed in range(told.seed, told.seed + told.count)]
        wrong = [outcome for outcome in outcomes if outcome.wrong]
        failed += len(wrong)
        if told.each:
            print(
                f"{len(wrong):4} of {told.count}  {only[0]}  {[o.training.seed for o in wrong[:4]]}",
                flush=True,
            )
            continue
        for outcome in outcomes if told.count == 1 else wrong[:3]:
            print(outcome)
        refused = sum(outcome.refused for outcome in outcomes)
        print(f"{len(outcomes) - len(wrong)} of {len(outcomes)} agree, {refused} of them refused")
        for name, number in Counter(outcome.events[-1] for outcome in wrong).most_common():
            print(f"{number:5}  first apart after: {name}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
